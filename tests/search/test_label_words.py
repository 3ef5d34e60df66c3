"""Found label words: of every label its own, one token at the mask, better than chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testing import CPU, HAPPY, SAD, sharpened

from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import Pattern, pattern_of
from pet_pipeline.pvp import Pvp
from pet_pipeline.search.label_words import (
    FoundWords,
    find_label_words,
    mask_log_probs,
    neighbours,
)
from pet_pipeline.search.word_search import WordSearch

ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4
SO = pattern_of("p", "{x} so {mask}", ("a", "b"), (("bad",), ("good",)))


def load(folder: Path, pattern: Pattern) -> Pvp:
    return Pvp.load(ModelFolder(folder), pattern, max_tokens=48, decoding="parallel", compute=CPU)


def find(
    folder: Path, template: str = "{x} it was {mask}.", **options: Any
) -> tuple[FoundWords, Pvp]:
    words = (("terrible",), ("very good",))
    pvp = load(folder, pattern_of("p", template, ("sad", "happy"), words))
    sharpened(pvp.lm.model)
    search = WordSearch(**{"method": "assignment", "candidates_per_label": 12, **options})
    return find_label_words(pvp, ROWS, GOLD, search, seed=1), pvp


@pytest.mark.parametrize(
    "options", [{}, {"words_per_label": 3}, {"method": "amulap", "words_per_label": 4}]
)
@pytest.mark.parametrize(
    "template", ["{x} it was {mask}.", "{mask}: {x}", "({mask}) {x}", "{demos} {x} so {mask}"]
)
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_words_are_single_tokens_and_no_word_serves_two_labels(
    mlm_of: Callable[[str], Path], name: str, template: str, options: dict[str, Any]
) -> None:
    found, pvp = find(mlm_of(name), template, **options)
    words = [word for group in found.words for word in group]
    assert len(set(words)) == len(words)
    assert [len(group) for group in found.words] == [options.get("words_per_label", 1)] * 2
    assert all(len(tokens) == 1 for tokens in pvp.encoder.tokens_at_mask(words))
    pattern = pattern_of("p", template, ("sad", "happy"), found.words)
    assert PatternEncoder(pattern, pvp.lm.tokenizer, 48).problems() == []
    assert found.rows == 8
    assert found.exact


def test_searched_words_do_better_on_their_rows_than_those_given(tiny_mlm: Path) -> None:
    found, pvp = find(tiny_mlm)
    assert found.combinations == 144
    assert found.correct >= found.own_correct
    tokens = np.array([pvp.encoder.tokens_at_mask(group)[0][0] for group in found.words])
    scores = mask_log_probs(pvp, ROWS, tokens)
    assert (scores.argmax(1) == np.array(GOLD)).sum() == found.correct


def test_log_probabilities_are_those_of_a_single_mask(tiny_mlm: Path) -> None:
    tokens = np.array([3, 50, 7])
    wanted = mask_log_probs(load(tiny_mlm, SO), ROWS, tokens)
    several = pattern_of("p", "{x} {demos} so {mask}", ("a", "b"), (("bad",), ("very good",)))
    assert mask_log_probs(load(tiny_mlm, several), ROWS, tokens) == pytest.approx(wanted)


def test_neighbours_are_near_in_the_output_embedding(tiny_mlm: Path) -> None:
    lm = MaskedLM.load(ModelFolder(tiny_mlm), CPU)
    encoder = PatternEncoder(SO, lm.tokenizer, 48)
    tokens = np.arange(80, 180)
    near = neighbours(lm, encoder.words, tokens, 5)
    assert near.sum(1).tolist() == [5, 5]
    weight = lm.model.get_output_embeddings().weight
    cosines = torch.nn.functional.cosine_similarity(
        weight[tokens], weight[encoder.words.words[0][0]][None]
    )
    assert set(near[0].nonzero()[0]) == set(cosines.topk(5).indices.tolist())
    found, _ = find(tiny_mlm, neighbours=6, candidates_per_label=6)
    assert found.combinations <= 36


def test_too_few_words_for_the_labels(tiny_mlm: Path) -> None:
    words = (("bad",), ("bad so",), ("so bad",))
    pvp = load(tiny_mlm, pattern_of("p", "{x} so {mask}", ("a", "b", "c"), words))
    search = WordSearch("assignment", neighbours=1, candidates_per_label=1)
    message = r"search.label_words: pattern 'p': .*raise search.candidates_per_label"
    with pytest.raises(UserError, match=message):
        find_label_words(pvp, ROWS[:3] + ROWS[4:], [0, 0, 1, 1, 2, 2, 2], search, seed=1)
