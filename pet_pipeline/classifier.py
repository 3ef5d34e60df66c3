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
from pet_pipeline.combining import fit_temperature, soften
from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import Padding, Tokenizer
from pet_pipeline.errors import UserError
from pet_pipeline.inference import collate, device_of, read_rows
from pet_pipeline.models import ModelFolder, Pretrained, find_classifier
from pet_pipeline.optimisation import Distillation, Optimisation, Updates
from pet_pipeline.pretrained import load_classifier, load_tokenizer, new_classifier
from pet_pipeline.seeds import seed_from
from pet_pipeline.tables import Floats
from pet_pipeline.texts import is_empty, text_rows
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
    """A sequence classifier: its `labels`, and the `columns` of the texts that it reads."""

    labels: list[str]
    columns: list[str]

    def __init__(self, path: Path | str, compute: Compute | None = None):
        """The finished classifier of a folder, or of a run's folder.

        Raises `UserError` if there is none.
        """
        folder = find_classifier(path)
        model = load_classifier(folder, compute)
        trained = getattr(model.config, "pet_pipeline", {})
        columns, max_tokens = trained.get("columns", ["text"]), trained.get("max_tokens", 128)
        self._set(model, load_tokenizer(ModelFolder(folder)), columns, max_tokens, compute)

    def _set(
        self,
        model: Any,
        tokenizer: Tokenizer,
        columns: Sequence[str],
        max_tokens: int,
        compute: Compute | None,
    ) -> None:
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
        self = cls.__new__(cls)  # not loaded from a folder
        self._set(model, load_tokenizer(base), columns, max_tokens, compute)
        return self

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
            updates=Updates(optimisation, steps, seed),
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
            updates=Updates(optimisation, distillation.steps, seed),
            compute=self.compute,
            what=what,
            checkpoints=checkpoints,
        )

    def predict(self, texts: object, threshold: float = 0.0) -> list[str | None]:
        """The most probable label of each text; None for empty texts and below the threshold.

        texts: a string, a list of strings or of dicts, or an Arrow or pandas column or table
        threshold: a text is answered if its highest probability is at least this
        Raises `UserError` for texts that cannot be read.
        """
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold: found {threshold}; give a probability, from 0 to 1")
        rows = text_rows(texts, self.columns)
        return [
            None
            if is_empty(row, self.columns) or probs.max() < threshold
            else self.labels[probs.argmax()]
            for row, probs in zip(rows, self.predict_proba(rows), strict=True)
        ]

    def predict_proba(self, texts: object, what: str = "") -> Floats:
        """Probabilities (rows, labels) of texts, as `predict` takes them.

        what: name of the progress bar; without one nothing is shown
        Raises `UserError` for texts that cannot be read.
        """
        inputs = self._encode(text_rows(texts, self.columns))
        if not inputs:
            return np.zeros((0, len(self.labels)), np.float32)

        def forward(batch: list[int]) -> Tensor:
            return self._logits([inputs[n] for n in batch])

        logits = read_rows(self.model, _lengths(inputs), forward, compute=self.compute, what=what)
        return np.asarray(softmax(logits, axis=-1))

    def calibrate(self, rows: Texts, confidence: float) -> float:
        """Scale the logits so that the mean highest probability of some rows is `confidence`.

        The last layer takes the temperature in: the model stays an ordinary one. Returns the
        temperature that the logits were divided by.
        """
        logits = np.log(np.clip(self.predict_proba(rows), 1e-30, 1))
        temperature = fit_temperature(logits, confidence)
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.Linear)]
        last = [layer for layer in layers if layer.out_features == len(self.labels)][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.div_(temperature)
        return temperature

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
