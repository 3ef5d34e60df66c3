"""Scores of the labelled rows by models that were tuned without them, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pet_pipeline.batches import fold_rows
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.metrics import METRICS
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.calibrate import PriorSource, prior_source
from pet_pipeline.stages.demonstrate import demonstrate
from pet_pipeline.stages.finetune import FineTune, fine_tunes, in_sample_note
from pet_pipeline.stages.results import SCORES, Inputs
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
    real: dict[str, FineTune] = {}
    tuned = fine_tunes(run, task, inputs, settings, generation=generation, added=added)
    for unit in tuned.values():
        real.setdefault(unit.pattern.name, unit)
    folds = range(settings.ensemble.folds)
    units = {
        f"{pattern}-fold-{fold}": CrossFit(
            real=unit,
            decoding=settings.annotate.decoding,
            draws=settings.demonstrations.draws if unit.examples else 1,
            prior=prior_source(task, inputs, pattern, settings),
            fold=fold,
            folds=len(folds),
        )
        for pattern, unit in real.items()
        for fold in folds
    }
    results = run.do(f"gen-{generation}/crossfit", units)
    return {pattern: tuple(results[f"{pattern}-fold-{fold}"] for fold in folds) for pattern in real}


@dataclass(frozen=True)
class CrossFit(Unit):
    """Scores of the labelled rows of one fold, by a PVP tuned on the others."""

    real: FineTune  # what is done with all rows
    decoding: str
    draws: int  # of demonstrations, whose scores are averaged
    prior: PriorSource | None
    fold: int
    folds: int
    version = 4

    def work(self, out: Path, compute: Compute) -> Info:
        """Write scores.parquet; its ids are row numbers of the labelled table."""
        real, n_labelled = self.real, self.real.n_labelled
        rows, gold = real.training_rows()
        held = fold_rows(gold[:n_labelled], self.folds, self.fold)
        if not held:
            return {"rows": 0}
        compute = compute.at(real.precision)
        pvp = real.load(compute)
        pvp.decoding = self.decoding
        others = [n for n in range(len(rows)) if n not in set(held)]
        support = [n for n in others if n < n_labelled]
        ready = demonstrate(pvp, real.examples, rows, support, draws=self.draws, compute=compute)
        what = f"fold {self.fold} of {real.pattern.name}"
        seed = seed_from("crossfit", real.pattern.name, real.seed, real.generation, self.fold)
        real.tune(pvp, ready.take(others), [gold[n] for n in others], seed, what)
        if self.prior:
            pvp.prior = self.prior.measure(pvp, seed)
        scores = pvp.scores(ready.take(held), seed=seed, what=what)
        write_scores(out / SCORES, pa.array(held), scores, real.pattern.labels)
        accuracy = METRICS["accuracy"]([gold[n] for n in held], scores.argmax(1))
        return {
            "rows": len(held),
            "accuracy": accuracy,
            **in_sample_note("accuracy", real.pattern),
        }
