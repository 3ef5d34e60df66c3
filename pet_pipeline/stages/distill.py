"""The final classifier from the soft labels, and beside it the baseline without the pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from pet_pipeline.batches import batch_rows
from pet_pipeline.compute import Compute
from pet_pipeline.config import Distill, Settings
from pet_pipeline.fanout import release_workers
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import Distillation, Optimisation
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.from_settings import optimisation, precision, student_model
from pet_pipeline.stages.results import (
    LOADING,
    TUNED,
    Classifiers,
    Inputs,
    Tables,
    need_inputs,
    shard_file,
    training_rows,
)
from pet_pipeline.tables import Floats, part_name, read_probs, shard_files
from pet_pipeline.units import Info, Result, Unit

if TYPE_CHECKING:
    from pet_pipeline.classifier import Classifier, SoftLabelled

CALIBRATION_ROWS = 2000  # of the pool, on which the classifier's confidence is set


def distill(
    run: Run, task: Task, soft: Result | None, inputs: Inputs, settings: Settings
) -> Classifiers:
    """A classifier trained on the pool's soft labels, and the baseline; each if it is enabled.

    soft: the last ensemble's; None without a pool, then there is the baseline alone
    """
    tables = need_inputs(inputs, "distill").tables
    base = student_model(run, settings)
    units: dict[str, Unit] = {}
    if settings.distill.enabled and soft:
        units["classifier"] = _classifier(run, task, soft, tables, settings, base)
    if settings.baseline.enabled and tables.labelled:
        units["baseline"] = _baseline(run, task, tables.labelled, settings, base)
    if not units:
        return Classifiers()
    if not run.plan:
        release_workers()  # those that scored the pool keep their last model
    return Classifiers(**run.do("distill", units))


def _classifier(
    run: Run, task: Task, soft: Result, tables: Tables, settings: Settings, base: Pretrained
) -> DistillClassifier:
    chosen = settings.distill
    return DistillClassifier(
        base=base,
        labels=task.labels,
        columns=task.columns,
        soft=soft,
        pool=tables.need_pool("distill"),
        labelled=tables.labelled if chosen.gold_weight else None,
        distillation=Distillation(
            optimisation=optimisation(settings, chosen, base),
            steps=distillation_steps(chosen, tables.pool_rows),
            temperature=chosen.temperature,
            gold_weight=chosen.gold_weight if tables.labelled else 0.0,
            max_tokens=chosen.max_tokens,
        ),
        precision=precision(run, settings),
    )


def _baseline(
    run: Run, task: Task, labelled: Result, settings: Settings, base: Pretrained
) -> TrainBaseline:
    chosen = settings.baseline
    return TrainBaseline(
        base=base,
        labels=task.labels,
        columns=task.columns,
        labelled=labelled,
        optimisation=optimisation(settings, chosen, base),
        steps=chosen.steps,
        max_tokens=chosen.max_tokens,
        precision=precision(run, settings),
    )


def distillation_steps(chosen: Distill, pool_rows: int) -> int:
    """Updates of the distillation: as the settings say, or enough to read the pool some times.

    >>> distillation_steps(Distill(steps=7), 10**6)
    7
    >>> distillation_steps(Distill(passes=2, min_steps=300, max_steps=2000), 8000)
    1000
    """
    if chosen.steps:
        return chosen.steps
    steps = math.ceil(chosen.passes * pool_rows / chosen.batch_size)
    return min(max(steps, chosen.min_steps), chosen.max_steps)


@dataclass(frozen=True)
class DistillClassifier(Unit):
    """An ordinary sequence classifier, trained on the pool's soft labels."""

    base: Pretrained
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    soft: Result
    pool: Result
    labelled: Result | None
    distillation: Distillation
    precision: str
    version = 3
    resumable = True
    figure = "loss"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the classifier as transformers does; resume from a checkpoint in `out`."""
        from pet_pipeline.classifier import Classifier, Labelled, SoftLabelled
        from pet_pipeline.training import remove_checkpoint

        seed = seed_from("distill")
        classifier = Classifier.new(
            self.base,
            self.labels,
            self.columns,
            self.distillation.max_tokens,
            seed=seed,
            compute=compute.at(self.precision),
        )
        pool = SoftLabelled(*self._pool_rows(seed))
        labelled = None
        if self.labelled:
            labelled = Labelled(*training_rows([self.labelled], self.labels))
        loss = classifier.distill(pool, labelled, self.distillation, seed=seed, checkpoints=out)
        temperature = self._calibrate(classifier, pool, seed)
        classifier.save(out)
        remove_checkpoint(out)
        return {
            "rows": len(pool.rows),
            "steps": self.distillation.steps,
            "loss": loss,
            "temperature": temperature,
        }

    def _calibrate(self, classifier: Classifier, pool: SoftLabelled, seed: int) -> float:
        """Make the classifier as confident as the soft labels are; the temperature it took."""
        rng = np.random.default_rng(seed_from("calibrate", seed))
        count = min(CALIBRATION_ROWS, len(pool.rows))
        chosen = np.sort(rng.choice(len(pool.rows), count, replace=False))
        confidence = float(pool.probs[chosen].max(1).mean())
        return classifier.calibrate([pool.rows[n] for n in chosen], confidence)

    def size(self) -> str:
        """The number of updates."""
        return f"{self.distillation.steps} steps"

    def cost(self) -> float:
        """By the rows of the steps, pool and labelled."""
        rows = self.distillation.optimisation.batch_size * (1.25 if self.labelled else 1)
        return LOADING + TUNED * self.distillation.steps * rows

    def _pool_rows(self, seed: int) -> tuple[list[dict[str, str]], Floats, list[list[int]]]:
        """The rows that training will see, their soft labels, and which ones are in each step."""
        n_rows, size = self.soft.info["rows"], self.distillation.optimisation.batch_size
        batches = [
            batch_rows(n_rows, size, seed=seed, step=step)
            for step in range(self.distillation.steps)
        ]
        used = np.array(sorted({row for batch in batches for row in batch}))
        number = {row: n for n, row in enumerate(used.tolist())}
        rows, probs, start = [], [], 0
        for n in range(len(shard_files(self.soft.dir))):
            file = shard_file(self.pool, n)
            count = pq.read_metadata(file).num_rows
            inside = used[(used >= start) & (used < start + count)] - start
            rows += pq.read_table(file).take(inside).to_pylist()
            probs.append(read_probs(self.soft.dir / part_name(n))[inside])
            start += count
        taken = [[number[row] for row in batch] for batch in batches]
        return rows, np.concatenate(probs), taken


@dataclass(frozen=True)
class TrainBaseline(Unit):
    """The same encoder as the classifier's, trained on the labelled rows alone."""

    base: Pretrained
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    labelled: Result
    optimisation: Optimisation
    steps: int
    max_tokens: int
    precision: str
    version = 2
    figure = "loss"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the classifier as transformers does."""
        from pet_pipeline.classifier import Classifier, Labelled

        seed = seed_from("baseline")
        compute = compute.at(self.precision)
        classifier = Classifier.new(
            self.base, self.labels, self.columns, self.max_tokens, seed=seed, compute=compute
        )
        labelled = Labelled(*training_rows([self.labelled], self.labels))
        loss = classifier.tune(labelled, self.optimisation, self.steps, seed=seed, what="baseline")
        classifier.save(out)
        return {"rows": len(labelled.rows), "loss": loss}

    def cost(self) -> float:
        """By the rows of the steps."""
        return LOADING + TUNED * self.steps * self.optimisation.batch_size
