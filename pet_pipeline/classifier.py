"""The ordinary sequence classifier: its inputs, its training, its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import batch_rows, cut_rows
from pet_pipeline.config import Distill, Machine, Optimiser
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.inference import classify_rows, pad_inputs
from pet_pipeline.pooling import soften
from pet_pipeline.pretrained import device_of, load_classifier, load_tokenizer
from pet_pipeline.seeds import seed_from
from pet_pipeline.training import fit

Encodings = dict[str, list[list[int]]]


def encode_texts(
    tokenizer: Tokenizer,
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    max_tokens: int,
) -> Encodings:
    """Unpadded model inputs: the first column as the text, the others as the text's pair."""
    first = [row[columns[0]].strip() for row in rows]
    rest = [" ".join(row[column].strip() for column in columns[1:]) for row in rows]
    encoded = tokenizer(
        first,
        rest if len(columns) > 1 else None,
        truncation=True,
        max_length=max_tokens,
        split_special_tokens=True,
    )
    return {name: encoded[name] for name in tokenizer.model_input_names}


def tune_classifier(
    model: Any,
    encodings: Encodings,
    gold: Sequence[int],
    pad: int,
    *,
    optimiser: Optimiser,
    steps: int,
    seed: int,
    machine: Machine,
    what: str,
) -> float:
    """Train a classifier in place by cross-entropy on gold labels (rows,)."""

    def losses(step: int) -> Iterator[Tensor]:
        yield from _gold_losses(
            model, encodings, gold, pad, optimiser.batch_size, seed, step, machine
        )

    return fit(
        model,
        losses,
        steps=steps,
        optimiser=optimiser,
        seed=seed,
        machine=machine,
        what=what,
    )


def distill_classifier(
    model: Any,
    pool: Encodings,
    probs: Floats,
    batches: Sequence[Sequence[int]],
    labelled: Encodings | None,
    gold: Sequence[int],
    pad: int,
    *,
    settings: Distill,
    seed: int,
    machine: Machine,
    what: str,
    checkpoints: Path | None = None,
) -> float:
    """Train a classifier in place on soft labels, with the labelled rows mixed in.

    The loss is (1-g) * T^2 * KL(soft label at T || classifier at T) + g * CE
    (1503.02531, section 2).
    probs: (rows, labels) soft labels at T = 1; batches: for each step, rows of `pool`
    """
    device = device_of(machine)
    lengths = [len(ids) for ids in pool["input_ids"]]
    targets = torch.from_numpy(soften(probs, settings.temperature)).float()
    mixed = settings.gold_weight if labelled else 0.0

    def losses(step: int) -> Iterator[Tensor]:
        batch = batches[step]
        for part in cut_rows(batch, lengths, machine.batch_tokens):
            logits = model(**pad_inputs(pool, part, pad, device)).logits.float()
            predicted = (logits / settings.temperature).log_softmax(-1)
            loss = functional.kl_div(predicted, targets[part].to(device), reduction="sum")
            yield (1 - mixed) * loss * settings.temperature**2 / len(batch)
        if labelled and mixed > 0:
            size = max(1, settings.batch_size // 4)
            for gold_loss in _gold_losses(
                model, labelled, gold, pad, size, seed_from("gold", seed), step, machine
            ):
                yield mixed * gold_loss

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


def save_classifier(
    model: Any, tokenizer: Tokenizer, folder: Path, columns: Sequence[str], max_tokens: int
) -> None:
    """Write a classifier that `transformers.pipeline` loads, with the columns it reads."""
    model.config.pet_pipeline = {"columns": list(columns), "max_tokens": max_tokens}
    tokenizer.model_max_length = max_tokens
    model.to("cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Classifier:
    """A finished classifier, ready to predict."""

    def __init__(self, folder: Path, machine: Machine | None = None):
        """Load the classifier of a folder; raises `UserError` if there is none."""
        self.machine = machine or Machine()
        self.model = load_classifier(folder)
        self.tokenizer = load_tokenizer(folder)
        trained = getattr(self.model.config, "pet_pipeline", {})
        self.columns: list[str] = trained.get("columns", ["text"])
        self.max_tokens: int = trained.get("max_tokens", 128)
        names = self.model.config.id2label
        self.labels = [names[n] for n in range(len(names))]

    def predict(self, rows: Sequence[Mapping[str, str]], what: str = "predict") -> Floats:
        """Probabilities (rows, labels) of rows that have the classifier's columns."""
        encodings = encode_texts(self.tokenizer, rows, self.columns, self.max_tokens)
        pad = self.tokenizer.pad_token_id
        logits = classify_rows(self.model, encodings, pad, machine=self.machine, what=what)
        return np.asarray(softmax(logits, axis=-1))


def _gold_losses(
    model: Any,
    encodings: Encodings,
    gold: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
    step: int,
    machine: Machine,
) -> Iterator[Tensor]:
    device = device_of(machine)
    batch = batch_rows(len(gold), batch_size, seed=seed, step=step)
    lengths = [len(ids) for ids in encodings["input_ids"]]
    for part in cut_rows(batch, lengths, machine.batch_tokens):
        logits = model(**pad_inputs(encodings, part, pad, device)).logits.float()
        targets = torch.tensor([gold[n] for n in part], device=device)
        yield functional.cross_entropy(logits, targets, reduction="sum") / len(batch)
