"""What a soft prompt may mean: the words of the vocabulary that are nearest to its tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.mlm import MaskedLM
from pet_pipeline.soft_prompt import SoftPrompt, encoder_layers
from pet_pipeline.soft_tokens import NearWord

AT_ONCE = 4096  # words of the vocabulary that the embeddings take


@torch.inference_mode()
def nearest_words(lm: MaskedLM, prompt: SoftPrompt, count: int = 3) -> list[list[NearWord]]:
    """For each soft token its nearest words: at the input, or in front of the first layer.

    There they are words at the first position, as the model's embeddings make them.
    """
    ids = [n for n in range(len(lm.tokenizer)) if n not in lm.tokenizer.all_special_ids]
    if prompt.tokens is not None:
        vectors, words = prompt.input_vectors(), lm.model.get_input_embeddings().weight[ids]
    else:
        vectors = prompt.layer_vectors()[0]
        words = _first_states(lm, torch.tensor(ids, device=lm.device))
    near = functional.normalize(vectors.float(), dim=1) @ functional.normalize(words, dim=1).T
    best = near.topk(min(count, len(ids)), dim=1)
    return [
        [
            NearWord(lm.tokenizer.decode([ids[n]]).strip(), round(cosine, 3))
            for n, cosine in zip(numbers, cosines, strict=True)
        ]
        for numbers, cosines in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


class _Reached(Exception):
    """The first layer: the rest of the model need not be computed."""


def _first_states(lm: MaskedLM, ids: Tensor) -> Tensor:
    """What comes into the first layer (words, hidden size) for each word alone."""
    states: list[Tensor] = []

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"])[:, 0].float())
        raise _Reached

    hook = encoder_layers(lm.model)[0].register_forward_pre_hook(
        keep, with_kwargs=True, prepend=True
    )
    lm.model.eval()
    try:
        for part in torch.split(ids, AT_ONCE):
            try:
                lm.model.base_model(
                    input_ids=part[:, None], attention_mask=torch.ones_like(part)[:, None]
                )
            except _Reached:
                continue
    finally:
        hook.remove()
    return torch.cat(states)
