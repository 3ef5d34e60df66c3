"""What a soft prompt starts at: words of the vocabulary, label words, another prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.optimisation import Prompt
from pet_pipeline.parts import read_part
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_prompt import PrefixEncoder, PromptEncoder, SoftPrompt, layer_inputs


def new_prompt(
    lm: MaskedLM, name: str, prompt: Prompt, encoder: PatternEncoder, seed: int
) -> SoftPrompt:
    """The prompt of a method at its start; raises `UserError` if a model cannot have it."""
    kinds = vectors_of(name, prompt)
    check_architecture(lm, kinds)
    if prompt.source:
        made = _transferred(prompt.source, lm, encoder, kinds)
    else:
        made = _started(lm, kinds, start_ids(encoder, prompt.start, seed))
    if name == "p_tuning" and not prompt.source:  # what another encoder made has been through one
        assert made.tokens is not None
        made.encoder = PromptEncoder(made.tokens.shape[1], prompt.encoder)
    elif name == "prefix_tuning":
        assert made.layers is not None
        made.encoder = PrefixEncoder(*made.layers.shape)
        made.layers.requires_grad_(False)  # the MLP adds to it
    return made


def vectors_of(name: str, prompt: Prompt) -> set[str]:
    """Which vectors a method's prompt has: "tokens" at the input, "layers" in front of each."""
    if name in ("p_tuning_v2", "prefix_tuning"):
        return {"layers"}
    return {"tokens", "layers"} if name == "soft" and prompt.deep else {"tokens"}


def _started(lm: MaskedLM, kinds: set[str], ids: list[int]) -> SoftPrompt:
    """A prompt that starts at some tokens of the vocabulary."""
    if kinds == {"layers"}:
        return SoftPrompt(None, start_states(lm, ids))
    at = torch.tensor(ids, device=lm.device, dtype=torch.long)
    vectors = lm.model.get_input_embeddings().weight.detach()[at].float()
    if kinds == {"tokens"}:
        return SoftPrompt(vectors)
    config = lm.model.config
    nothing = vectors.new_zeros(config.num_hidden_layers, len(ids), config.hidden_size)
    return SoftPrompt(vectors, nothing, added=True)


def check_architecture(lm: MaskedLM, kinds: set[str]) -> None:
    """Raise `UserError` if an architecture has no room for a prompt's vectors, by `vectors_of`."""
    if lm.model.config.is_encoder_decoder:
        raise UserError(
            f"finetune.method: soft prompts are not possible with a {lm.model.config.model_type}, "
            "whose decoder reads the input a second time; full, bitfit and lora are"
        )
    if "layers" in kinds:
        _check_layers(lm)


@torch.no_grad()
def _check_layers(lm: MaskedLM) -> None:
    """Raise `UserError` if vectors cannot be put in front of every layer of an architecture."""
    row = Encoded.of((*lm.layout.prefix, lm.layout.mask, *lm.layout.suffix), Role.SPECIAL)
    lm.model.to(lm.device).eval()
    inputs = lm.inputs([row])
    try:
        own = layer_inputs(lm.model, inputs)
        states = lm.model.base_model(**inputs, output_hidden_states=True).hidden_states[:-1]
        agrees = len(own) == lm.model.config.num_hidden_layers and torch.allclose(
            own, torch.stack(states).float(), atol=1e-3
        )
    except (RuntimeError, IndexError, AttributeError, TypeError, KeyError, ValueError):
        agrees = False
    if not agrees:
        raise UserError(
            f"finetune.method: prompts in front of every layer are not possible with a "
            f"{lm.model.config.model_type}; prompt_tuning and p_tuning are at the input only"
        )


def start_ids(encoder: PatternEncoder, start: str, seed: int) -> list[int]:
    """For each soft token of a pattern the vocabulary's one that it starts at.

    start: of those without words: "labels", the label words in turn, or a sample of "vocabulary"
    """
    if start == "labels":
        others: Iterator[int] = cycle(id_ for word in encoder.words.words for id_ in word)
    else:
        others = iter(_sample_vocabulary(encoder, len(encoder.soft_starts), seed))
    return [next(others) if own is None else own for own in encoder.soft_starts]


def start_states(lm: MaskedLM, ids: Sequence[int]) -> Tensor:
    """The states (layers, tokens, hidden size) of some tokens in front of every layer."""
    layout = lm.layout
    row = Encoded.of(layout.prefix, Role.SPECIAL) + Encoded.of(ids, Role.TEMPLATE)
    row += Encoded.of(layout.suffix, Role.SPECIAL)
    lm.model.to(lm.device).eval()
    states = layer_inputs(lm.model, lm.inputs([row]))[:, 0]
    return states[:, len(layout.prefix) : len(layout.prefix) + len(ids)]


def _sample_vocabulary(encoder: PatternEncoder, count: int, seed: int) -> list[int]:
    """Different tokens that are words or parts of words."""
    tokenizer = encoder.tokenizer
    words = sorted(
        id_
        for token, id_ in tokenizer.get_vocab().items()
        if re.search(r"[^\W\d_]", token) and not token.startswith("[unused")
        if id_ not in tokenizer.all_special_ids
    )
    rng = np.random.default_rng(seed_from("vocabulary", seed))
    order = rng.permutation(len(words))
    return [words[n] for n in islice(cycle(order), count)]


def _transferred(file: Path, lm: MaskedLM, encoder: PatternEncoder, wanted: set[str]) -> SoftPrompt:
    """The prompt of another PVP; wanted: the tensors that the method has.

    Raises `UserError` if it does not fit.
    """
    tensors, description = read_part(file)
    if "tokens" not in tensors and "layers" not in tensors:
        raise UserError(f"finetune.prompt_from: {file} has no prompt, but {description['method']}")
    if wanted != {*tensors}:
        raise UserError(
            f"finetune.prompt_from: {file} has a prompt of {description['method']}, which is not "
            "of the kind that finetune.method trains"
        )
    made = SoftPrompt(
        tensors.get("tokens"), tensors.get("layers"), added=bool(description["added"])
    )
    check_prompt(made, lm, file)
    if made.count != len(encoder.soft_starts):
        raise UserError(
            f"finetune.prompt_from: {file} has {made.count} soft tokens, pattern "
            f"{encoder.pattern.name!r} has {len(encoder.soft_starts)}"
        )
    return made


def check_prompt(prompt: SoftPrompt, lm: MaskedLM, file: Path) -> None:
    config = lm.model.config
    width = lm.model.get_input_embeddings().weight.shape[1]
    fits = prompt.tokens is None or prompt.tokens.shape[1] == width
    if prompt.layers is not None:
        shape = (prompt.layers.shape[0], prompt.layers.shape[2])
        fits = fits and shape == (config.num_hidden_layers, config.hidden_size)
    if not fits:
        raise UserError(f"{file}: was trained on another model, of another size")
