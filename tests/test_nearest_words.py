"""The words that a soft prompt is nearest to, at the input and in front of the first layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from testing import CPU

from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.nearest_words import nearest_words
from pet_pipeline.prompt_start import start_states
from pet_pipeline.soft_prompt import SoftPrompt
from pet_pipeline.soft_tokens import NearWord

WORDS = ["good", "bad", "day"]


@pytest.fixture
def lm(tiny_mlm: Path) -> MaskedLM:
    """A model with random weights."""
    return MaskedLM.load(ModelFolder(tiny_mlm), CPU)


@pytest.fixture
def ids(lm: MaskedLM) -> list[int]:
    """The tokens of the words."""
    return list(lm.tokenizer.convert_tokens_to_ids(WORDS))


def test_a_token_at_the_input_is_nearest_to_the_word_it_is(lm: MaskedLM, ids: list[int]) -> None:
    vectors = 3 * lm.model.get_input_embeddings().weight.detach()[ids]  # a length has no cosine
    found = nearest_words(lm, SoftPrompt(vectors), count=2)
    assert [near[0] for near in found] == [NearWord(word, 1.0) for word in WORDS]
    assert all(len(near) == 2 and near[1].cosine < 1 for near in found)


def test_a_deep_prompt_is_compared_in_front_of_the_first_layer(
    lm: MaskedLM, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.nearest_words.AT_ONCE", 7)
    states = torch.cat([start_states(lm, [word]) for word in ids], dim=1)  # each at position 1
    positions = lm.model.bert.embeddings.position_embeddings.weight
    with torch.no_grad():
        positions[0] = positions[1]  # where the words are read alone
    found = nearest_words(lm, SoftPrompt(None, states))
    assert [near[0].word for near in found] == WORDS
    assert all(near[0].cosine == pytest.approx(1, abs=1e-3) for near in found)
    assert not lm.model.base_model.encoder.layer[0]._forward_pre_hooks


def test_no_more_words_than_there_are_and_no_special_ones(lm: MaskedLM, ids: list[int]) -> None:
    vectors = lm.model.get_input_embeddings().weight.detach()[ids[:1]]
    (found,) = nearest_words(lm, SoftPrompt(vectors), count=10**6)
    assert len(found) == len(lm.tokenizer) - len(set(lm.tokenizer.all_special_ids))
    assert not {near.word for near in found} & set(lm.tokenizer.all_special_tokens)
