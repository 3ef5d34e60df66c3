"""The ordinary sequence classifier: its inputs, its training, its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import balanced_rows, batch_rows, cut_rows
from pet_pipeline.combining import soften
from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import Padding, Tokenizer
from pet_pipeline.inference import collate, device_of, read_rows
from pet_pipeline.models import ModelFolder, Pretrained
from pet_pipeline.optimisation import Distillation, Optimisation
from pet_pipeline.pretrained import load_classifier, load_tokenizer, new_classifier
from pet_pipeline.seeds import seed_from
from pet_pipeline.tables import Floats
from pet_pipeline.training import fit

Texts = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Labelled:
    """Rows and their label numbers (rows,)."""

    rows: Texts
    gold: Sequence[int]


@dataclass(frozen=True)
class SoftLabelled:
    """Rows, their soft labels (rows, labels) at temperature 1, and the rows of each step."""

    rows: Texts
    probs: Floats
    batches: Sequence[Sequence[int]]


class Classifier:
    """A sequence classifier that reads some columns of rows."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        columns: Sequence[str],
        max_tokens: int,
        compute: Compute | None = None,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.columns, self.max_tokens = list(columns), max_tokens
        self.compute = compute or Compute()
        self.padding = Padding.of(tokenizer)
        names = model.config.id2label
        self.labels = [names[n] for n in range(len(names))]

    @classmethod
    def new(
        cls,
        base: Pretrained,
        labels: tuple[str, ...],
        columns: Sequence[str],
        max_tokens: int,
        *,
        seed: int,
        compute: Compute | None = None,
    ) -> Self:
        """A pretrained encoder with a new head, which starts at random."""
        torch.manual_seed(seed)
        model = new_classifier(base, labels, compute)
        return cls(model, load_tokenizer(base), columns, max_tokens, compute)

    @classmethod
    def load(cls, folder: Path | str, compute: Compute | None = None) -> Self:
        """The finished classifier of a folder; raises `UserError` if there is none."""
        model = load_classifier(Path(folder), compute)
        tokenizer = load_tokenizer(ModelFolder(Path(folder)))
        trained = getattr(model.config, "pet_pipeline", {})
        columns, max_tokens = trained.get("columns", ["text"]), trained.get("max_tokens", 128)
        return cls(model, tokenizer, columns, max_tokens, compute)

    def tune(
        self,
        labelled: Labelled,
        optimisation: Optimisation,
        steps: int,
        *,
        seed: int,
        what: str = "tune",
    ) -> float:
        """Train in place by cross-entropy; returns the mean loss of the last tenth of the steps."""
        inputs = self._encode(labelled.rows)

        def losses(step: int) -> Iterator[Tensor]:
            yield from self._gold_losses(inputs, labelled.gold, optimisation, seed, step)

        return fit(
            self.model,
            losses,
            steps=steps,
            optimisation=optimisation,
            seed=seed,
            compute=self.compute,
            what=what,
        )

    def distill(
        self,
        pool: SoftLabelled,
        labelled: Labelled | None,
        distillation: Distillation,
        *,
        seed: int,
        what: str = "distill",
        checkpoints: Path | None = None,
    ) -> float:
        """Train in place on soft labels, with the labelled rows mixed in.

        The loss is (1-g) * T^2 * KL(soft label at T || classifier at T) + g * CE
        (1503.02531, section 2). Returns the mean loss of the last tenth of the steps.
        """
        inputs = self._encode(pool.rows)
        gold_inputs = self._encode(labelled.rows) if labelled else []
        targets = torch.from_numpy(soften(pool.probs, distillation.temperature)).float()
        mixed = distillation.gold_weight if labelled else 0.0
        optimisation = distillation.optimisation
        gold_optimisation = _quarter(optimisation)

        def losses(step: int) -> Iterator[Tensor]:
            batch = pool.batches[step]
            for part in cut_rows(batch, _lengths(inputs), optimisation.batch_tokens):
                logits = self._logits([inputs[n] for n in part])
                predicted = (logits / distillation.temperature).log_softmax(-1)
                wanted = targets[part].to(logits.device)
                loss = functional.kl_div(predicted, wanted, reduction="sum")
                yield (1 - mixed) * loss * distillation.temperature**2 / len(batch)
            if labelled and mixed > 0:
                gold_seed = seed_from("gold", seed)
                for gold_loss in self._gold_losses(
                    gold_inputs, labelled.gold, gold_optimisation, gold_seed, step
                ):
                    yield mixed * gold_loss

        return fit(
            self.model,
            losses,
            steps=distillation.steps,
            optimisation=optimisation,
            seed=seed,
            compute=self.compute,
            what=what,
            checkpoints=checkpoints,
        )

    def predict(self, rows: Texts, what: str = "") -> Floats:
        """Probabilities (rows, labels) of rows that have the classifier's columns.

        what: name of the progress bar
        """
        inputs = self._encode(rows)
        if not inputs:
            return np.zeros((0, len(self.labels)), np.float32)

        def forward(batch: list[int]) -> Tensor:
            return self._logits([inputs[n] for n in batch])

        logits = read_rows(self.model, _lengths(inputs), forward, compute=self.compute, what=what)
        return np.asarray(softmax(logits, axis=-1))

    def save(self, folder: Path) -> None:
        """Write a classifier that `transformers.pipeline` loads, with the columns it reads."""
        self.model.config.pet_pipeline = {"columns": self.columns, "max_tokens": self.max_tokens}
        self.tokenizer.model_max_length = self.max_tokens
        # "[MASK]" in a text is text, there as here; only what is in init_kwargs is written
        self.tokenizer.split_special_tokens = True
        self.tokenizer.init_kwargs["split_special_tokens"] = True
        self.model.to("cpu").save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _encode(self, rows: Texts) -> list[Encoded]:
        return encode_texts(self.tokenizer, rows, self.columns, self.max_tokens)

    def _logits(self, inputs: Sequence[Encoded]) -> Tensor:
        """Logits (rows, labels), float32."""
        logits: Tensor = self.model(**collate(inputs, self.padding, self.compute)).logits
        return logits.float()

    def _gold_losses(
        self,
        inputs: Sequence[Encoded],
        gold: Sequence[int],
        optimisation: Optimisation,
        seed: int,
        step: int,
    ) -> Iterator[Tensor]:
        """Parts of the mean cross-entropy of a step's rows."""
        rows = balanced_rows(gold) if optimisation.balanced else range(len(gold))
        batch = [
            rows[n] for n in batch_rows(len(rows), optimisation.batch_size, seed=seed, step=step)
        ]
        for part in cut_rows(batch, _lengths(inputs), optimisation.batch_tokens):
            logits = self._logits([inputs[n] for n in part])
            targets = torch.tensor([gold[n] for n in part], device=device_of(self.compute))
            yield functional.cross_entropy(logits, targets, reduction="sum") / len(batch)


def encode_texts(
    tokenizer: Tokenizer, rows: Texts, columns: Sequence[str], max_tokens: int
) -> list[Encoded]:
    """Rows as ordinary inputs: the first column as the text, the others as the text's pair."""
    if not rows:
        return []
    first = [row[columns[0]].strip() for row in rows]
    rest = [" ".join(row[column].strip() for column in columns[1:]) for row in rows]
    encoded = tokenizer(
        first,
        rest if len(columns) > 1 else None,
        truncation=True,
        max_length=max_tokens,
        split_special_tokens=True,
        return_special_tokens_mask=True,
    )
    none = [[0] * len(ids) for ids in encoded["input_ids"]]
    types = encoded.get("token_type_ids", none)
    special = encoded["special_tokens_mask"]
    return [
        Encoded(tuple(ids), bytes(Role.SPECIAL if s else Role.TEXT for s in specials), bytes(kinds))
        for ids, specials, kinds in zip(encoded["input_ids"], special, types, strict=True)
    ]


def _quarter(optimisation: Optimisation) -> Optimisation:
    """The same with a quarter of the rows per update: gold rows are few."""
    return replace(optimisation, batch_size=max(1, optimisation.batch_size // 4))


def _lengths(inputs: Sequence[Encoded]) -> list[int]:
    return [len(row) for row in inputs]
