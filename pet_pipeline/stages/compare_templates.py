"""Candidate templates are screened untuned, then compared by short fine-tunes on folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pet_pipeline.batches import fold_rows
from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import Tuning
from pet_pipeline.patterns import Pattern, pattern_of
from pet_pipeline.records import read_record, read_records, write_record, write_records
from pet_pipeline.search.selection import LogLoss, corrected_losses
from pet_pipeline.search.templates import choose
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.generators import SearchTask, read_candidates, some_rows
from pet_pipeline.units import Info, Result, Unit

if TYPE_CHECKING:
    from pet_pipeline.mlm import MaskedLM

COMPARED_ROWS = 512  # labelled rows that templates are compared on; 16 per label are far fewer
ROUNDS = 2  # of fine-tunes that compare templates; half of them are left after each
SCREENED = "screened.json"
ROUND = "round.json"


@dataclass(frozen=True)
class RankedTemplate:
    """A candidate and how it did; the log-loss is of the last round that it was in."""

    template: str
    generator: str
    score: float  # the generator's own
    log_loss: float  # nats, on rows that it was not tuned on
    standard_error: float
    rounds: int = 0  # of tuning that it was in; 0: screened only
    name: str | None = None  # of its pattern, if it was kept


@dataclass(frozen=True)
class Round:
    """Scores of one fold's rows by templates tuned on the others."""

    rows: list[int]
    scores: dict[str, list[list[float]]]  # template -> (rows, labels)


@dataclass(frozen=True)
class Screen(Unit):
    """The candidates ranked by what the untuned model makes of them."""

    task: SearchTask
    labelled: Result
    generated: tuple[Result, ...]
    base: Pretrained
    count: int  # candidates that are looked at
    known: tuple[str, ...]  # templates that the task has
    folds: int
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write screened.json."""
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.pvp import Pvp

        groups = [group for result in self.generated for group in read_candidates(result)]
        rows, gold = some_rows(self.labelled, self.task.labels, COMPARED_ROWS)
        lm = MaskedLM.load(self.base, compute.at(self.precision))
        screened = []
        for candidate in choose(groups, self.count, self.known):
            pattern = _pattern(candidate.template, self.task)
            pvp = Pvp.of(lm, pattern, self.max_tokens, decoding="parallel")
            if pvp.encoder.problems():
                continue
            losses = corrected_losses(pvp.scores(rows, what="screen templates"), gold, self.folds)
            judged = LogLoss.of(losses)
            screened.append(
                RankedTemplate(
                    template=candidate.template,
                    generator=candidate.generator,
                    score=candidate.score,
                    log_loss=judged.mean,
                    standard_error=judged.standard_error,
                )
            )
        if not screened:
            names = ", ".join(r.dir.name.partition("-")[2] for r in self.generated)
            raise UserError(
                f"search.generators: {names} "
                "found no template that the task does not have; add 'connectors' or 'mine'"
            )
        screened.sort(key=lambda ranked: (ranked.log_loss, ranked.template))
        write_records(out / SCREENED, screened)
        return {"candidates": len(screened), "in_sample_log_loss": screened[0].log_loss}


@dataclass(frozen=True)
class Compare(Unit):
    """The templates that are left, tuned on all folds but one, and measured on that one."""

    task: SearchTask
    labelled: Result
    screened: Result
    earlier: tuple[tuple[Result, ...], ...]  # the folds of each earlier round
    base: Pretrained
    templates: int  # that are left
    fold: int
    folds: int
    tuning: Tuning
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write round.json."""
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.search.comparing import Fold, tuned_scores

        rows, gold = some_rows(self.labelled, self.task.labels, COMPARED_ROWS)
        held = fold_rows(gold, self.folds, self.fold)
        ranking = Ranking.of(self.screened, self.earlier, gold)
        templates = [ranked.template for ranked in ranking.templates[: self.templates]]
        lm: MaskedLM = MaskedLM.load(self.base, compute.at(self.precision))
        scores = tuned_scores(
            lm,
            [_pattern(template, self.task) for template in templates],
            Fold(rows, gold, held),
            max_tokens=self.max_tokens,
            tuning=self.tuning,
            seed=seed_from("search", self.fold),
        )
        by_template = dict(zip(templates, scores.tolist(), strict=True))
        write_record(out / ROUND, Round(held, by_template))
        return {"templates": len(templates), "rows": len(held)}


@dataclass(frozen=True)
class Ranking:
    """All candidates, best first: those of the last round before those that it left out.

    losses: of tuned templates, on each labelled row
    """

    templates: list[RankedTemplate]
    losses: dict[str, list[float]]

    @classmethod
    def of(
        cls, screened: Result, rounds: Sequence[Sequence[Result]], gold: Sequence[int]
    ) -> Ranking:
        """What some rounds made of the screened candidates; gold: labels of the compared rows."""
        templates = read_records(screened.dir / SCREENED, RankedTemplate)
        all_losses: dict[str, list[float]] = {}
        for number, folds in enumerate(rounds, 1):
            judged = _judge([read_record(fold.dir / ROUND, Round) for fold in folds], gold)
            for n, ranked in enumerate(templates):
                if ranked.template in judged:
                    losses = judged[ranked.template]
                    mean = LogLoss.of(np.array(losses))
                    all_losses[ranked.template] = losses
                    templates[n] = replace(
                        ranked,
                        rounds=number,
                        log_loss=mean.mean,
                        standard_error=mean.standard_error,
                    )
            templates.sort(key=lambda ranked: (-ranked.rounds, ranked.log_loss, ranked.template))
        return cls(templates, all_losses)


def survivors(keep: int, number: int) -> int:
    """How many templates are tuned in a round.

    >>> [survivors(4, number) for number in range(ROUNDS)]
    [16, 8]
    """
    return int(keep * 2 ** (ROUNDS - number))


def short_tuning(tuning: Tuning, steps: int, number: int) -> Tuning:
    """The fine-tunes of a round: the last one's have all the steps, those before half as many."""
    steps = max(1, steps >> (ROUNDS - 1 - number))
    return replace(tuning, steps=steps, mlm=None, contrast=None)


def compared_labels(labelled: Result, labels: tuple[str, ...]) -> list[int]:
    """Label numbers of the rows that templates are compared on."""
    return some_rows(labelled, labels, COMPARED_ROWS)[1]


def _judge(folds: Sequence[Round], gold: Sequence[int]) -> dict[str, list[float]]:
    """By template the losses of all rows, from the scores of each fold."""
    order = np.argsort([row for fold in folds for row in fold.rows])
    judged = {}
    for template in folds[0].scores:
        scores = np.array([row for fold in folds for row in fold.scores[template]])[order]
        losses: list[float] = corrected_losses(scores, gold, len(folds)).tolist()
        judged[template] = losses
    return judged


def _pattern(template: str, task: SearchTask) -> Pattern:
    return pattern_of("", template, task.labels, task.words)
