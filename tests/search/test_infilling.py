"""The beam search writes what an exhaustive search would, for every kind of tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sharpened

from pet_pipeline.config import Machine
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.patterns import Field, parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.search.infilling import (
    Allowed,
    allowed_tokens,
    fill_gaps,
    gaps_of,
    infill_templates,
    spell,
)
from pet_pipeline.search.templates import Place, pattern_of, places
from pet_pipeline.search.vocabulary import Vocabulary

ROWS = [{"x": "the food was so", "y": "we come again"}, {"x": "film", "y": "It is my team and all"}]
GOLD = [0, 1]
WORDS = (("bad",), ("very good",))  # one of a token, one of several
MACHINE = Machine(device="cpu", precision="float32", threads=1, batch_tokens=60)


def small(allowed: Allowed, size: int) -> Allowed:
    """Only some of the allowed tokens, with some of every kind."""
    rng = np.random.default_rng(0)
    kinds = [allowed.first & ~allowed.attached, allowed.inside & ~allowed.first, allowed.attached]
    picked = [rng.permutation(np.flatnonzero(kind))[:size] for kind in kinds]
    rows = np.unique(np.concatenate(picked))
    return Allowed(
        *(part[rows] for part in (allowed.tokens, allowed.first, allowed.inside, allowed.attached))
    )


def slow_score(model: Any, layout: Any, gaps: Any, tokens: tuple[int, ...], n_left: int) -> float:
    """The mean log-probability of tokens written one after the other, a row and a token at a time."""
    total = 0.0
    for gap in gaps:
        for target, token in enumerate(tokens):
            so_far = [*tokens[:target], *[layout.mask] * (len(tokens) - target)]
            ids = [*gap.row.ids[: gap.row.slot], *so_far[:n_left], *gap.word, *so_far[n_left:]]
            ids += gap.row.ids[gap.row.slot + 1 :]
            at = gap.row.slot + target + (len(gap.word) if target >= n_left else 0)
            boundary = gap.row.boundary
            if boundary > gap.row.slot:
                boundary += len(ids) - len(gap.row.ids)
            types = [0 if n < boundary else layout.second_type for n in range(len(ids))]
            inputs = {"input_ids": torch.tensor([ids])}
            if layout.has_types:
                inputs["token_type_ids"] = torch.tensor([types])
            with torch.inference_mode():
                log_probs = model(**inputs).logits[0, at].log_softmax(-1)
            total += float(log_probs[token])
    return total / len(gaps) / len(tokens)


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "albert"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wide_beam_finds_the_best_of_all_sequences(
    mlm_of: Callable[[str], Path], name: str, number: int
) -> None:
    model, tokenizer = sharpened(load_mlm(mlm_of(name))), load_tokenizer(mlm_of(name))
    vocabulary = Vocabulary(tokenizer)
    allowed = small(allowed_tokens(vocabulary, WORDS), 2)
    place = places(["x", "y"])[number]
    gaps, layout = gaps_of(place, tokenizer, ROWS, GOLD, WORDS, 64)
    begins = not place.before
    found = fill_gaps(model, gaps, layout, 2, 1, allowed, begins, beam=1000, machine=MACHINE)
    expected = {}
    for chosen in itertools.product(range(len(allowed.tokens)), repeat=3):
        if all(allowed.at(t, 2, chosen[:t], begins)[chosen[t]] for t in range(3)):
            tokens = tuple(allowed.tokens[list(chosen)].tolist())
            expected[tokens] = slow_score(model, layout, gaps, tokens, 2)
    assert len(expected) > 8
    assert {tuple(tokens) for tokens, _ in found} == set(expected)
    for tokens, score in found:
        assert score == pytest.approx(expected[tuple(tokens)], abs=1e-4)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    narrow = fill_gaps(model, gaps, layout, 2, 1, allowed, begins, beam=2, machine=MACHINE)
    assert len(narrow) == 2


def test_no_word_twice_and_no_mark_behind_a_mark() -> None:
    kinds = np.array([[True, True, False], [True, True, False], [False, False, True]]).T
    allowed = Allowed(np.array([7, 8, 9]), *kinds)  # two words, and a mark at the end of a word
    assert allowed.at(0, 2, [], begins=True).tolist() == [True, True, False]
    assert allowed.at(0, 2, [], begins=False).tolist() == [True, True, True]
    assert allowed.at(1, 2, [0], begins=False).tolist() == [False, True, True]
    assert allowed.at(1, 2, [2], begins=False).tolist() == [True, True, False]
    assert allowed.at(2, 2, [0, 2], begins=False).tolist() == [True, True, True]  # behind the slot
    assert allowed.inside.tolist() == [True, True, False]  # not changed


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_templates_are_tokenised_as_they_were_written(
    mlm_of: Callable[[str], Path], name: str
) -> None:
    model, tokenizer = load_mlm(mlm_of(name)), load_tokenizer(mlm_of(name))
    found = infill_templates(
        model, tokenizer, ROWS, GOLD, ["x", "y"], WORDS, beam=4, max_tokens=64, machine=MACHINE
    )
    assert len(found) == 3
    vocabulary = Vocabulary(tokenizer)
    for place, group in zip(places(["x", "y"]), found, strict=True):
        assert len(group) > 10
        gaps, _ = gaps_of(place, tokenizer, ROWS, GOLD, WORDS, 64)
        for candidate in group[:20]:
            parts = parse_template(candidate.template)
            own = " ".join(p for p in parts if isinstance(p, str)).lower().split()
            assert "bad" not in own
            assert not any(own[n : n + 2] == ["very", "good"] for n in range(len(own)))
            assert candidate.score < 0
            encoder = PatternEncoder(
                pattern_of("", candidate.template, ("a", "b"), WORDS), tokenizer, 64
            )
            assert not [
                p for p in parts if isinstance(p, Field) and p.name not in ("x", "y", "mask", "sep")
            ]
            row = encoder.encode(ROWS)[0]
            for side in own_tokens(row, gaps[0], encoder):
                # SentencePiece puts a piece without text before a mark that follows the mask.
                assert 1 <= len([n for n in side if vocabulary.texts[n]]) <= 3


def own_tokens(row: Any, gap: Any, encoder: PatternEncoder) -> tuple[list[int], list[int]]:
    """The tokens between a row's own and the mask, on both sides."""
    before = len(gap.row.ids[: gap.row.slot])
    behind = len(gap.row.ids[gap.row.slot + 1 :])
    assert row.ids[:before] == gap.row.ids[: gap.row.slot]
    assert row.ids[len(row.ids) - behind :] == gap.row.ids[gap.row.slot + 1 :]
    end = row.slot + encoder.words.n_masks
    return list(row.ids[before : row.slot]), list(row.ids[end : len(row.ids) - behind])


def test_spelling(tiny_mlm: Path) -> None:
    tokenizer = load_tokenizer(tiny_mlm)
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer("the film, so good.", add_special_tokens=False)["input_ids"]
    assert spell(vocabulary, ids) == "the film, so good."
    assert Place("{x}", "").template(spell(vocabulary, ids[2:3]), "") == "{x}, {mask}"
