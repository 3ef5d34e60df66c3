"""Trainable prompts in a model: where their vectors go, and that nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from testing import random_mlm, sharpened
from torch import Tensor

from pet_pipeline.soft_prompt import (
    PrefixEncoder,
    PromptEncoder,
    SoftPrompt,
    encoder_layers,
    layer_inputs,
)

ENCODERS = (
    "bert", "roberta", "albert", "distilbert", "electra", "deberta-v2", "modernbert", "mpnet",
)  # fmt: skip
VOCABULARY = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LENGTHS, SOFT = (11, 7), 3  # of two rows; their soft tokens come after the first token


def a_model(name: str) -> Any:
    special = {"cls_token_id": 1, "sep_token_id": 2} if name == "modernbert" else {}
    return sharpened(random_mlm(name, **VOCABULARY, **special))


def inputs(soft: int = SOFT) -> dict[str, Tensor]:
    """Two rows of different lengths, with soft tokens after their first token."""
    torch.manual_seed(1)
    ids = torch.randint(5, 90, (2, max(LENGTHS)))
    attention = torch.ones_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, length:] = 0
        attention[row, length:] = 0
    numbers = -1 - torch.arange(soft).expand(2, -1)
    return {
        "input_ids": torch.cat([ids[:, :1], numbers, ids[:, 1:]], 1),
        "attention_mask": torch.cat([attention[:, :1], torch.ones_like(numbers), attention[:, 1:]], 1),
    }  # fmt: skip


def vectors(*shape: int) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(shape)


def width_of(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[1])


@torch.no_grad()
def logits(model: Any, **options: Tensor) -> Tensor:
    found: Tensor = model(**{**inputs(), **options}).logits
    return found


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_are_those_whose_inputs_transformers_returns(name: str) -> None:
    model, read = a_model(name), inputs(soft=0)
    with torch.no_grad():
        states = model.base_model(**read, output_hidden_states=True).hidden_states
    torch.testing.assert_close(layer_inputs(model, read), torch.stack(states[:-1]))
    assert len(encoder_layers(model)) == (1 if name == "albert" else 2)
    assert not any(layer._forward_pre_hooks for layer in encoder_layers(model))


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_are_in_front_of_every_layer_at_the_soft_tokens_only(name: str) -> None:
    model, deep = a_model(name), vectors(2, SOFT, 32)
    read = inputs()
    plain = {**read, "input_ids": read["input_ids"].where(read["input_ids"] >= 0, 5)}
    without = layer_inputs(model, plain)
    SoftPrompt(None, deep).attach(model)
    states = layer_inputs(model, read)
    for row in range(2):
        assert torch.equal(states[:, row, 1 : 1 + SOFT], deep)
    assert torch.equal(states[0, :, 1 + SOFT :], without[0, :, 1 + SOFT :])
    assert not torch.allclose(states[1, :, 1 + SOFT :], without[1, :, 1 + SOFT :])


@pytest.mark.parametrize("name", ENCODERS)
def test_added_vectors_are_added_at_the_soft_tokens_only(name: str) -> None:
    model, deep = a_model(name), vectors(2, SOFT, 32)
    tokens, read = vectors(SOFT, width_of(model)), inputs()
    shallow, both = copy.deepcopy(model), copy.deepcopy(model)
    SoftPrompt(tokens).attach(shallow)
    SoftPrompt(tokens, deep, added=True).attach(both)
    change = layer_inputs(both, read)[0] - layer_inputs(shallow, read)[0]
    expected = torch.zeros_like(change)
    expected[:, 1 : 1 + SOFT] = deep[0]
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits(both), logits(shallow))
    assert torch.equal(SoftPrompt(tokens, deep * 0, added=True).layer_vectors(), deep * 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_of_words_at_the_input_are_those_words(name: str) -> None:
    model, words = a_model(name), torch.tensor([40, 7, 61])
    ids = inputs()["input_ids"]
    spelled = torch.where(ids < 0, words[(-1 - ids).clamp(min=0)], ids)
    expected = logits(model, input_ids=spelled)
    prompt = SoftPrompt(model.get_input_embeddings().weight.detach()[words])
    prompt.attach(model)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model, input_ids=spelled), expected)  # without soft tokens
    prompt.detach(model)
    assert torch.equal(logits(model, input_ids=spelled), expected)


def test_soft_tokens_may_be_anywhere_and_again() -> None:
    model, tokens = a_model("bert"), vectors(SOFT, 32)
    embedded: list[Tensor] = []
    SoftPrompt(tokens).attach(model)
    model.get_input_embeddings().register_forward_hook(lambda *all_: embedded.append(all_[2]))
    ids = torch.tensor([[1, -3, 9, -1, -3], [1, 9, -2, 0, 0]])
    logits(model, input_ids=ids, attention_mask=(ids != 0).long())
    for row, column in (ids < 0).nonzero().tolist():
        assert torch.equal(embedded[0][row, column], tokens[-1 - ids[row, column]])
    words = model.get_input_embeddings().weight
    assert torch.equal(embedded[0][ids >= 0], words[ids[ids >= 0]])


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_detached_leaves_no_trace(name: str, deep: bool) -> None:
    model = a_model(name)
    names = {key for key, _ in model.named_parameters()}
    prompt = SoftPrompt(vectors(SOFT, width_of(model)), vectors(2, SOFT, 32) if deep else None)
    prompt.attach(model)
    assert {key for key, _ in model.named_parameters()} > names
    first = logits(model)
    prompt.detach(model)
    assert {key for key, _ in model.named_parameters()} == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    prompt.attach(model)
    assert torch.equal(logits(model), first)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's
def test_a_prompt_in_front_of_the_layers_is_a_prefix_of_keys_and_values() -> None:
    model, deep = a_model("bert"), vectors(2, SOFT, 32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()  # they are zeros, where a lost one would not show
    plain, other = copy.deepcopy(model), copy.deepcopy(model)
    SoftPrompt(None, deep).attach(model)
    # peft has its prefix before all else and moves the positions of the others by its length.
    total = inputs()["input_ids"].shape[1]
    positions = torch.tensor([SOFT, *range(SOFT), *range(SOFT + 1, total)]).expand(2, -1)
    found = logits(model, position_ids=positions)

    config = PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=SOFT)
    prefixed = get_peft_model(other, config).eval()
    pairs = []  # keys and values (tokens, hidden size) of each layer
    for layer, prompt in zip(encoder_layers(other), deep, strict=True):
        pairs += [layer.attention.self.key(prompt), layer.attention.self.value(prompt)]
    weight = prefixed.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(torch.cat(pairs, 1))
        expected = prefixed(**inputs(soft=0)).logits
        unchanged = plain(**inputs(soft=0)).logits
    real = [0, *range(1 + SOFT, total)]  # positions that are not soft
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(
            found[row, real][:length], expected[row, :length], atol=1e-3, rtol=1e-4
        )
        assert (expected - unchanged)[row, :length].abs().max() > 0.1
    assert 2 * deep.numel() == weight.numel()


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
@pytest.mark.parametrize("width", [1, 7, 16])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_prompt_encoder_keeps_the_shape(kind: str, width: int, count: int) -> None:
    tokens = vectors(count, width)
    assert PromptEncoder(width, kind)(tokens).shape == tokens.shape


def test_tokens_depend_on_one_another_only_by_the_lstm() -> None:
    tokens = vectors(4, 8)
    changed = torch.cat([tokens[:3], tokens[3:] + 1])
    for kind, together in (("lstm", True), ("mlp", False)):
        encoder = PromptEncoder(8, kind)
        assert torch.equal(encoder(tokens)[0], encoder(changed)[0]) != together


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_prefix_encoder_starts_at_what_it_is_given(count: int) -> None:
    torch.manual_seed(0)
    start = vectors(3, count, 8)
    encoder = PrefixEncoder(3, count, 8)
    assert torch.equal(encoder(start), start)
    with torch.no_grad():
        encoder.layers[-1].weight.normal_()
    moved = encoder(start) - start
    assert moved.shape == start.shape
    assert count == 0 or moved.abs().min() > 0


@pytest.mark.parametrize("deep", [False, True])
def test_folding_keeps_what_the_encoder_makes(deep: bool) -> None:
    torch.manual_seed(0)
    prompt = SoftPrompt(None, vectors(2, SOFT, 8)) if deep else SoftPrompt(vectors(SOFT, 8))
    read = prompt.layer_vectors if deep else prompt.input_vectors
    prompt.encoder = PrefixEncoder(2, SOFT, 8) if deep else PromptEncoder(8, "lstm")
    with torch.no_grad():
        for parameter in prompt.encoder.parameters():
            parameter.normal_()
    expected = read().detach()
    for _ in range(2):
        prompt.fold()
        torch.testing.assert_close(read().detach(), expected)
        names = [name for name, _ in prompt.named_parameters()]
        assert names == (["layers"] if deep else ["tokens"])


@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_reach_vectors_under_bfloat16(name: str) -> None:
    model = a_model(name)
    prompt = SoftPrompt(vectors(SOFT, width_of(model)), vectors(2, SOFT, 32), added=True)
    prompt.attach(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(**inputs()).logits.float().square().mean().backward()
    for parameter in prompt.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert all(gradient.abs().max() > 0 for gradient in parameter.grad.flatten(0, -2))
