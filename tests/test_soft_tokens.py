"""Soft tokens in templates: where they are put, how they are numbered, what they start at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from testing import TOKENIZERS, WORDS

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.patterns import Field, Pattern, pattern_of, template_of
from pet_pipeline.soft_tokens import SoftTokens, soft_count

ENCODERS = {name: make() for name, make in TOKENIZERS.items()}
ROWS = [{"text": "a", "more": "good"}, {"text": "great food, so nice", "more": ""}]

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
literals = st.tuples(words, st.sampled_from(["", ".", ":", " -"])).map("".join)
softs = st.one_of(
    st.integers(1, 4).map(lambda count: f"{{soft:{count}}}"),
    words.map(lambda text: f"{{soft:{text}}}"),
    st.just("{soft}"),
)
columns = st.sampled_from(["{text}", "{more}", "{text:keep}"])
SOFT = st.builds(
    SoftTokens,
    length=st.integers(0, 5),
    words=st.sampled_from(["", "it was"]),
    template=st.booleans(),
)


@st.composite
def patterns(draw: st.DrawFn, soft: bool = True) -> Pattern:
    """Patterns with one mask, some columns, and perhaps a separator and soft fields."""
    kinds = [literals, columns, softs] if soft else [literals, columns]
    parts = draw(st.lists(st.one_of(*kinds), max_size=5))
    parts.insert(draw(st.integers(0, len(parts))), "{mask}")
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), "{sep}")
    template = "".join(part + draw(st.sampled_from([" ", ""])) for part in parts).strip()
    return pattern_of("p", template, ("a", "b"), (("bad",), ("good", "nice")))


def fields(pattern: Pattern, *, soft: bool) -> list[Field]:
    return [p for p in pattern.parts if isinstance(p, Field) and (p.name == "soft") == soft]


def soft_ids(row: Encoded) -> list[int]:
    return [id_ for id_ in row.ids if id_ < 0]


@given(patterns(), SOFT)
def test_columns_and_mask_are_kept(pattern: Pattern, soft: SoftTokens) -> None:
    made = soft.put_in(pattern)
    assert fields(made, soft=False) == fields(pattern, soft=False)
    kept = iter(fields(made, soft=True))
    assert all(own in kept for own in fields(pattern, soft=True))  # in their order
    assert (made.name, made.labels, made.words) == (pattern.name, pattern.labels, pattern.words)


@given(patterns(), SOFT)
def test_what_is_put_in_says_the_same(pattern: Pattern, soft: SoftTokens) -> None:
    made = soft.put_in(pattern)
    if soft.template:
        assert flat(made) == flat(pattern)
    else:
        assert flat(made).endswith(flat(pattern))
        has = bool(fields(pattern, soft=True))
        added = len(fields(made, soft=True)) - len(fields(pattern, soft=True))
        assert added == (0 if has else bool(soft.length or soft.words))


def flat(pattern: Pattern) -> str:
    """A template in which soft words are words."""
    return "".join(
        p if isinstance(p, str) else p.specs[0] if p.name == "soft" and p.specs else f"{{{p.name}}}"
        for p in pattern.parts
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@given(patterns(), SOFT)
def test_soft_ids_count_down_in_the_order_of_the_template(
    name: str, pattern: Pattern, soft: SoftTokens
) -> None:
    encoder = PatternEncoder(pattern, ENCODERS[name], 96, soft)
    expected = [-1 - number for number in range(len(encoder.soft_starts))]
    rows = encoder.encode(ROWS)
    for row in rows:
        assert soft_ids(row) == expected
        assert [role == Role.SOFT for role in row.roles] == [id_ < 0 for id_ in row.ids]
        assert row.roles.count(Role.MASK) == 1
    counted = sum(soft_count(field) or 0 for field in fields(encoder.pattern, soft=True))
    assert encoder.soft_starts.count(None) == counted


@given(patterns(), SOFT, st.integers(1, 40))
def test_truncation_keeps_all_soft_tokens(pattern: Pattern, soft: SoftTokens, room: int) -> None:
    tokenizer = ENCODERS["wordpiece"]
    long = [{"text": "so good " * 50, "more": "not bad " * 50}]
    shortest = PatternEncoder(pattern, tokenizer, 500, soft)
    limit = shortest._fixed_tokens() + room
    encoder = PatternEncoder(pattern, tokenizer, limit, soft)
    (row,) = encoder.encode(long)
    assert len(row) <= limit
    assert len(soft_ids(row)) == len(encoder.soft_starts)


@given(patterns(soft=False), st.data())
def test_soft_words_between_spaces_are_the_tokens_of_the_plain_template(
    pattern: Pattern, data: st.DataObject
) -> None:
    tokenizer = ENCODERS["wordpiece"]
    places = [n for n, part in enumerate(pattern.parts) if between_spaces(pattern, n)]
    assume(places)
    chosen = data.draw(st.sets(st.sampled_from(places), min_size=1))
    parts: list[Any] = []
    for n, part in enumerate(pattern.parts):
        if n in chosen:
            assert isinstance(part, str)
            before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
            parts += [p for p in (before, Field("soft", (part.strip(),)), after) if p]
        else:
            parts.append(part)
    soft = Pattern(pattern.name, tuple(parts), pattern.labels, pattern.words)
    plain = PatternEncoder(pattern, tokenizer, 96).encode(ROWS)
    encoder = PatternEncoder(soft, tokenizer, 96, SoftTokens())
    for row, expected in zip(encoder.encode(ROWS), plain, strict=True):
        starts = [encoder.soft_starts[-1 - id_] if id_ < 0 else id_ for id_ in row.ids]
        assert tuple(starts) == expected.ids
        assert row.segments == expected.segments


def between_spaces(pattern: Pattern, number: int) -> bool:
    part = pattern.parts[number]
    first, last = number == 0, number == len(pattern.parts) - 1
    return (
        isinstance(part, str)
        and bool(part.strip())
        and (first or part[0] == " ")
        and (last or part[-1] == " ")
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@given(patterns(soft=False))
def test_a_soft_template_starts_at_its_own_words(name: str, pattern: Pattern) -> None:
    literal = [n for n, part in enumerate(pattern.parts) if isinstance(part, str) and part.strip()]
    assume(all(between_spaces(pattern, n) for n in literal))
    tokenizer = ENCODERS[name]
    plain = PatternEncoder(pattern, tokenizer, 96).encode(ROWS)
    encoder = PatternEncoder(pattern, tokenizer, 96, SoftTokens(template=True))
    for row, expected in zip(encoder.encode(ROWS), plain, strict=True):
        starts = [encoder.soft_starts[-1 - id_] if id_ < 0 else id_ for id_ in row.ids]
        assert tuple(starts) == expected.ids


def test_digits_of_a_template_are_words_that_become_soft() -> None:
    pattern = pattern_of("p", "{text} 10 {mask}", ("a", "b"), (("bad",), ("good",)))
    encoder = PatternEncoder(pattern, ENCODERS["wordpiece"], 96, SoftTokens(template=True))
    ids = ENCODERS["wordpiece"]("10", add_special_tokens=False)["input_ids"]
    assert encoder.soft_starts == ids


@given(st.integers(1, 1000))
def test_a_number_is_a_count_and_all_else_are_words(count: int) -> None:
    assert soft_count(Field("soft", (str(count),))) == count
    assert soft_count(Field("soft", (f"{count} days",))) is None


@pytest.mark.parametrize(
    ("soft", "template", "expected"),
    [
        (SoftTokens(), "{text} so {mask}", "{text} so {mask}"),
        (SoftTokens(length=2), "{text} so {mask}", "{soft:2} {text} so {mask}"),
        (SoftTokens(2, "it was"), "{text} so {mask}", "{soft:it was} {text} so {mask}"),
        (SoftTokens(length=2), "{text} {soft} {mask}", "{text} {soft} {mask}"),
        (SoftTokens(template=True), "{text}. So, {mask}!", "{text}{soft:. So,} {mask}{soft:!}"),
        (SoftTokens(template=True), "a {sep} {text} {mask}", "{soft:a} {sep} {text} {mask}"),
        (SoftTokens(length=4, template=True), "{text} {mask}", "{text} {mask}"),
    ],
)
def test_templates_with_soft_tokens(soft: SoftTokens, template: str, expected: str) -> None:
    pattern = pattern_of("p", template, ("a", "b"), (("bad",), ("good",)))
    assert template_of(soft.put_in(pattern)) == expected
