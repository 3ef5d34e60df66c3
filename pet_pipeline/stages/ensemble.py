"""The models' scores become one soft label per row of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pet_pipeline.combining import (
    WEIGHTINGS,
    Combination,
    Evidence,
    expected_accuracy,
    fit_temperature,
    pairwise_agreement,
)
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.stages.crossfit import crossfit, crossfit_in_turn
from pet_pipeline.stages.pool_summary import DisputedRow, Histogram, PoolSummary
from pet_pipeline.stages.results import (
    FROM_POOL,
    SCORES,
    TABLE,
    Inputs,
    Scores,
    need_inputs,
    sample_shards,
)
from pet_pipeline.tables import Floats, labels_of, part_name, read_scores, write_soft_labels
from pet_pipeline.units import Info, Result, Unit

ENSEMBLE = "ensemble.json"
SAMPLE_ROWS = 20_000  # of the pool, on which the temperature is fitted


def ensemble(
    run: Run,
    task: Task,
    scores: Sequence[Scores],
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int = 0,
    added: dict[str, Result] | None = None,
) -> Result:
    """Soft labels of the pool, with the weights and the temperature they are made with.

    added: by model, the rows that `grow` labelled for it in this generation
    """
    tables, chosen = need_inputs(inputs, "ensemble").tables, settings.ensemble
    held_out: Mapping[str, tuple[Result, ...]] = {}
    gold = None
    if WEIGHTINGS[chosen.weights].needs == "held_out":
        if chosen.fit_on == "folds":
            folds = crossfit(run, task, inputs, settings, generation=generation, added=added)
            held_out = {s.model.name: folds[s.model.pattern.name] for s in scores}
            gold = tables.labelled
        else:
            held_out = {s.model.name: (s.tables["development"],) for s in scores}
            gold = tables.development
    in_turn: tuple[Result, ...] = ()
    if not held_out and not chosen.temperature:
        in_turn = crossfit_in_turn(run, task, inputs, settings, generation=generation, added=added)
    members = tuple(
        Member(s.model.name, s.model.result, s.shards, held_out.get(s.model.name, ()))
        for s in scores
    )
    unit = Combine(
        labels=task.labels,
        columns=task.columns,
        pool=tables.need_pool("ensemble"),
        members=members,
        weighting=chosen.weights,
        gold=gold,
        temperature=chosen.temperature,
        in_turn=in_turn,
        labelled=tables.labelled if in_turn else None,
    )
    return run.do(f"gen-{generation}/ensemble", {"all": unit})["all"]


@dataclass(frozen=True)
class Member:
    """A model of an ensemble, and what it says.

    held_out: scores of rows it was not tuned on, in one result or in folds; models with the same
    folds share a weight
    """

    name: str
    model: Result
    shards: tuple[Result, ...]
    held_out: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Expectation:
    """The accuracy that is expected of an ensemble on the pool, and what says so."""

    accuracy: float | None = None  # None: the temperature was given, or fitted with the weights
    agreement: float | None = None  # of two models, in the mean
    correct: int = 0  # of the held-out rows
    held_out_rows: int = 0


@dataclass(frozen=True)
class EnsembleSummary:
    """An ensemble: its models, how they are combined, and how the pool came out."""

    models: list[str]
    weights: list[float]  # sum to 1
    temperature: float
    rows: int
    agreement: list[list[float]]
    label_counts: dict[str, int]
    label_mass: dict[str, float]
    entropy: Histogram
    disputed: list[DisputedRow]
    expected: Expectation = Expectation()

    @property
    def combination(self) -> Combination:
        """What makes soft labels of the models' scores."""
        return Combination(tuple(self.weights), self.temperature)


def read_ensemble(soft: Result) -> EnsembleSummary:
    """What an ensemble knows of itself."""
    return read_record(soft.dir / ENSEMBLE, EnsembleSummary)


@dataclass(frozen=True)
class Combine(Unit):
    """Soft labels of the pool, from the scores of several models."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    pool: Result
    members: tuple[Member, ...]
    weighting: str  # a key of WEIGHTINGS
    gold: Result | None = None  # the table of the held-out scores
    temperature: float = 0.0  # 0 fits it
    in_turn: tuple[Result, ...] = ()  # folds of the labelled rows, each scored by one model
    labelled: Result | None = None  # the table of the folds
    version = 2
    figure = "mean_confidence"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write part-00000.parquet and so on, in pool order, and ensemble.json."""
        combination, expected = self._with_temperature(self._combination())
        summary = PoolSummary(len(self.members), self.labels)
        for n in range(len(self.members[0].shards)):
            read = [read_scores(member.shards[n].dir / SCORES) for member in self.members]
            stacked = np.stack([values for _, values in read])
            probs = combination.soft_labels(list(stacked))
            write_soft_labels(out / part_name(n), read[0][0], probs, self.labels)
            summary.add(stacked, probs, n)
        total = float(sum(combination.weights))
        write_record(
            out / ENSEMBLE,
            EnsembleSummary(
                models=[member.name for member in self.members],
                weights=[weight / total for weight in combination.weights],
                temperature=combination.temperature,
                rows=summary.rows,
                agreement=summary.agreement,
                label_counts=summary.label_counts,
                label_mass=summary.label_mass,
                entropy=summary.entropies,
                disputed=summary.disputed(self.pool, self.columns),
                expected=expected,
            ),
        )
        return {
            "rows": summary.rows,
            "mean_confidence": summary.mean_confidence,
            "temperature": combination.temperature,
        }

    def _with_temperature(self, combination: Combination) -> tuple[Combination, Expectation]:
        """A combination whose mean confidence on the pool is the accuracy to be expected there."""
        if self.temperature:
            return replace(combination, temperature=self.temperature), Expectation()
        if WEIGHTINGS[self.weighting].needs == "held_out":
            return combination, Expectation()
        scores = self._pool_sample()
        agreement = pairwise_agreement(scores)
        correct, rows = self._out_of_fold()
        held_out = 1 / max(1, len(self.in_turn))
        accuracy = expected_accuracy(
            agreement, correct, rows, n_labels=len(self.labels), fraction=held_out
        )
        expected = Expectation(accuracy, agreement, correct, rows)
        if accuracy is None or not scores.shape[1]:
            return combination, expected
        mean = combination.mean_scores(list(scores))
        return replace(combination, temperature=fit_temperature(mean, accuracy)), expected

    def _pool_sample(self) -> Floats:
        """Scores (models, rows, labels) of a sample of the pool."""
        sizes = [int(shard.info["rows"]) for shard in self.members[0].shards]
        samples = sample_shards(sizes, SAMPLE_ROWS, "temperature")
        scores = [
            [read_scores(member.shards[n].dir / SCORES)[1][rows] for member in self.members]
            for n, rows in enumerate(samples)
        ]
        return np.concatenate([np.stack(shard) for shard in scores], axis=1)

    def _out_of_fold(self) -> tuple[int, int]:
        """How many of the held-out rows are right, and their number.

        A row that is the only one of its label is not counted: no model has seen the label. Nor are
        rows that `pet label-next` chose, because models disagree on them more than on others.
        """
        if self.labelled is None:
            return 0, 0
        file = self.labelled.dir / TABLE
        gold = np.array(labels_of(file, self.labels))
        several = np.bincount(gold, minlength=len(self.labels))[gold] > 1
        ids = pq.read_table(file, columns=["id"])["id"].to_pylist()
        at_random = np.array([not str(row_id).startswith(FROM_POOL) for row_id in ids])
        counted_rows = several & at_random
        right = total = 0
        for result in (result for result in self.in_turn if result.info["rows"]):
            numbers, scores = read_scores(result.dir / SCORES)
            rows = numbers.to_numpy()
            counted = counted_rows[rows]
            right += int((scores.argmax(-1) == gold[rows])[counted].sum())
            total += int(counted.sum())
        return right, total

    def _combination(self) -> Combination:
        """Weights and temperature by what is known of the models."""
        weighting = WEIGHTINGS[self.weighting]
        if weighting.needs != "held_out" or self.gold is None:
            accuracies = [m.model.info.get("untuned_accuracy", 0.0) for m in self.members]
            return weighting.fit(Evidence(tuple(accuracies)))
        own = [member.held_out for member in self.members]
        groups = list(dict.fromkeys(own))
        held_out = np.stack([_held_out(group) for group in groups])
        gold = tuple(labels_of(self.gold.dir / TABLE, self.labels))
        fitted = weighting.fit(Evidence((0.0,) * len(groups), held_out, gold))
        weights = [fitted.weights[groups.index(group)] / own.count(group) for group in own]
        return Combination(tuple(weights), fitted.temperature)


def _held_out(results: Sequence[Result]) -> Floats:
    """Scores (rows, labels) in the order of their table; folds name rows by their number."""
    if len(results) == 1:
        return read_scores(results[0].dir / SCORES)[1]
    rows: list[int] = []
    values: list[Floats] = []
    for result in (result for result in results if result.info["rows"]):
        numbers, scores = read_scores(result.dir / SCORES)
        rows += numbers.to_pylist()
        values.append(scores)
    return np.asarray(np.concatenate(values)[np.argsort(rows)])
