"""A pattern-verbalizer pair and a masked LM: tune it on labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import batch_rows, cut_batches, cut_rows
from pet_pipeline.config import Finetune, Machine
from pet_pipeline.encoding import Encoded, LabelWords, Layout, collate
from pet_pipeline.mlm import label_scores, mlm_loss
from pet_pipeline.pretrained import device_of
from pet_pipeline.seeds import seed_from
from pet_pipeline.training import fit

Show = Callable[[Sequence[int], int], list[Encoded]]  # row numbers and the step -> the rows


def tune_pvp(
    model: Any,
    rows: Sequence[Encoded],
    gold: Sequence[int],
    texts: Sequence[Encoded],
    layout: Layout,
    words: LabelWords,
    *,
    settings: Finetune,
    seed: int,
    machine: Machine,
    what: str,
    checkpoints: Path | None = None,
    show: Show | None = None,
) -> float:
    """Tune a masked LM in place by `(1-a)*CE + a*MLM` (2001.07676, section 3.1).

    gold: (rows,) label numbers; texts: pool rows for the MLM loss, used if its weight is above 0;
    show: adds demonstrations to the rows of a step
    Returns the mean loss of the last tenth of the steps.
    """
    device = device_of(machine)
    text_lengths = [len(text.ids) for text in texts]

    def losses(step: int) -> Iterator[Tensor]:
        batch = batch_rows(len(rows), settings.batch_size, seed=seed, step=step)
        shown = show(batch, step) if show else [rows[n] for n in batch]
        for part in cut_batches([len(row.ids) for row in shown], machine.batch_tokens):
            inputs = collate([shown[n] for n in part], layout, device)
            slots = torch.tensor([shown[n].slot for n in part], device=device)
            targets = torch.tensor([gold[batch[n]] for n in part], device=device)
            scores = label_scores(model, inputs, slots, words)
            loss = functional.cross_entropy(scores, targets, reduction="sum") / len(batch)
            yield (1 - settings.mlm_weight) * loss
        if settings.mlm_weight > 0 and texts:
            yield from mlm_losses(step)

    def mlm_losses(step: int) -> Iterator[Tensor]:
        size = settings.batch_size * settings.mlm_texts
        batch = batch_rows(len(texts), size, seed=seed_from("mlm", seed), step=step)
        for part in cut_rows(batch, text_lengths, machine.batch_tokens):
            encoded = [texts[n] for n in part]
            inputs = collate(encoded, layout, device)
            maskable = _maskable(encoded, layout, words.n_masks, inputs["input_ids"])
            if not maskable.any():  # empty texts in a pattern without words
                continue
            loss = mlm_loss(
                model,
                inputs,
                maskable,
                share=settings.mlm_masked,
                mask=layout.mask,
                vocabulary=model.config.vocab_size,
            )
            yield settings.mlm_weight * loss * (len(part) / len(batch))

    return fit(
        model,
        losses,
        steps=settings.steps,
        optimiser=settings,
        seed=seed,
        machine=machine,
        what=what,
        checkpoints=checkpoints,
    )


def _maskable(rows: Sequence[Encoded], layout: Layout, n_masks: int, ids: Tensor) -> Tensor:
    """(rows, tokens) True where a token may be predicted: no pad, special token or mask slot."""
    allowed = torch.zeros(ids.shape, dtype=torch.bool)
    for n, row in enumerate(rows):
        end = len(row.ids) - len(layout.suffix)
        allowed[n, len(layout.prefix) : end] = True
        allowed[n, row.slot : row.slot + n_masks] = False
        if row.boundary < len(row.ids):
            allowed[n, row.boundary - len(layout.middle) : row.boundary] = False
    return allowed.to(ids.device)
