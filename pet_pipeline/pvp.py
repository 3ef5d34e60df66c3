"""A pattern-verbalizer pair: a masked language model that reads rows through one pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import balanced_rows, batch_rows, cut_batches
from pet_pipeline.calibration import CALIBRATIONS, Prior
from pet_pipeline.compute import Compute
from pet_pipeline.demonstrations import Demonstrations, Rows
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM, mask_texts
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import (
    PROTOTYPES,
    Method,
    MlmLoss,
    PrototypeSettings,
    Tuning,
    Updates,
)
from pet_pipeline.patterns import Pattern
from pet_pipeline.prototypes import Prototypes
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.tables import Floats
from pet_pipeline.training import fit
from pet_pipeline.tuning import TrainedPart

AnyRows = Rows | Sequence[Mapping[str, str]]  # in the pattern already, or as a table has them


class Pvp:
    """A masked language model that reads rows through one pattern.

    demonstrations: labelled rows that are inserted into every input; prior: what is subtracted
    from scores; decoding: "confident" or "parallel", for label words of several tokens; trained:
    what a method other than "full" trains, or has trained; prototypes: of the labels, whose scores
    join those of the label words
    """

    def __init__(
        self,
        lm: MaskedLM,
        encoder: PatternEncoder,
        *,
        demonstrations: Demonstrations | None = None,
        prior: Prior | None = None,
        decoding: str = "confident",
        trained: TrainedPart | None = None,
        prototypes: Prototypes | None = None,
    ):
        self.lm, self.encoder, self.trained = lm, encoder, trained
        self.prototypes = prototypes
        self.demonstrations, self.prior, self.decoding = demonstrations, prior, decoding

    @classmethod
    def load(
        cls,
        base: Pretrained,
        pattern: Pattern,
        *,
        max_tokens: int = 128,
        decoding: str = "confident",
        method: Method | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Self:
        """A model with a pattern, to be tuned by a method: everything unless another is given.

        seed: of what the method starts at
        Raises `UserError` if it is not a masked LM, or not one that the method can tune.
        """
        lm, method = MaskedLM.load(base, compute), method or Method()
        encoder = PatternEncoder(pattern, lm.tokenizer, max_tokens, method.soft_tokens)
        trained = TrainedPart.of(lm, method, encoder, seed=seed) if method.name != "full" else None
        return cls(lm, encoder, decoding=decoding, trained=trained)

    @classmethod
    def of(
        cls,
        lm: MaskedLM,
        pattern: Pattern,
        max_tokens: int,
        *,
        decoding: str = "confident",
        soft: SoftTokens | None = None,
        part: Path | None = None,
        prototypes: Path | None = None,
    ) -> Self:
        """A loaded model with a pattern; several patterns may share one model.

        soft: the tokens of a soft prompt; part: the file of what was trained of this model, which
        is put into a copy that shares all other parameters; prototypes: their file
        Raises `UserError` if the part is of another model, or of another number of soft tokens.
        """
        trained = TrainedPart.load(lm.copy(), part) if part else None
        lm = trained.lm if trained else lm
        encoder = PatternEncoder(pattern, lm.tokenizer, max_tokens, soft)
        known = trained.n_soft if trained else 0
        if known != len(encoder.soft_starts):
            raise UserError(
                f"pattern {pattern.name!r}: has {len(encoder.soft_starts)} soft tokens, and "
                f"{part or 'the model'} has {known}"
            )
        learned = Prototypes.load(prototypes) if prototypes else None
        return cls(lm, encoder, decoding=decoding, trained=trained, prototypes=learned)

    @property
    def n_labels(self) -> int:
        """How many labels the pattern has."""
        return len(self.encoder.pattern.labels)

    def rows(self, rows: AnyRows) -> Rows:
        """Rows in the pattern."""
        return rows if isinstance(rows, Rows) else Rows(self.encoder.encode(rows))

    def scores(self, rows: AnyRows, *, seed: int = 0, what: str = "") -> Floats:
        """Label scores (rows, labels), float32; the mean over draws if there are demonstrations.

        seed: of the draws; what: name of the progress bar
        """
        rows = self.rows(rows)
        normalised = self.prior is not None and CALIBRATIONS[self.prior.method].normalised
        scores = self._scores(rows, seed, what, normalised=normalised)
        if self.prior is not None:
            scores = np.asarray(scores - np.array(self.prior.log_prior), np.float32)
        if self.prototypes is not None and len(rows):
            scores = self.prototypes.combine(scores, self.features(rows, seed=seed, what=what))
        return scores

    def features(self, rows: AnyRows, *, seed: int = 0, what: str = "") -> Floats:
        """What the decoder reads at the slot (rows, width), float32; the mean over draws."""

        def read(inputs: list[Encoded]) -> Floats:
            return self.lm.read(
                inputs, lambda batch: self.lm.features([inputs[n] for n in batch]), what
            )

        return self._mean_over_draws(self.rows(rows), seed, read)

    def measure_prior(self, rows: AnyRows, method: str, *, seed: int = 0) -> Prior:
        """What each label scores on rows that say nothing of it; method: a key of CALIBRATIONS.

        It is that of the label words: prototypes are learned from the rows of all labels alike.
        """
        calibration = CALIBRATIONS[method]
        scores = self._scores(self.rows(rows), seed, "", normalised=calibration.normalised)
        return Prior(method, tuple(calibration.log_prior(scores).tolist()))

    def tune(
        self,
        rows: AnyRows,
        gold: Sequence[int],
        tuning: Tuning,
        *,
        seed: int,
        texts: Sequence[Encoded] = (),
        what: str = "fine-tune",
        checkpoints: Path | None = None,
    ) -> float:
        """Tune the model in place by `(1-a)*CE + a*MLM` (2001.07676, section 3.1).

        gold: (rows,) label numbers; texts: unlabelled rows in the pattern, for the MLM loss
        Returns the mean loss of the last tenth of the steps.
        """
        rows = self.rows(rows)
        if tuning.optimisation.balanced:
            taken = balanced_rows(gold)
            rows, gold = rows.take(taken), [gold[n] for n in taken]
        mlm = tuning.mlm if texts and tuning.mlm and tuning.mlm.weight > 0 else None

        def losses(step: int) -> Iterator[Tensor]:
            weight = 1 - (tuning.mlm.weight if tuning.mlm else 0.0)
            for loss in self._label_losses(rows, gold, tuning, seed, step):
                yield weight * loss
            if mlm is not None:
                yield from self._mlm_losses(texts, mlm, tuning, seed, step)

        return fit(
            self.lm.model,
            losses,
            updates=Updates(tuning.optimisation, tuning.steps, seed),
            compute=self.lm.compute,
            what=what,
            groups=self.trained.groups(tuning.optimisation) if self.trained else None,
            checkpoints=checkpoints,
        )

    def learn_prototypes(
        self, rows: AnyRows, gold: Sequence[int], settings: PrototypeSettings, *, seed: int
    ) -> None:
        """Learn the labels' prototypes, the model as it is; gold: (rows,) label numbers."""
        rows = self.rows(rows)
        self.prototypes = Prototypes.learn(
            self.features(rows, seed=seed),
            gold,
            self._scores(rows, seed, "", normalised=False),
            settings=settings,
            seed=seed,
        )

    def save(self, folder: Path, about: Mapping[str, str] | None = None) -> None:
        """Write what was tuned: model and tokenizer as transformers does, or only a part.

        about: what is to be remembered with a part, such as the model that it belongs to
        """
        folder.mkdir(exist_ok=True)
        if self.trained:
            self.trained.save(folder, about or {})
        if not self.trained or self.trained.method.tunes_model:
            prompt = self.trained.prompt if self.trained else None
            if prompt:
                prompt.detach(self.lm.model)
            self.lm.model.to("cpu").save_pretrained(folder)
            self.lm.tokenizer.save_pretrained(folder)
            if prompt:
                prompt.attach(self.lm.model)
        self.save_prototypes(folder)

    def save_prototypes(self, folder: Path) -> None:
        """Write the prototypes, if there are any, and nothing else."""
        if self.prototypes is not None:
            folder.mkdir(exist_ok=True)
            self.prototypes.save(folder / PROTOTYPES)

    def _scores(self, rows: Rows, seed: int, what: str, *, normalised: bool) -> Floats:
        return self._mean_over_draws(
            rows, seed, lambda inputs: self._read(inputs, what, normalised=normalised)
        )

    def _mean_over_draws(
        self, rows: Rows, seed: int, read: Callable[[list[Encoded]], Floats]
    ) -> Floats:
        """The mean of what is read of the rows with each draw of demonstrations, if there are."""
        draws = self.demonstrations.draws if self.demonstrations else 1
        outputs = [read(self._inputs(rows, seed, draw)) for draw in range(draws)]
        return np.asarray(np.mean(outputs, axis=0))

    def _read(self, rows: Sequence[Encoded], what: str, *, normalised: bool) -> Floats:
        words = self.encoder.words

        def forward(batch: list[int]) -> Tensor:
            part = [rows[n] for n in batch]
            if self.decoding == "confident" and words.n_masks > 1:
                return self.lm.confident_scores(part, words)
            return self.lm.label_scores(part, words, normalised=normalised)

        if not rows:
            return np.zeros((0, self.n_labels), np.float32)
        return self.lm.read(rows, forward, what)

    def _inputs(self, rows: Rows, seed: int, draw: int) -> list[Encoded]:
        """What the model reads: with one draw of demonstrations, or without their location."""
        if self.demonstrations:
            return self.demonstrations.insert(rows, seed_from("draw", seed, draw))
        return [row.without(Role.DEMONSTRATION) for row in rows.encoded]

    def _label_losses(
        self, rows: Rows, gold: Sequence[int], tuning: Tuning, seed: int, step: int
    ) -> Iterator[Tensor]:
        """Parts of the mean cross-entropy of a step's rows."""
        size, budget = tuning.optimisation.batch_size, tuning.optimisation.batch_tokens
        batch = batch_rows(len(rows), size, seed=seed, step=step)
        inputs = self._inputs(rows.take(batch), seed, step)
        for part in cut_batches([len(row) for row in inputs], budget):
            scores = self.lm.label_scores([inputs[n] for n in part], self.encoder.words)
            targets = torch.tensor([gold[batch[n]] for n in part], device=self.lm.device)
            yield functional.cross_entropy(scores, targets, reduction="sum") / len(batch)

    def _mlm_losses(
        self, texts: Sequence[Encoded], mlm: MlmLoss, tuning: Tuning, seed: int, step: int
    ) -> Iterator[Tensor]:
        """Parts of the mean MLM loss of a step's texts, each by its share of predicted tokens."""
        size = tuning.optimisation.batch_size * mlm.texts
        batch = batch_rows(len(texts), size, seed=seed_from("mlm", seed), step=step)
        rng = np.random.default_rng(seed_from("masked", seed, step))
        rows = [texts[n].without(Role.DEMONSTRATION) for n in batch]
        masked = mask_texts(rows, rng, fraction=mlm.masked, lm=self.lm)
        count = sum(len(text.positions) for text in masked)
        lengths = [len(text.row) for text in masked]
        for part in cut_batches(lengths, tuning.optimisation.batch_tokens):
            yield mlm.weight * self.lm.mlm_loss([masked[n] for n in part]) / count
