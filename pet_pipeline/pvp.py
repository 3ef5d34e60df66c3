"""A pattern-verbalizer pair: a masked language model that reads rows through one pattern."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import balanced_rows, batch_rows, cut_batches
from pet_pipeline.calibration import CALIBRATIONS, Prior
from pet_pipeline.compute import Compute
from pet_pipeline.contrast import contrastive_losses
from pet_pipeline.demonstrations import Demonstrations, Rows
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import LabelWords, PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import (
    PROTOTYPES,
    Contrast,
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
    what a method other than "full" trains, or has trained; view: of a second pattern, in which
    rows are read for contrast; prototypes: of the labels, whose scores join those of the label
    words
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
        view: PatternEncoder | None = None,
        prototypes: Prototypes | None = None,
    ):
        self.lm, self.encoder, self.trained, self.view = lm, encoder, trained, view
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
        view: Pattern | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Self:
        """A model with a pattern, to be tuned by a method: everything unless another is given.

        view: a second pattern, for contrast; seed: of what the method starts at
        Raises `UserError` if it is not a masked LM, or not one that the method can tune.
        """
        lm, method = MaskedLM.load(base, compute), method or Method()
        encoder = PatternEncoder(pattern, lm.tokenizer, max_tokens, method.soft_tokens)
        trained = TrainedPart.of(lm, method, encoder, seed=seed) if method.name != "full" else None
        second = PatternEncoder(view, lm.tokenizer, max_tokens) if view else None
        return cls(lm, encoder, decoding=decoding, trained=trained, view=second)

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
        if isinstance(rows, Rows):
            return rows
        second = self.view.encode(rows) if self.view else ()
        return Rows(self.encoder.encode(rows), second=second)

    def scores(self, rows: AnyRows, *, seed: int = 0, what: str = "") -> Floats:
        """Label scores (rows, labels), float32; the mean over draws if there are demonstrations.

        seed: of the draws; what: name of the progress bar
        """
        rows = self.rows(rows)
        if not len(rows):
            return np.zeros((0, self.n_labels), np.float32)
        normalised = self.prior is not None and CALIBRATIONS[self.prior.method].normalised
        scores, states = self._read(rows, seed, what, normalised=normalised)
        if self.prior is not None:
            scores = scores - np.array(self.prior.log_prior)
        if self.prototypes is not None:
            scores = self.prototypes.combine(scores, states)
        return np.asarray(scores, np.float32)

    def measure_prior(self, rows: AnyRows, method: str, *, seed: int = 0) -> Prior:
        """What each label scores on rows that say nothing of it; method: a key of CALIBRATIONS.

        It is that of the label words: prototypes are learned from the rows of all labels alike.
        """
        calibration = CALIBRATIONS[method]
        scores, _ = self._read(self.rows(rows), seed, "", normalised=calibration.normalised)
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

        With contrast, CE is the mean over two views of each row, and the weighted contrast
        between all of these is added to it (2205.01308, equation 4).
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
        scores, states = self._read(self.rows(rows), seed, "", normalised=False, with_states=True)
        self.prototypes = Prototypes.learn(states, gold, scores, settings=settings, seed=seed)

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
            try:
                self.lm.model.to("cpu").save_pretrained(folder)
            finally:
                if prompt:
                    prompt.attach(self.lm.model)
            self.lm.tokenizer.save_pretrained(folder)
        self.save_prototypes(folder)

    def save_prototypes(self, folder: Path) -> None:
        """Write the prototypes, if there are any, and nothing else."""
        if self.prototypes is not None:
            folder.mkdir(exist_ok=True)
            self.prototypes.save(folder / PROTOTYPES)

    def _read(
        self, rows: Rows, seed: int, what: str, *, normalised: bool, with_states: bool = False
    ) -> tuple[Floats, Floats]:
        """Scores of the label words (rows, labels), and the slot's states (rows, width).

        Both are means over draws. The states have no width unless they are asked for, or there are
        prototypes that need them.
        """
        words, confident = self.encoder.words, self.decoding == "confident"
        with_states = with_states or self.prototypes is not None

        def forward(part: list[Encoded]) -> Tensor:
            in_turn = confident and words.n_masks > 1
            if in_turn and not with_states:
                return self.lm.confident_scores(part, words)
            scores, states = self.lm.label_scores_and_states(part, words, normalised=normalised)
            if not with_states:
                return scores
            scores = self.lm.confident_scores(part, words) if in_turn else scores
            return torch.cat([scores, states.to(scores.dtype)], 1)

        def read(inputs: list[Encoded]) -> Floats:
            return self.lm.read(inputs, lambda batch: forward([inputs[n] for n in batch]), what)

        draws = self.demonstrations.draws if self.demonstrations else 1
        outputs = [read(self._inputs(rows, seed, draw)) for draw in range(draws)]
        mean = np.asarray(np.mean(outputs, axis=0))
        return mean[:, : self.n_labels], mean[:, self.n_labels :]

    def _inputs(self, rows: Rows, seed: int, draw: int) -> list[Encoded]:
        """What the model reads: with one draw of demonstrations, or without their location."""
        if self.demonstrations:
            return self.demonstrations.insert(rows, seed_from("draw", seed, draw))
        return [row.without(Role.DEMONSTRATION) for row in rows.encoded]

    def _label_losses(
        self, rows: Rows, gold: Sequence[int], tuning: Tuning, seed: int, step: int
    ) -> Iterator[Tensor]:
        """Parts of the mean cross-entropy of a step's rows, and of their contrast."""
        size, budget = tuning.optimisation.batch_size, tuning.optimisation.batch_tokens
        batch = batch_rows(len(rows), size, seed=seed, step=step)
        labels = [gold[n] for n in batch]
        views = self._views(rows.take(batch), tuning.contrast, seed, step)
        count = sum(len(view.inputs) for view in views)
        parts = [part for view in views for part in view.cut(labels, budget)]
        targets = [torch.tensor(part.gold, device=self.lm.device) for part in parts]

        def forward(number: int) -> tuple[Tensor, Tensor]:
            part, gold = parts[number], targets[number]
            scores, states = self.lm.label_scores_and_states(part.inputs, part.words)
            return functional.cross_entropy(scores, gold, reduction="sum") / count, states

        if tuning.contrast is None:
            yield from (forward(number)[0] for number in range(len(parts)))
            return
        yield from contrastive_losses(
            forward,
            targets,
            tuning.contrast,
            at_once=sum(part.tokens for part in parts) <= budget,
            seed=seed_from("step", seed, step),
        )

    def _views(self, rows: Rows, contrast: Contrast | None, seed: int, step: int) -> list[_View]:
        """What a step reads its rows as: once, or in two views for contrast."""
        inputs, words = self._inputs(rows, seed, step), self.encoder.words
        if contrast is None:
            return [_View(inputs, words)]
        if contrast.view == "pattern":
            assert self.view
            second = [row.without(Role.DEMONSTRATION) for row in rows.second]
            return [_View(inputs, words), _View(second, self.view.words)]
        if contrast.view == "demonstrations":
            return [_View(inputs + self._inputs(rows, seed_from("view", seed), step), words)]
        return [_View(inputs * 2, words)]  # each copy has dropout of its own

    def _mlm_losses(
        self, texts: Sequence[Encoded], mlm: MlmLoss, tuning: Tuning, seed: int, step: int
    ) -> Iterator[Tensor]:
        """Parts of the mean MLM loss of a step's texts, each by its share of predicted tokens."""
        size = tuning.optimisation.batch_size * mlm.texts
        batch = batch_rows(len(texts), size, seed=seed_from("mlm", seed), step=step)
        rng = np.random.default_rng(seed_from("masked", seed, step))
        rows = [texts[n].without(Role.DEMONSTRATION) for n in batch]
        masked = self.lm.masking(mlm.masked).texts(rows, rng)
        count = sum(len(text.positions) for text in masked)
        lengths = [len(text.row) for text in masked]
        for part in cut_batches(lengths, tuning.optimisation.batch_tokens):
            yield mlm.weight * self.lm.mlm_loss([masked[n] for n in part]) / count


@dataclass(frozen=True)
class _View:
    """Inputs of a step with the label words of their pattern; each row once, or twice in turn."""

    inputs: list[Encoded]
    words: LabelWords

    def cut(self, labels: Sequence[int], budget: int) -> Iterator[_Part]:
        """The inputs in parts within a token budget, with their gold labels; labels: of the rows"""
        for part in cut_batches([len(row) for row in self.inputs], budget):
            gold = [labels[n % len(labels)] for n in part]
            yield _Part([self.inputs[n] for n in part], self.words, gold)


@dataclass(frozen=True)
class _Part:
    """Inputs that are computed at once."""

    inputs: list[Encoded]
    words: LabelWords
    gold: list[int]  # (inputs,)

    @property
    def tokens(self) -> int:
        """With padding."""
        return len(self.inputs) * max(len(row) for row in self.inputs)
