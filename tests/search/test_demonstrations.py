"""Demonstrations: one of each label, near the input, within the budget, the input left whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import TOKENIZERS, WORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pet_pipeline.encoding import Encoded, PatternEncoder
from pet_pipeline.search.demonstrations import NOBODY, Demonstrations, Support
from pet_pipeline.search.templates import pattern_of

BUILT = {kind: make() for kind, make in TOKENIZERS.items()}
LABELS = ("sad", "happy")
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
]


def encoder_of(
    kind: str, template: str, max_tokens: int = 40, words: Any = LABEL_WORDS
) -> PatternEncoder:
    labels = tuple(f"l{n}" for n in range(len(words)))
    return PatternEncoder(pattern_of("p", template, labels, words), BUILT[kind], max_tokens)


def shown(
    encoder: PatternEncoder,
    rows: list[dict[str, str]],
    max_tokens: int,
    seed: int = 0,
    **options: Any,
) -> tuple[list[Encoded], list[Encoded], float]:
    support = Support(GOLD, len(LABELS), **options)
    demonstrations = Demonstrations(encoder, SUPPORT, support, max_tokens)
    plain = encoder.encode(rows)
    found = demonstrations.show(plain, None, seed)
    return plain, found.rows, found.count


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
    encoder = encoder_of(kind, template)
    (plain,), (found,), count = shown(encoder, [{"x": x, "y": y}], budget, seed)
    assert len(found.ids) <= budget
    assert 0 <= count <= 2
    n_masks = encoder.words.n_masks
    mask = encoder.layout.mask
    assert found.ids[found.slot : found.slot + n_masks] == (mask,) * n_masks
    assert found.ids.count(mask) == plain.ids.count(mask)  # demonstrations have no open mask
    if count == 0:
        assert found == plain
        return
    place = plain.demos if plain.demos is not None else len(plain.ids) - len(encoder.layout.suffix)
    added = len(found.ids) - len(plain.ids)
    assert found.ids[:place] + found.ids[place + added :] == plain.ids
    if plain.boundary == len(plain.ids):
        assert found.boundary in (len(found.ids), place + len(encoder.layout.middle))
    elif place >= plain.boundary:
        assert found.boundary == plain.boundary
    else:
        assert found.boundary == plain.boundary + added
    again = shown(encoder, [{"x": x, "y": y}], budget, seed)[1][0]
    assert again == found


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_demonstrations_read_as_the_template_with_the_label_word(kind: str) -> None:
    encoder = encoder_of(kind, "{x} it was {mask}.")
    _, (found,), count = shown(encoder, [{"x": "the film"}], 200)
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
    _, (found,), _ = shown(first, [{"x": "the film"}], 200)
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert text.startswith("[CLS]")
    assert text.endswith("the film it was [MASK] [MASK]. [SEP]")
    last = encoder_of("wordpiece", "{x} it was {mask}.")
    _, (found,), _ = shown(last, [{"x": "the film"}], 200)
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert text.startswith("[CLS] the film it was [MASK] [MASK]. [SEP]")
    assert found.boundary == len(last.encode([{"x": "the film"}])[0].ids)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 1.0), st.booleans())
def test_draws_are_of_each_label_near_and_never_the_row_itself(
    seed: int, n_labels: int, share: float, near: bool
) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(n_labels, size=11).tolist()
    vectors = rng.normal(size=(11, 5)) if near else None
    support = Support(gold, n_labels, vectors, share)
    own = list(range(11))
    chosen = support.draw(vectors, 11, seed, own)
    assert chosen.shape == (11, n_labels)
    for row in range(11):
        for label in range(n_labels):
            others = [n for n in range(11) if gold[n] == label and n != row]
            picked = chosen[row, label]
            if not others:
                assert picked == NOBODY
                continue
            assert picked in others
            if vectors is not None and share < 1:
                n_label = gold.count(label)
                ranked = sorted(others, key=lambda n: -float(vectors[row] @ vectors[n]))
                assert picked in ranked[: max(1, int(np.ceil(share * n_label)))]
    assert np.array_equal(chosen, support.draw(vectors, 11, seed, own))


def test_all_of_the_share_are_drawn_sooner_or_later() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    support = Support([0, 0, 0, 0], 1, vectors, 0.5)
    query = np.array([[1.0, 0.0]])
    drawn = {int(support.draw(query, 1, seed)[0, 0]) for seed in range(40)}
    assert drawn == {0, 1}
    anywhere = {int(support.draw(None, 1, seed)[0, 0]) for seed in range(60)}
    assert anywhere == {0, 1, 2, 3}


def test_labels_that_do_not_fit_take_turns() -> None:
    words = tuple((word,) for word in ("bad", "good", "great", "nice", "awful", "happy"))
    encoder = encoder_of("wordpiece", "{x} it was {mask}.", words=words)
    rows = [{"x": f"{word} food and so on"} for (word,) in words]
    demonstrations = Demonstrations(encoder, rows, Support(range(6), 6), 60)
    plain = encoder.encode([{"x": "the film"}])
    seen: set[str] = set()
    for seed in range(30):
        shown_once = demonstrations.show(plain, None, seed)
        (found,), count = shown_once.rows, shown_once.count
        assert count + shown_once.left_out == 6
        assert 1 <= count < 6
        assert len(found.ids) <= 60
        text = BUILT["wordpiece"].decode(list(found.ids))
        order = [n for n, (word,) in enumerate(words) if f"it was {word}." in text]
        places = [text.index(f"it was {words[n][0]}.") for n in order]
        assert places == sorted(places)
        seen |= {words[n][0] for n in order}
    assert len(seen) == 6
    budget = len(plain[0].ids) + 3
    none = Demonstrations(encoder, rows, Support(range(6), 6), budget).show(plain, None, 0)
    assert (none.rows, none.count, none.left_out) == (plain, 0, 6)


def test_texts_are_cut_before_words_of_the_template() -> None:
    encoder = encoder_of("wordpiece", "{x} it was {mask}.", words=(("bad",), ("good",)))
    rows = [{"x": "so " * 50}, {"x": "we " * 50}]
    demonstrations = Demonstrations(encoder, rows, Support([0, 1], 2), 60)
    once = demonstrations.show(encoder.encode([{"x": "the film"}]), None, 0)
    (found,), count = once.rows, once.count
    text = BUILT["wordpiece"].decode(list(found.ids))
    assert count == 2
    assert len(found.ids) == 60
    assert "so it was bad. [SEP]" in text
    assert "we it was good. [SEP]" in text
    assert abs(text.count("so ") - text.count("we ")) <= 1
