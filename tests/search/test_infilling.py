"""The beam search writes what an exhaustive search would, for every kind of tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import CPU, sharpened

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import Field, parse_template, pattern_of
from pet_pipeline.search.infilling import (
    Allowed,
    Gap,
    Shape,
    allowed_tokens,
    fill_gaps,
    gaps_of,
    infill_templates,
)
from pet_pipeline.search.templates import LabelledTexts, locations
from pet_pipeline.search.vocabulary import Vocabulary

ROWS = [{"x": "the food was so", "y": "we come again"}, {"x": "film", "y": "It is my team and all"}]
WORDS = (("bad",), ("very good",))  # one of a token, one of several
TEXTS = LabelledTexts(ROWS, [0, 1], ["x", "y"], WORDS)


def load(folder: Path) -> MaskedLM:
    return MaskedLM.load(ModelFolder(folder), replace(CPU, batch_tokens=60))


def small(allowed: Allowed, size: int) -> Allowed:
    """Only some of the allowed tokens, with some of every kind."""
    rng = np.random.default_rng(0)
    kinds = [allowed.first & ~allowed.attached, allowed.inside & ~allowed.first, allowed.attached]
    picked = [rng.permutation(np.flatnonzero(kind))[:size] for kind in kinds]
    rows = np.unique(np.concatenate(picked))
    return Allowed(
        *(part[rows] for part in (allowed.tokens, allowed.first, allowed.inside, allowed.attached))
    )


def slow_score(lm: MaskedLM, gaps: list[Gap], tokens: tuple[int, ...], n_left: int) -> float:
    """The mean log-probability of tokens written one after the other, a row and a token at a time."""
    total = 0.0
    for gap in gaps:
        start = gap.row.slot.start
        segments = list(gap.row.segments)
        for target, token in enumerate(tokens):
            so_far = [*tokens[:target], *[lm.layout.mask] * (len(tokens) - target)]
            inner = [*so_far[:n_left], *gap.word, *so_far[n_left:]]
            ids = [*gap.row.ids[:start], *inner, *gap.row.ids[start + 1 :]]
            at = start + target + (len(gap.word) if target >= n_left else 0)
            widened = [*segments[:start], *[segments[start]] * len(inner), *segments[start + 1 :]]
            inputs = {"input_ids": torch.tensor([ids])}
            if lm.layout.padding.has_types:
                types = torch.tensor([widened]) * lm.layout.padding.second_type
                inputs["token_type_ids"] = types
            with torch.inference_mode():
                log_probs = lm.model(**inputs).logits[0, at].log_softmax(-1)
            total += float(log_probs[token])
    return total / len(gaps) / len(tokens)


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "albert"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wide_beam_finds_the_best_of_all_sequences(
    mlm_of: Callable[[str], Path], name: str, number: int
) -> None:
    lm = load(mlm_of(name))
    sharpened(lm.model)
    allowed = small(allowed_tokens(Vocabulary(lm.tokenizer), WORDS), 2)
    location = locations(["x", "y"])[number]
    gaps = gaps_of(location, TEXTS, lm, 64)
    shape = Shape(2, 1, location.begins)
    found = fill_gaps(lm, gaps, shape, allowed, beam=1000)
    expected = {}
    for chosen in itertools.product(range(len(allowed.tokens)), repeat=3):
        if all(allowed.at(t, shape, chosen[:t])[chosen[t]] for t in range(3)):
            tokens = tuple(allowed.tokens[list(chosen)].tolist())
            expected[tokens] = slow_score(lm, gaps, tokens, 2)
    assert len(expected) > 8
    assert {tuple(tokens) for tokens, _ in found} == set(expected)
    for ids, score in found:
        assert score == pytest.approx(expected[tuple(ids)], abs=1e-4)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    narrow = fill_gaps(lm, gaps, shape, allowed, beam=2)
    assert len(narrow) == 2


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_opened_row_has_its_word_in_the_slot(tiny_mlm: Path, number: int) -> None:
    lm = load(tiny_mlm)
    for gap in gaps_of(locations(["x", "y"])[number], TEXTS, lm, 64):
        gap = replace(gap, word=(31, 32, 33))
        row = gap.opened([21, lm.layout.mask], [22])
        assert row.ids[row.slot] == (31, 32, 33)
        assert [row.ids[gap.position(n, 2)] for n in range(3)] == [21, lm.layout.mask, 22]
        assert [row.roles[gap.position(n, 2)] for n in range(3)] == [Role.TEMPLATE] * 3
        inner = slice(row.slot.start - 2, row.slot.stop + 1)
        assert set(row.segments[inner]) == {gap.row.segments[gap.row.slot.start]}
        plain = row.splice(
            inner, Encoded.of(gap.row.ids[gap.row.slot], Role.MASK, row.segments[inner.start])
        )
        assert plain == gap.row


def test_no_word_twice_and_no_mark_after_a_mark() -> None:
    kinds = np.array([[True, True, False], [True, True, False], [False, False, True]]).T
    allowed = Allowed(np.array([7, 8, 9]), *kinds)  # two words, and a mark at the end of a word
    shape = Shape(2, 1)

    def at(target: int, so_far: Sequence[int]) -> list[bool]:
        found: list[bool] = allowed.at(target, shape, so_far).tolist()
        return found

    assert allowed.at(0, Shape(2, 1, begins=True), []).tolist() == [True, True, False]
    assert at(0, []) == [True, True, True]
    assert at(1, [0]) == [False, True, True]
    assert at(1, [2]) == [True, True, False]
    assert at(2, [0, 2]) == [True, True, True]  # after the slot
    assert allowed.inside.tolist() == [True, True, False]  # not changed


def test_nothing_is_written_where_nothing_is_allowed(tiny_mlm: Path) -> None:
    lm = load(tiny_mlm)
    allowed = allowed_tokens(Vocabulary(lm.tokenizer), WORDS)
    nothing = np.zeros_like(allowed.first)
    gaps = gaps_of(locations(["x", "y"])[0], TEXTS, lm, 64)
    barred = Allowed(allowed.tokens, nothing, nothing, nothing)
    assert fill_gaps(lm, gaps, Shape(2, 1), barred, beam=3) == []


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_templates_are_tokenised_as_they_were_written(
    mlm_of: Callable[[str], Path], name: str
) -> None:
    lm = load(mlm_of(name))
    found = infill_templates(lm, TEXTS, beam=4, max_tokens=64)
    assert len(found) == 3
    vocabulary = Vocabulary(lm.tokenizer)
    for location, group in zip(locations(["x", "y"]), found, strict=True):
        assert len(group) > 10
        gaps = gaps_of(location, TEXTS, lm, 64)
        for candidate in group[:20]:
            parts = parse_template(candidate.template)
            own = " ".join(p for p in parts if isinstance(p, str)).lower().split()
            assert "bad" not in own
            assert not any(own[n : n + 2] == ["very", "good"] for n in range(len(own)))
            assert candidate.score < 0
            pattern = pattern_of("", candidate.template, ("a", "b"), WORDS)
            assert not [
                p for p in parts if isinstance(p, Field) and p.name not in ("x", "y", "mask", "sep")
            ]
            row = PatternEncoder(pattern, lm.tokenizer, 64).encode(ROWS)[0]
            for side in own_tokens(row, gaps[0]):
                # SentencePiece puts a piece without text before a mark that follows the mask.
                assert 1 <= len([n for n in side if vocabulary.texts[n]]) <= 3


def own_tokens(row: Encoded, gap: Gap) -> tuple[list[int], list[int]]:
    """The tokens between a row's own and the mask, on both sides."""
    slot = gap.row.slot
    n_before, n_after = slot.start, len(gap.row) - slot.stop
    assert row.ids[:n_before] == gap.row.ids[:n_before]
    assert row.ids[len(row) - n_after :] == gap.row.ids[slot.stop :]
    return list(row.ids[n_before : row.slot.start]), list(
        row.ids[row.slot.stop : len(row) - n_after]
    )
