"""Rows in, scores out: sorted by length, batched by tokens, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import cut_batches
from pet_pipeline.config import Machine
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, LabelWords, Layout, collate
from pet_pipeline.mlm import confident_scores, label_scores
from pet_pipeline.pretrained import autocast, device_of
from pet_pipeline.progress import progress


@torch.inference_mode()
def score_rows(
    model: Any,
    rows: Sequence[Encoded],
    layout: Layout,
    words: LabelWords,
    *,
    machine: Machine,
    what: str,
    decoding: str = "confident",
    normalise: bool = False,
) -> Floats:
    """Label scores (rows, labels) of a masked LM, float32; normalise: as log-probabilities."""
    device = device_of(machine)
    model.to(device).eval()
    scores = np.zeros((len(rows), len(words.tokens)), np.float32)
    with progress(what, len(rows), "rows") as advance, autocast(machine, device):
        for batch in cut_batches([len(row.ids) for row in rows], machine.batch_tokens):
            part = [rows[n] for n in batch]
            if decoding == "confident" and words.n_masks > 1:
                found = confident_scores(
                    model, part, layout, words, batch_tokens=machine.batch_tokens, device=device
                )
            else:
                slots = torch.tensor([row.slot for row in part], device=device)
                inputs = collate(part, layout, device)
                found = label_scores(model, inputs, slots, words, normalise=normalise)
            scores[batch] = found.float().cpu().numpy()
            advance(len(batch))
    return scores


def classify_rows(
    model: Any, encodings: Mapping[str, list[list[int]]], pad: int, *, machine: Machine, what: str
) -> Floats:
    """Logits (rows, labels) of a sequence classifier, float32.

    encodings: unpadded model inputs by name, as a tokenizer gives them
    """

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        found: Tensor = model(**inputs).logits
        return found.float()

    return _read(model, encodings, pad, model.config.num_labels, logits, machine, what)


def embed_rows(
    model: Any, encodings: Mapping[str, list[list[int]]], pad: int, *, machine: Machine, what: str
) -> Floats:
    """Mean-pooled last states of an encoder, each of length 1: (rows, dimensions), float32.

    encodings: unpadded model inputs by name, as a tokenizer gives them
    """

    def vectors(inputs: dict[str, Tensor]) -> Tensor:
        states = model(**inputs).last_hidden_state.float()
        read = inputs["attention_mask"][..., None]
        return functional.normalize((states * read).sum(1) / read.sum(1).clamp(min=1), dim=1)

    return _read(model, encodings, pad, model.config.hidden_size, vectors, machine, what)


def pad_inputs(
    encodings: Mapping[str, list[list[int]]], rows: Sequence[int], pad: int, device: torch.device
) -> dict[str, Tensor]:
    """Some rows of unpadded model inputs as tensors (rows, tokens)."""
    width = max(len(encodings["input_ids"][n]) for n in rows)
    inputs = {}
    for name, values in encodings.items():
        filler = pad if name == "input_ids" else 0
        padded = [values[n] + [filler] * (width - len(values[n])) for n in rows]
        inputs[name] = torch.tensor(padded, device=device)
    return inputs


@torch.inference_mode()
def _read(
    model: Any,
    encodings: Mapping[str, list[list[int]]],
    pad: int,
    width: int,
    outputs: Callable[[dict[str, Tensor]], Tensor],
    machine: Machine,
    what: str,
) -> Floats:
    """Outputs (rows, width) of a model for unpadded inputs."""
    device = device_of(machine)
    model.to(device).eval()
    lengths = [len(ids) for ids in encodings["input_ids"]]
    found = np.zeros((len(lengths), width), np.float32)
    with progress(what, len(lengths), "rows") as advance, autocast(machine, device):
        for batch in cut_batches(lengths, machine.batch_tokens):
            found[batch] = outputs(pad_inputs(encodings, batch, pad, device)).cpu().numpy()
            advance(len(batch))
    return found
