"""Scores of the labelled rows by models that were tuned without them, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pet_pipeline.batches import fold_rows
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.duplicates import fold
from pet_pipeline.metrics import METRICS
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.calibrate import PriorSource, prior_source
from pet_pipeline.stages.demonstrate import demonstrate
from pet_pipeline.stages.finetune import FineTune, fine_tunes, in_sample_note
from pet_pipeline.stages.results import SCORES, FoundPattern, Inputs, rows_of, training_rows
from pet_pipeline.tables import write_scores
from pet_pipeline.units import Info, Result, Unit


def crossfit(
    run: Run,
    task: Task,
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int = 0,
    added: dict[str, Result] | None = None,
) -> dict[str, tuple[Result, ...]]:
    """By pattern, out-of-fold scores of the labelled rows, from models tuned as the real ones are.

    added: by model, the rows that `grow` labelled for it; the folds of a pattern are tuned as the
    model of its first seed is
    """
    real = first_seeds(fine_tunes(run, task, inputs, settings, generation=generation, added=added))
    folds = settings.ensemble.folds
    units = {
        f"{pattern}-fold-{fold}": crossfit_unit(task, inputs, settings, unit, fold, folds)
        for pattern, unit in real.items()
        for fold in range(folds)
    }
    results = run.do(f"gen-{generation}/crossfit", units)
    return {
        pattern: tuple(results[f"{pattern}-fold-{fold}"] for fold in range(folds))
        for pattern in real
    }


def crossfit_in_turn(
    run: Run,
    task: Task,
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int = 0,
    added: dict[str, Result] | None = None,
) -> tuple[Result, ...]:
    """Out-of-fold scores of the labelled rows, each fold by the next pattern in turn.

    What the single models are right on, for the price of `ensemble.temperature_folds` fine-tunes.
    Patterns that were found on the labelled rows are left out; none if there are no others.
    """
    tuned = fine_tunes(run, task, inputs, settings, generation=generation, added=added)
    real = [
        unit
        for unit in first_seeds(tuned).values()
        if (unit.tuning or unit.prototypes)
        and unit.labelled
        and not isinstance(unit.pattern, FoundPattern)
    ]
    folds = settings.ensemble.temperature_folds
    if not real or not folds:
        return ()
    in_turn = [(real[fold % len(real)], fold) for fold in range(folds)]
    units = {
        f"{unit.pattern.name}-fold-{fold}": crossfit_unit(task, inputs, settings, unit, fold, folds)
        for unit, fold in in_turn
    }
    return tuple(run.do(f"gen-{generation}/crossfit", units).values())


def first_seeds(units: dict[str, FineTune]) -> dict[str, FineTune]:
    """By pattern, the fine-tune of its first seed."""
    first: dict[str, FineTune] = {}
    for unit in units.values():
        first.setdefault(unit.pattern.name, unit)
    return first


def crossfit_unit(
    task: Task, inputs: Inputs, settings: Settings, real: FineTune, fold: int, folds: int
) -> CrossFit:
    """One fold of a fine-tune, read as the settings let its model read rows."""
    # Not from a model adapted to label words that models of all labelled rows predicted: held-out
    # rows may be among its texts, each with its label, and would be scored too well.
    base = inputs.folds_from or real.base
    return CrossFit(
        real=replace(real, base=base),
        decoding=settings.annotate.decoding,
        draws=settings.demonstrations.draws if real.examples else 1,
        prior=prior_source(task, inputs, real.pattern.name, settings),
        fold=fold,
        folds=folds,
    )


@dataclass(frozen=True)
class CrossFit(Unit):
    """Scores of the labelled rows of one fold, by a PVP tuned on the others.

    Rows with a held-out text, such as those that iPET drew from the pool, are left out, too.
    """

    real: FineTune  # what is done with all rows
    decoding: str
    draws: int  # of demonstrations, whose scores are averaged
    prior: PriorSource | None
    fold: int
    folds: int
    version = 6
    figure = "accuracy"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write scores.parquet; its ids are row numbers of the labelled table."""
        real, n_labelled = self.real, self.real.n_labelled
        rows, gold = real.training_rows()
        held = fold_rows(gold[:n_labelled], self.folds, self.fold)
        held_texts = {_text(rows[n]) for n in held}
        others = [n for n in range(len(rows)) if _text(rows[n]) not in held_texts]
        if not held or not others:
            return {"rows": 0}
        split = Split(rows, gold, held, others)
        what = f"fold {self.fold} of {real.pattern.name}, rate {_rate(real)}"
        seed = seed_from("crossfit", real.pattern.name, real.seed, real.generation, self.fold)
        scored = score_held(self, split, out, compute, seed=seed, what=what, with_untuned=True)
        return scored | in_sample_note("accuracy", real.pattern)

    def cost(self) -> float:
        """That of the tuning with all rows."""
        return self.real.cost()


@dataclass(frozen=True)
class ScoreDevelopment(Unit):
    """Scores of the development table, by a PVP tuned on all labelled rows.

    Rows with a text that it was tuned on are left out.
    """

    real: FineTune
    decoding: str
    draws: int
    prior: PriorSource | None
    development: Result
    figure = "accuracy"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write scores.parquet; its ids are row numbers of the development table."""
        real, name = self.real, self.real.pattern.name
        rows, gold = real.training_rows()
        development, labels = training_rows([self.development], real.pattern.labels)
        texts = {_text(row) for row in rows}
        new = [n for n, row in enumerate(development) if _text(row) not in texts]
        if not new:
            return {"rows": 0}
        n_rows = len(rows)
        held, others = [n_rows + n for n in new], list(range(n_rows))
        split = Split(rows + development, gold + labels, held, others, first=n_rows)
        seed = seed_from("select", name, real.seed)
        return score_held(
            self, split, out, compute, seed=seed, what=f"development, {name}, rate {_rate(real)}"
        )

    def cost(self) -> float:
        """That of the tuning, and the rows of the table."""
        return self.real.cost() + self.draws * rows_of(self.development)


@dataclass(frozen=True)
class Split:
    """Rows with their label numbers, and the numbers of those to score and of those to tune on.

    first: the number of the row that is the first of its table, for the ids of the scores
    """

    rows: list[dict[str, Any]]
    gold: list[int]
    held: list[int]
    others: list[int]
    first: int = 0


def score_held(
    unit: CrossFit | ScoreDevelopment,
    split: Split,
    out: Path,
    compute: Compute,
    *,
    seed: int,
    what: str,
    with_untuned: bool = False,
) -> Info:
    """Tune as a unit says on some rows, and write scores.parquet of those that are held out.

    with_untuned: whether the accuracy before tuning is measured, too
    """
    real, held, others = unit.real, split.held, split.others
    compute = compute.at(real.precision)
    pvp = real.load(compute)
    support = [n for n in others if n < real.n_labelled]
    ready = demonstrate(pvp, real.examples, split.rows, support, draws=unit.draws, compute=compute)
    held_rows, held_gold = ready.take(held), [split.gold[n] for n in held]
    info: Info = {"rows": len(held)}
    if with_untuned:
        untuned = pvp.scores(held_rows, seed=seed)
        info["untuned_accuracy"] = METRICS["accuracy"](held_gold, untuned.argmax(1))
    real.tune(pvp, ready.take(others), [split.gold[n] for n in others], seed, what)
    pvp.decoding = unit.decoding
    if unit.prior:
        pvp.prior = unit.prior.measure(pvp, seed)
    scores = pvp.scores(held_rows, seed=seed, what=what)
    ids = pa.array([n - split.first for n in held])
    write_scores(out / SCORES, ids, scores, real.pattern.labels)
    return info | {"accuracy": METRICS["accuracy"](held_gold, scores.argmax(1))}


def _rate(real: FineTune) -> str:
    return f"{real.tuning.optimisation.learning_rate:g}" if real.tuning else "0"


def _text(row: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """A row's texts, by column, as they are compared."""
    return frozenset((name, fold(row[name])) for name in row if name not in ("id", "label"))
