"""Rows in, scores out: sorted by length, batched by tokens, in the order they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

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
) -> Floats:
    """Label scores (rows, labels) of a masked LM, float32."""
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
                found = label_scores(model, collate(part, layout, device), slots, words)
            scores[batch] = found.float().cpu().numpy()
            advance(len(batch))
    return scores


@torch.inference_mode()
def classify_rows(
    model: Any, encodings: Mapping[str, list[list[int]]], pad: int, *, machine: Machine, what: str
) -> Floats:
    """Logits (rows, labels) of a sequence classifier, float32.

    encodings: unpadded model inputs by name, as a tokenizer gives them
    """
    device = device_of(machine)
    model.to(device).eval()
    lengths = [len(ids) for ids in encodings["input_ids"]]
    logits = np.zeros((len(lengths), model.config.num_labels), np.float32)
    with progress(what, len(lengths), "rows") as advance, autocast(machine, device):
        for batch in cut_batches(lengths, machine.batch_tokens):
            inputs = pad_inputs(encodings, batch, pad, device)
            logits[batch] = model(**inputs).logits.float().cpu().numpy()
            advance(len(batch))
    return logits


def pad_inputs(
    encodings: Mapping[str, list[list[int]]], rows: Sequence[int], pad: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Some rows of unpadded model inputs as tensors (rows, tokens)."""
    width = max(len(encodings["input_ids"][n]) for n in rows)
    inputs = {}
    for name, values in encodings.items():
        filler = pad if name == "input_ids" else 0
        padded = [values[n] + [filler] * (width - len(values[n])) for n in rows]
        inputs[name] = torch.tensor(padded, device=device)
    return inputs
