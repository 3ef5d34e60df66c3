"""Learning rate and steps from a small grid, by the log-loss on rows that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from pet_pipeline.compute import Compute
from pet_pipeline.config import Finetune, Settings
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import Tuning
from pet_pipeline.patterns import Task
from pet_pipeline.progress import say
from pet_pipeline.records import write_record
from pet_pipeline.run import Run
from pet_pipeline.search.selection import LogLoss, corrected_losses
from pet_pipeline.stages.calibrate import prior_source
from pet_pipeline.stages.crossfit import CrossFit, ScoreDevelopment, crossfit_unit, first_seeds
from pet_pipeline.stages.finetune import FineTune, fine_tunes
from pet_pipeline.stages.results import SCORES, TABLE, FoundPattern, Inputs, need_inputs
from pet_pipeline.stages.selected import SELECTION, RankedTuning, Selection
from pet_pipeline.tables import Floats, labels_of, read_scores
from pet_pipeline.units import Info, Result, Unit

SELECT = "select"  # the stage


def select(run: Run, task: Task, inputs: Inputs, settings: Settings) -> Inputs:
    """The inputs with the learning rate and the steps for all fine-tunes, if a selection is wanted.

    Each candidate of the grid costs `finetune.select_folds` fine-tunes, by the patterns in turn;
    iPET's later generations take what was selected for the first one.
    """
    tables, chosen = need_inputs(inputs, "select").tables, settings.finetune
    if chosen.select == "none" or not tables.labelled or not tables.pool:
        return inputs
    table = tables.labelled if chosen.select == "folds" else tables.development
    if table is None:
        raise UserError("finetune.select: 'development' needs data.development; 'folds' does not")
    unselected = chosen.model_copy(update={"select": "none"})
    own = settings.model_copy(update={"finetune": unselected})
    tuned = first_seeds(fine_tunes(run, task, inputs, own, generation=0, added=None))
    real = _in_turn(list(tuned.values()), chosen)
    candidates = grid(real[0].tuning, chosen)
    units = {
        f"{name}-{part}": unit
        for name, tuning in candidates.items()
        for part, unit in _parts(real, tuning, task, inputs, settings).items()
    }
    results = list(run.do(SELECT, units).values())
    unit = Select(
        labels=task.labels,
        split=chosen.select,
        table=table,
        patterns=tuple(dict.fromkeys(unit.pattern.name for unit in real)),
        candidates=tuple(
            Candidate(
                tuning.optimisation.learning_rate,
                tuning.steps,
                tuple(results[n * len(real) : (n + 1) * len(real)]),
            )
            for n, tuning in enumerate(candidates.values())
        ),
        folds=chosen.select_folds,
    )
    return replace(inputs, selected=run.do(SELECT, {"selected": unit})["selected"])


def grid(tuning: Tuning | None, chosen: Finetune) -> dict[str, Tuning]:
    """The candidates by name: each rate with each number of steps, in the order of the settings."""
    if tuning is None:
        raise UserError("finetune.select: there is nothing to tune; take 'none'")
    candidates: dict[str, Tuning] = {}
    for rate_factor in chosen.select_rates:
        rate = float(f"{rate_factor * tuning.optimisation.learning_rate:.6g}")
        for steps_factor in chosen.select_steps:
            steps = max(1, round(steps_factor * tuning.steps))
            optimisation = replace(tuning.optimisation, learning_rate=rate)
            candidate = replace(tuning, optimisation=optimisation, steps=steps)
            candidates.setdefault(f"rate-{rate:g}-steps-{steps}", candidate)
    return candidates


@dataclass(frozen=True)
class Candidate:
    """A learning rate and a number of steps, and the scores of models tuned with them."""

    learning_rate: float
    steps: int
    scores: tuple[Result, ...]


@dataclass(frozen=True)
class Select(Unit):
    """The candidate with the lowest mean log-loss; of equal ones the first.

    Models tuned on few rows are too sure of themselves, and more so the longer they are tuned,
    which the ensemble's temperature mends later on. So the losses are those after a correction of
    scale and label biases, fitted for each candidate on other rows, as in the template search
    (`search/selection.py`). On folds it is one correction for all rows of a candidate; on the
    development table one for each model, and a row's loss is the mean of theirs.
    """

    labels: tuple[str, ...]
    split: str  # "folds" or "development"
    table: Result  # that the rows are of
    patterns: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    folds: int
    figure = "log_loss"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write selection.json."""
        gold = np.array(labels_of(self.table.dir / TABLE, self.labels))
        ranked, losses = [], []
        for candidate in self.candidates:
            of_rows, accuracy = self._measure(candidate, gold)
            losses.append(of_rows)
            ranked.append(
                RankedTuning(
                    candidate.learning_rate, candidate.steps, LogLoss.of(of_rows), accuracy
                )
            )
        means = np.array([candidate.log_loss.mean for candidate in ranked])
        best = int(np.where(np.isfinite(means), means, np.inf).argmin())
        selection = Selection(
            split=self.split,
            rows=len(losses[0]),
            patterns=list(self.patterns),
            candidates=ranked,
            selected=best,
            lead=LogLoss.of(losses[0] - losses[best]),
        )
        say(f"  {selection.verdict}")
        write_record(out / SELECTION, selection)
        return {
            "learning_rate": ranked[best].learning_rate,
            "steps": ranked[best].steps,
            "log_loss": ranked[best].log_loss.mean,
            "candidates": len(ranked),
        }

    def cost(self) -> float:
        """No model reads anything."""
        return 1.0

    def _measure(self, candidate: Candidate, gold: Floats) -> tuple[Floats, float]:
        """Losses (rows,) and accuracy of a candidate; gold: (rows of the table,)."""
        parts = [read_scores(r.dir / SCORES) for r in candidate.scores if r.info["rows"]]
        if not parts:
            raise UserError(
                "finetune.select: no row can be held out, as all have texts that models were tuned "
                "on; add rows, or take 'none'"
            )
        numbers = [ids.to_numpy() for ids, _ in parts]
        scores = [values for _, values in parts]
        if self.split == "folds":
            numbers, scores = [np.concatenate(numbers)], [np.concatenate(scores)]
        losses, right = [], []
        for rows, values in zip(numbers, scores, strict=True):
            order = np.argsort(rows)
            labels = gold[rows[order]]
            if np.bincount(labels).max() < 2:  # a correction is fitted on the other rows
                raise UserError(
                    f"finetune.select: {len(rows)} rows are left that models were not tuned on, "
                    "and no label has two; add rows, or take 'none'"
                )
            losses.append(corrected_losses(values[order], labels.tolist(), self.folds))
            right.append(float((values[order].argmax(1) == labels).mean()))
        return np.asarray(np.mean(losses, axis=0)), fmean(right)


def _in_turn(tuned: Sequence[FineTune], chosen: Finetune) -> list[FineTune]:
    """The fine-tunes that stand for all: one for each fold, or some for the development table.

    Patterns that were found on the labelled rows are no measure there, unless there are no others.
    """
    if chosen.select == "development":
        return list(tuned[: chosen.select_folds])
    written = [unit for unit in tuned if not isinstance(unit.pattern, FoundPattern)] or tuned
    return [written[fold % len(written)] for fold in range(chosen.select_folds)]


def _parts(
    real: Sequence[FineTune], tuning: Tuning, task: Task, inputs: Inputs, settings: Settings
) -> dict[str, CrossFit | ScoreDevelopment]:
    """The units of a candidate, by the fold, or by the pattern."""
    folds, development = settings.finetune.select_folds, inputs.tables.development
    units: dict[str, CrossFit | ScoreDevelopment] = {}
    for fold, fine_tune in enumerate(real):
        name, candidate = fine_tune.pattern.name, replace(fine_tune, tuning=tuning)
        if settings.finetune.select == "folds":
            unit = crossfit_unit(task, inputs, settings, candidate, fold, folds)
            units[f"fold-{fold}"] = unit
        elif development:
            units[name] = ScoreDevelopment(
                real=candidate,
                decoding=settings.annotate.decoding,
                draws=settings.demonstrations.draws if candidate.examples else 1,
                prior=prior_source(task, inputs, name, settings),
                development=development,
            )
    return units
