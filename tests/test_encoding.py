"""Rows in patterns come out as in running text, fit, and keep what must be kept."""

from __future__ import annotations

import pytest
from conftest import TOKENIZERS, WORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pet_pipeline.encoding import (
    PatternEncoder,
    collate,
    describe_words,
    read_encoded,
    shorten,
    write_encoded,
)
from pet_pipeline.patterns import Pattern, parse_template

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
BUILT = {kind: make() for kind, make in TOKENIZERS.items()}
WILD = st.text(st.sampled_from('ab [MASK]<mask></s>SEPé\u4e2d😀.,\n"'), max_size=60)
PLAIN = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
TEMPLATES = [
    "{text} it was {mask}.",
    "{mask}: {text}",
    "{text} ({mask})",
    '"{text}" {mask}, "{more:keep}"',
    "just {mask}! {sep} {text} and {more}",
    "{text} {sep} {more:keep}? answer: {mask}",
    "[ category: {mask} ] {text} {more}",
]


def pattern(template: str, words: tuple[tuple[str, ...], ...] = (("bad",), ("great",))) -> Pattern:
    return Pattern("p", parse_template(template), tuple("ab"[: len(words)]), words)


def encoder(
    kind: str,
    template: str,
    max_tokens: int = 400,
    words: tuple[tuple[str, ...], ...] = (("bad",), ("great",)),
) -> PatternEncoder:
    return PatternEncoder(pattern(template, words), BUILT[kind], max_tokens)


def slowly_shortened(lengths: list[int], budget: int) -> list[int]:
    lengths = list(lengths)
    while sum(lengths) > max(budget, 0):
        longest = max(range(len(lengths)), key=lambda n: (lengths[n], n))
        lengths[longest] -= 1
    return lengths


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(-5, 90))
def test_shorten_takes_one_token_at_a_time_from_the_longest(
    lengths: list[int], budget: int
) -> None:
    assert shorten(lengths, budget) == slowly_shortened(lengths, budget)


@QUICK
@given(st.sampled_from(list(BUILT)), st.sampled_from(TEMPLATES), WILD, PLAIN, st.integers(36, 60))
def test_rows_fit_and_keep_their_slot(
    kind: str, template: str, text: str, more: str, max_tokens: int
) -> None:
    pvp = encoder(kind, template, max_tokens, (("bad",), ("come back",)))
    kept = len(BUILT[kind](more, add_special_tokens=False)["input_ids"])
    (row,) = pvp.encode([{"text": text, "more": more}])
    assert len(row.ids) <= max(max_tokens, 30 + kept)
    masks = [n for n, token in enumerate(row.ids) if token == pvp.layout.mask]
    assert masks == list(range(row.slot, row.slot + pvp.words.n_masks))
    special = {*pvp.layout.prefix, *pvp.layout.middle, *pvp.layout.suffix}
    count = len(pvp.layout.prefix) + len(pvp.layout.suffix)
    count += len(pvp.layout.middle) if row.boundary < len(row.ids) else 0
    assert sum(token in special for token in row.ids) == count


@QUICK
@given(st.sampled_from(list(BUILT)), PLAIN)
def test_an_untruncated_row_is_the_text_a_person_would_write(kind: str, text: str) -> None:
    tokenizer = BUILT[kind]
    for template in ("{text} it was {mask}.", "{text} and {mask}", "the {mask} of {text}"):
        pvp = encoder(kind, template)
        (row,) = pvp.encode([{"text": text}])
        written = template.replace("{text}", text).replace("{mask}", tokenizer.mask_token)
        assert list(row.ids) == tokenizer(written)["input_ids"]


@QUICK
@given(st.sampled_from(list(BUILT)), PLAIN, PLAIN)
def test_pairs_are_encoded_like_the_tokenizers_own(kind: str, text: str, more: str) -> None:
    tokenizer = BUILT[kind]
    pvp = encoder(kind, "{text} {sep} {mask}, {more}")
    (row,) = pvp.encode([{"text": text, "more": more}])
    own = tokenizer(text, f"{tokenizer.mask_token}, {more}")
    assert list(row.ids) == own["input_ids"]
    if pvp.layout.has_types:
        types = collate([row], pvp.layout)["token_type_ids"][0].tolist()
        assert types == own["token_type_ids"]


@pytest.mark.parametrize("kind", BUILT)
def test_words_of_the_template_and_kept_columns_survive(kind: str) -> None:
    pvp = encoder(kind, "{text} in summary it was {mask}. {more:keep}", 40)
    (row,) = pvp.encode([{"text": "long " * 200, "more": "the goal was great"}])
    shown = BUILT[kind].decode(row.ids)
    assert len(row.ids) == 40
    assert "in summary it was" in shown
    assert "the goal was great" in shown
    assert (
        pvp.count_truncated([{"text": "long " * 200, "more": "x"}, {"text": "a", "more": "x"}]) == 1
    )


def test_the_longest_column_gives_first() -> None:
    pvp = encoder("wordpiece", "{text} {mask} {more}", 23)
    (row,) = pvp.encode([{"text": "long " * 50, "more": "great day night"}])
    ids = list(row.ids)
    assert ids.count(BUILT["wordpiece"].convert_tokens_to_ids("long")) == 17
    assert BUILT["wordpiece"].decode(ids[-4:-1]) == "great day night"


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("{text} it was {mask}.", "Ġgreat"),
        ("{mask}: {text}", "great"),
        ("{text} ({mask})", "great"),
        ('{text} "{mask}"', "great"),
    ],
)
def test_label_words_are_read_as_they_stand(template: str, token: str) -> None:
    pvp = encoder("bytelevel", template)
    assert describe_words(pvp)["b"] == [[token]] or describe_words(pvp)["b"] == [list(token)]


def test_a_space_before_the_mask_makes_one_token() -> None:
    assert describe_words(encoder("bytelevel", "{text} it was {mask}."))["b"] == [["Ġgreat"]]
    assert describe_words(encoder("unigram", "{text} it was {mask}."))["b"] == [["▁great"]]


def test_problems_of_words_and_length() -> None:
    twice = encoder("wordpiece", "{text} {mask}", words=(("Great",), ("great",)))
    assert twice.problems() == [
        "label words 'Great' (a) and 'great' (b) are the same tokens for this model"
    ]
    unknown = encoder("wordpiece", "{text} {mask}", words=(("中",), ("great",)))
    assert unknown.problems() == ["label word '中' has tokens that the model does not know"]
    tight = encoder("wordpiece", "{text} in summary it was {mask}.", 8)
    assert tight.problems() == [
        "its own words and masks take 8 of max_tokens = 8, which leaves none for the text"
    ]
    assert encoder("wordpiece", "{text} {mask}").problems() == []


@QUICK
@given(PLAIN, st.integers(1, 4))
def test_a_slot_can_be_resized(text: str, size: int) -> None:
    pvp = encoder("wordpiece", "{text} {mask} {sep} {text}", words=(("come back",), ("great",)))
    (row,) = pvp.encode([{"text": text}])
    sized = row.with_masks(2, size, pvp.layout.mask)
    assert sized.ids.count(pvp.layout.mask) == size
    assert sized.with_masks(size, 2, pvp.layout.mask) == row
    assert sized.ids[sized.boundary :] == row.ids[row.boundary :]


@QUICK
@given(st.lists(st.builds(lambda text: {"text": text}, WILD), min_size=1, max_size=5))
def test_encoded_rows_are_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("encoded") / "tokens.parquet"
    encoded = encoder("wordpiece", "{text} {mask}").encode(rows)
    write_encoded(file, encoded)
    assert read_encoded(file) == encoded


def test_collate_pads_on_the_right() -> None:
    pvp = encoder("wordpiece", "{text} {mask} {sep} the end")
    rows = pvp.encode([{"text": "a"}, {"text": "a long text"}])
    inputs = collate(rows, pvp.layout)
    assert inputs["attention_mask"].sum(1).tolist() == [len(row.ids) for row in rows]
    assert (inputs["input_ids"][0, len(rows[0].ids) :] == pvp.layout.pad).all()
    assert inputs["token_type_ids"][1, rows[1].boundary :].all()


def test_nothing_to_encode() -> None:
    assert encoder("wordpiece", "{text} {mask}").encode([]) == []
