"""Embeddings of texts: mean-pooled last states of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from pet_pipeline.classifier import encode_texts
from pet_pipeline.compute import Compute
from pet_pipeline.encoding import Padding
from pet_pipeline.inference import collate, mean_pooled, read_rows
from pet_pipeline.models import Pretrained, hidden_size
from pet_pipeline.pretrained import load_encoder, load_tokenizer
from pet_pipeline.tables import Floats


def embed_texts(
    encoder: Pretrained,
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    max_tokens: int,
    compute: Compute,
) -> Floats:
    """Embeddings (rows, dimensions) of rows, float32, each of length 1."""
    if not rows:
        return np.zeros((0, hidden_size(encoder)), np.float32)
    tokenizer, model = load_tokenizer(encoder), load_encoder(encoder, compute)
    inputs = encode_texts(tokenizer, rows, columns, max_tokens)
    padding = Padding.of(tokenizer)

    def forward(batch: list[int]) -> Tensor:
        tensors = collate([inputs[n] for n in batch], padding, compute)
        states = model(**tensors).last_hidden_state
        return functional.normalize(mean_pooled(states, tensors["attention_mask"]), dim=1)

    lengths = [len(row) for row in inputs]
    return read_rows(model, lengths, forward, compute=compute, what="embed")
