"""Found label words: of every label its own, one token at the mask, better than chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HAPPY, SAD, sharpened
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.config import Machine, Search
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.search.label_words import (
    FoundWords,
    add_words,
    candidate_words,
    find_label_words,
    likeliest_words,
    mask_log_probs,
    neighbours,
)
from pet_pipeline.search.templates import pattern_of

MACHINE = Machine(device="cpu", precision="float32", threads=1)
ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4


def find(
    folder: Path, template: str = "{x} it was {mask}.", **options: Any
) -> tuple[FoundWords, PatternEncoder]:
    model, tokenizer = sharpened(load_mlm(folder)), load_tokenizer(folder)
    pattern = pattern_of("p", template, ("sad", "happy"), (("terrible",), ("very good",)))
    encoder = PatternEncoder(pattern, tokenizer, 48)
    settings = Search(**{"label_words": "assignment", "likely": 12, **options})
    return find_label_words(model, encoder, ROWS, GOLD, settings, seed=1, machine=MACHINE), encoder


@pytest.mark.parametrize(
    "options", [{}, {"words_per_label": 3}, {"label_words": "amulap", "words_per_label": 4}]
)
@pytest.mark.parametrize("template", ["{x} it was {mask}.", "{mask}: {x}", "({mask}) {x}"])
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_words_are_single_tokens_and_no_word_serves_two_labels(
    mlm_of: Callable[[str], Path], name: str, template: str, options: dict[str, Any]
) -> None:
    found, encoder = find(mlm_of(name), template, **options)
    words = [word for group in found.words for word in group]
    assert len(set(words)) == len(words)
    assert [len(group) for group in found.words] == [options.get("words_per_label", 1)] * 2
    assert all(len(tokens) == 1 for tokens in encoder.spell(words))
    pattern = pattern_of("p", template, ("sad", "happy"), found.words)
    assert PatternEncoder(pattern, encoder.tokenizer, 48).problems() == []
    assert found.rows == 8
    assert found.exact


def test_searched_words_do_better_on_their_rows_than_those_given(tiny_mlm: Path) -> None:
    found, encoder = find(tiny_mlm)
    assert found.combinations == 144
    assert found.correct >= found.own_correct
    model = sharpened(load_mlm(tiny_mlm))
    tokens = np.array([encoder.spell(group)[0][0] for group in found.words])
    rows = [row.with_masks(2, 1, encoder.layout.mask) for row in encoder.encode(ROWS)]
    scores = mask_log_probs(model, rows, encoder.layout, tokens, MACHINE)
    assert (scores.argmax(1) == np.array(GOLD)).sum() == found.correct


def test_log_probabilities_are_the_models(tiny_mlm: Path) -> None:
    model = load_mlm(tiny_mlm)
    encoder = PatternEncoder(
        pattern_of("p", "{x} so {mask}", ("a", "b"), (("bad",), ("good",))),
        load_tokenizer(tiny_mlm),
        48,
    )
    rows = encoder.encode(ROWS[:2])
    found = mask_log_probs(model, rows, encoder.layout, np.array([3, 50, 7]), MACHINE)
    for row, values in zip(rows, found, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.slot]
        assert values == pytest.approx(logits.log_softmax(-1)[[3, 50, 7]].numpy(), abs=1e-5)


LOG_PROBS = np.log(
    np.array(
        [  # words: 0 and 3 of the first label, 1 of the second, 2 of both
            [0.30, 0.05, 0.40, 0.20, 0.05],
            [0.30, 0.05, 0.40, 0.20, 0.05],
            [0.05, 0.30, 0.45, 0.15, 0.05],
            [0.05, 0.30, 0.45, 0.15, 0.05],
        ]
    )
)
ALL = np.ones((2, 5), bool)


def test_candidates_are_what_a_labels_rows_say_more_than_the_others() -> None:
    assert candidate_words(LOG_PROBS, [0, 0, 1, 1], ALL, 2) == [[0, 3], [1, 2]]
    barred = ALL.copy()
    barred[0, 0] = barred[1, 1] = False
    assert candidate_words(LOG_PROBS, [0, 0, 1, 1], barred, 1) == [[3], [2]]
    with pytest.raises(ValueError, match="label 1 has no candidate word"):
        candidate_words(LOG_PROBS, [0, 0, 1, 1], ALL * np.array([[True], [False]]), 1)


def test_amulap_gives_a_word_to_the_label_that_finds_it_likeliest() -> None:
    assert likeliest_words(LOG_PROBS, [0, 0, 1, 1], ALL, 3) == [(0, 3, 4), (2, 1)]
    assert likeliest_words(LOG_PROBS, [0, 0, 1, 1], ALL, 1) == [(0,), (2,)]
    with pytest.raises(ValueError, match="label 1 has no candidate word"):
        likeliest_words(LOG_PROBS, [0, 0, 0, 0], ALL, 1)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_added_words_are_new_and_come_from_their_labels_candidates(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.ones(9), 12))
    candidates = [[0, 1, 2, 3], [2, 3, 4, 5], [6]]
    gold = rng.integers(3, size=12).tolist()
    groups = add_words(log_probs, gold, candidates, [(0,), (4,), (6,)], count)
    words = [word for group in groups for word in group]
    assert len(set(words)) == len(words)
    assert [group[0] for group in groups] == [0, 4, 6]
    for group, own in zip(groups, candidates, strict=True):
        assert set(group) <= set(own)
    assert len(groups[0]) == min(count, 4) or len(words) >= min(count, 3) + 2
    assert groups[2] == (6,)


def test_neighbours_are_near_in_the_output_embedding(tiny_mlm: Path) -> None:
    model, tokenizer = load_mlm(tiny_mlm), load_tokenizer(tiny_mlm)
    encoder = PatternEncoder(
        pattern_of("p", "{x} so {mask}", ("a", "b"), (("bad",), ("good",))), tokenizer, 48
    )
    tokens = np.arange(80, 180)
    near = neighbours(model, encoder.words, tokens, 5)
    assert near.sum(1).tolist() == [5, 5]
    weight = model.get_output_embeddings().weight
    cosines = torch.nn.functional.cosine_similarity(
        weight[tokens], weight[encoder.words.words[0][0]][None]
    )
    assert set(near[0].nonzero()[0]) == set(cosines.topk(5).indices.tolist())
    found, _ = find(tiny_mlm, neighbours=6, likely=6)
    assert found.combinations <= 36


def test_too_few_words_for_the_labels(tiny_mlm: Path) -> None:
    model, tokenizer = load_mlm(tiny_mlm), load_tokenizer(tiny_mlm)
    pattern = pattern_of(
        "p", "{x} so {mask}", ("a", "b", "c"), (("bad",), ("bad so",), ("so bad",))
    )
    encoder = PatternEncoder(pattern, tokenizer, 48)
    settings = Search(label_words="assignment", neighbours=1, likely=1)
    with pytest.raises(UserError, match=r"search.label_words: pattern 'p': .*raise search.likely"):
        find_label_words(
            model,
            encoder,
            ROWS[:3] + ROWS[4:],
            [0, 0, 1, 1, 2, 2, 2],
            settings,
            seed=1,
            machine=MACHINE,
        )
