"""Demonstrations: one of each label, near the input, within the budget, the input left whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing import TOKENIZERS, WORDS

from pet_pipeline.demonstrations import NO_ROW, Demonstrations, Rows
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.patterns import pattern_of

BUILT = {kind: make() for kind, make in TOKENIZERS.items()}
LABEL_WORDS = (("bad",), ("very good", "great"))
SUPPORT = [
    {"x": "terrible food", "y": "we come again"},
    {"x": "wonderful film of my team", "y": "it is so"},
    {"x": "awful night", "y": "the match"},
    {"x": "good shop", "y": "nice place"},
]
GOLD = [0, 1, 0, 1]
PLAIN = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
TEMPLATES = [
    "{x} it was {mask}.",
    "just {mask}! {x}",
    "{x} {sep} so {mask}, {y}",
    "{demos} {x} it was {mask}.",
    "{x} {demos} it was {mask}. {y}",
    "{x} {sep} {demos} {mask}, {y}",
    "{x} {demos} {sep} {mask}, {y}",
    "{mask} {x} {sep} {y} {demos}",
]


def encoder_of(
    kind: str, template: str, max_tokens: int = 40, words: Any = LABEL_WORDS
) -> PatternEncoder:
    labels = tuple(f"l{n}" for n in range(len(words)))
    return PatternEncoder(pattern_of("p", template, labels, words), BUILT[kind], max_tokens)


def insert(
    encoder: PatternEncoder, row: dict[str, str], max_tokens: int, seed: int = 0
) -> tuple[Encoded, float]:
    """A row with demonstrations, and how many it has."""
    demonstrations = Demonstrations(encoder, SUPPORT, GOLD, max_tokens=max_tokens)
    rows = Rows(encoder.encode([row]))
    (found,) = demonstrations.insert(rows, seed)
    return found, demonstrations.room(rows, seed)[0]


def text_of(kind: str, ids: Any) -> str:
    return str(BUILT[kind].decode(list(ids))).replace(" ", "").lower()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(list(BUILT)),
    st.sampled_from(TEMPLATES),
    PLAIN,
    PLAIN,
    st.integers(0, 99),
    st.integers(41, 160),
)
def test_the_input_stays_whole_and_the_budget_is_kept(
    kind: str, template: str, x: str, y: str, seed: int, budget: int
) -> None:
    encoder, row = encoder_of(kind, template), {"x": x, "y": y}
    found, count = insert(encoder, row, budget, seed)
    assert len(found) <= budget
    assert 0 <= count <= 2
    mask = encoder.layout.mask
    (encoded,) = encoder.encode([row])
    plain = encoded.without(Role.DEMONSTRATION)
    assert found.ids[found.slot] == (mask,) * encoder.words.n_masks
    assert found.ids.count(mask) == plain.ids.count(mask)  # demonstrations have no open mask
    if count == 0:
        assert found == plain
        return
    location = (
        encoded.where(Role.DEMONSTRATION).start
        if Role.DEMONSTRATION in encoded.roles
        else len(plain) - len(encoder.layout.suffix)
    )
    end = location + len(found) - len(plain)
    assert found.ids[:location] + found.ids[end:] == plain.ids
    assert found.roles[:location] + found.roles[end:] == plain.roles
    assert set(found.roles[location:end]) == {Role.SPECIAL, Role.DEMONSTRATION}
    check_segments(encoder, plain, found, location)
    assert insert(encoder, row, budget, seed) == (found, count)


def check_segments(encoder: PatternEncoder, plain: Encoded, found: Encoded, location: int) -> None:
    """One segment stays one, or becomes two where they follow the text; two stay two."""
    end = location + len(found) - len(plain)
    middle = len(encoder.layout.middle)
    if 1 in plain.segments:
        assert found.segments[:location] + found.segments[end:] == plain.segments
        assert set(found.segments[location:end]) == {plain.segments[location]}
    elif location == len(plain) - len(encoder.layout.suffix):
        first = location + middle
        assert found.segments == bytes(first) + b"\1" * (len(found) - first)
    else:
        assert not any(found.segments)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_demonstrations_read_as_the_template_with_the_label_word(kind: str) -> None:
    found, count = insert(encoder_of(kind, "{x} it was {mask}."), {"x": "the film"}, 200)
    assert count == 2
    text = text_of(kind, found.ids)
    sad = [f"{row['x']} it was bad.".replace(" ", "") for row in SUPPORT[::2]]
    happy = [f"{row['x']} it was very good.".replace(" ", "") for row in SUPPORT[1::2]]
    assert any(one in text for one in sad)
    assert any(one in text for one in happy)
    assert min(text.find(one) for one in sad if one in text) < min(
        text.find(one) for one in happy if one in text
    )


def test_demos_say_where_they_go() -> None:
    first = encoder_of("wordpiece", "{demos} {x} it was {mask}.")
    found, _ = insert(first, {"x": "the film"}, 200)
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert text.startswith("[CLS]")
    assert text.endswith("the film it was [MASK] [MASK]. [SEP]")
    last = encoder_of("wordpiece", "{x} it was {mask}.")
    found, _ = insert(last, {"x": "the film"}, 200)
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert text.startswith("[CLS] the film it was [MASK] [MASK]. [SEP]")
    assert found.segments.index(1) == len(last.encode([{"x": "the film"}])[0])


def drawing(gold: list[int], n_labels: int, vectors: Any, fraction: float) -> Demonstrations:
    """Demonstrations to draw from, whose texts make no difference."""
    encoder = encoder_of("wordpiece", "{x} {mask}", words=tuple((w,) for w in WORDS[:n_labels]))
    rows = [{"x": ""} for _ in gold]
    return Demonstrations(encoder, rows, gold, max_tokens=60, vectors=vectors, fraction=fraction)


def nothing(count: int) -> list[Encoded]:
    """Rows that only their number is read of."""
    return [Encoded((), b"", b"")] * count


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 1.0), st.booleans())
def test_draws_are_of_each_label_near_and_never_the_row_itself(
    seed: int, n_labels: int, fraction: float, near: bool
) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(n_labels, size=11).tolist()
    vectors = rng.normal(size=(11, 5)) if near else None
    demonstrations = drawing(gold, n_labels, vectors, fraction)
    rows = Rows(nothing(11), vectors, range(11))
    chosen = demonstrations.draw(rows, seed)
    assert chosen.shape == (11, n_labels)
    for row in range(11):
        for label in range(n_labels):
            others = [n for n in range(11) if gold[n] == label and n != row]
            picked = chosen[row, label]
            if not others:
                assert picked == NO_ROW
                continue
            assert picked in others
            if vectors is not None and fraction < 1:
                n_label = gold.count(label)
                ranked = sorted(others, key=lambda n: -float(vectors[row] @ vectors[n]))
                assert picked in ranked[: max(1, int(np.ceil(fraction * n_label)))]
    assert np.array_equal(chosen, demonstrations.draw(rows, seed))


def test_all_of_the_fraction_are_drawn_sooner_or_later() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    demonstrations = drawing([0, 0, 0, 0], 1, vectors, 0.5)
    query = Rows(nothing(1), np.array([[1.0, 0.0]]))
    drawn = {int(demonstrations.draw(query, seed)[0, 0]) for seed in range(40)}
    assert drawn == {0, 1}
    anywhere = Rows(nothing(1))
    drawn = {int(demonstrations.draw(anywhere, seed)[0, 0]) for seed in range(60)}
    assert drawn == {0, 1, 2, 3}


def test_taken_rows_keep_their_vectors_and_numbers() -> None:
    vectors = np.arange(8.0).reshape(4, 2)
    rows = Rows([Encoded.of([n], Role.TEXT) for n in range(4)], vectors, [3, NO_ROW, 1, 0])
    part = rows.take([2, 0])
    assert [row.ids for row in part.encoded] == [(2,), (0,)]
    assert part.support == [1, 3]
    assert np.array_equal(part.vectors, vectors[[2, 0]])
    assert Rows(rows.encoded).take([1]) == Rows([rows.encoded[1]])


def test_labels_that_do_not_fit_take_turns() -> None:
    words = tuple((word,) for word in ("bad", "good", "great", "nice", "awful", "happy"))
    encoder = encoder_of("wordpiece", "{x} it was {mask}.", words=words)
    rows = [{"x": f"{word} food and so on"} for (word,) in words]
    demonstrations = Demonstrations(encoder, rows, range(6), max_tokens=60)
    plain = Rows(encoder.encode([{"x": "the film"}]))
    seen: set[str] = set()
    for seed in range(30):
        (found,) = demonstrations.insert(plain, seed)
        count, left_out = demonstrations.room(plain, seed)
        assert count + left_out == 6
        assert 1 <= count < 6
        assert len(found) <= 60
        text = BUILT["wordpiece"].decode(list(found.ids))
        order = [n for n, (word,) in enumerate(words) if f"it was {word}." in text]
        assert len(order) == count
        starts = [text.index(f"it was {words[n][0]}.") for n in order]
        assert starts == sorted(starts)
        seen |= {words[n][0] for n in order}
    assert len(seen) == 6
    budget = len(plain.encoded[0]) + 3
    none = Demonstrations(encoder, rows, range(6), max_tokens=budget)
    assert none.insert(plain, 0) == plain.encoded
    assert none.room(plain, 0) == (0, 6)


def test_texts_are_cut_before_words_of_the_template() -> None:
    encoder = encoder_of("wordpiece", "{x} it was {mask}.", words=(("bad",), ("good",)))
    rows = [{"x": "so " * 50}, {"x": "we " * 50}]
    demonstrations = Demonstrations(encoder, rows, [0, 1], max_tokens=60)
    plain = Rows(encoder.encode([{"x": "the film"}]))
    (found,) = demonstrations.insert(plain, 0)
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert demonstrations.room(plain, 0) == (2, 0)
    assert len(found) == 60
    assert "so it was bad. [SEP]" in text
    assert "we it was good. [SEP]" in text
    assert abs(text.count("so ") - text.count("we ")) <= 1
