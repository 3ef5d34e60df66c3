"""Measure every PVP, the ensemble, the classifier and the baseline on the test table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.metrics import METRICS, Bin, calibration_error, confusion, measure, reliability
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.from_settings import precision
from pet_pipeline.stages.results import SCORES, TABLE, Generation, Inputs, need_inputs
from pet_pipeline.tables import COMPRESSION, Floats, labels_of, read_rows, read_scores
from pet_pipeline.units import Info, Result, Unit

METRICS_FILE = "metrics.json"
PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class System:
    """What was measured of one system on the test table."""

    kind: str  # pvp, mean, ensemble, classifier, baseline
    name: str
    generation: int | None
    value: float  # of the task's metric
    low: float  # of its 95 % interval; of the mean, the range of the PVPs
    high: float
    accuracy: float
    f1_macro: float
    calibration_error: float
    confusion: list[list[int]] | None = None  # (gold, predicted), of the last generation
    reliability: list[Bin] | None = None


@dataclass(frozen=True)
class Metrics:
    """Everything that was measured."""

    metric: str
    labels: list[str]
    test_rows: int
    generations: int
    systems: list[System]

    def last_systems(self) -> list[System]:
        """The systems of the last generation, and those of none."""
        return [s for s in self.systems if s.generation in (None, self.generations - 1)]

    def system(self, kind: str) -> System | None:
        """The last system of a kind."""
        found = [s for s in self.systems if s.kind == kind]
        return found[-1] if found else None


def evaluate(
    run: Run,
    task: Task,
    generations: Sequence[Generation],
    inputs: Inputs,
    settings: Settings,
    *,
    classifier: Result | None = None,
    baseline: Result | None = None,
) -> Result | None:
    """metrics.json and predictions.parquet of everything trained; None without a test table."""
    test = need_inputs(inputs, "evaluate").tables.test
    if test is None:
        return None
    scored = tuple(
        ScoredGeneration(
            tuple(s.model.name for s in g.scores), tuple(s.tables["test"] for s in g.scores), g.soft
        )
        for g in generations
    )
    classifiers = {"classifier": classifier, "baseline": baseline}
    unit = Measure(
        labels=task.labels,
        metric=task.metric,
        test=test,
        generations=scored,
        classifiers={name: result for name, result in classifiers.items() if result},
        precision=precision(run, settings),
    )
    return run.do("evaluate", {"all": unit})["all"]


def read_metrics(result: Result) -> Metrics:
    """The metrics of an evaluation."""
    return read_record(result.dir / METRICS_FILE, Metrics)


@dataclass(frozen=True)
class ScoredGeneration:
    """The models of a generation, their scores of the test table, and their ensemble."""

    models: tuple[str, ...]
    scores: tuple[Result, ...]
    soft: Result


@dataclass(frozen=True)
class Measure(Unit):
    """Metrics and predictions of every system on the test table."""

    labels: tuple[str, ...]
    metric: str
    test: Result
    generations: tuple[ScoredGeneration, ...]
    classifiers: dict[str, Result] = field(hash=False)
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write metrics.json and predictions.parquet."""
        from pet_pipeline.classifier import Classifier

        file = self.test.dir / TABLE
        gold = labels_of(file, self.labels)
        systems: list[System] = []
        probs: dict[str, Floats] = {}
        last = len(self.generations) - 1
        for number, generation in enumerate(self.generations):
            found = dict(_probabilities(generation))
            systems += self._systems(found, gold, number, detailed=number == last)
            probs = found
        rows, compute = read_rows(file), compute.at(self.precision)
        classified = {
            kind: Classifier.load(result.dir, compute).predict(rows, f"evaluate {kind}")
            for kind, result in self.classifiers.items()
        }
        for kind, values in classified.items():
            systems.append(_measured(kind, kind, values, gold, self.metric, None, detailed=True))
        _write_predictions(out / PREDICTIONS, file, self.labels, probs | classified)
        metrics = Metrics(self.metric, list(self.labels), len(gold), last + 1, systems)
        write_record(out / METRICS_FILE, metrics)
        best = metrics.system("classifier") or metrics.system("ensemble")
        return {best.kind: best.value} if best else {}

    def _systems(
        self, probs: dict[str, Floats], gold: list[int], generation: int, *, detailed: bool
    ) -> Iterator[System]:
        """The PVPs of a generation, their mean, and their ensemble, which is the last of probs."""
        *names, ensemble = probs
        pvps = [
            _measured("pvp", name, probs[name], gold, self.metric, generation, detailed=False)
            for name in names
        ]
        yield from pvps
        yield _mean_of(pvps, generation)
        yield _measured(
            "ensemble", ensemble, probs[ensemble], gold, self.metric, generation, detailed=detailed
        )


def _probabilities(generation: ScoredGeneration) -> Iterator[tuple[str, Floats]]:
    """Probabilities (rows, labels) of each model, then of their ensemble."""
    scores = [read_scores(result.dir / SCORES)[1] for result in generation.scores]
    for name, values in zip(generation.models, scores, strict=True):
        yield name, np.asarray(softmax(values, axis=-1))
    yield "ensemble", read_ensemble(generation.soft).combination.soft_labels(scores)


def _measured(
    kind: str,
    name: str,
    probs: Floats,
    gold: list[int],
    metric: str,
    generation: int | None,
    *,
    detailed: bool,
) -> System:
    """One system; in detail, with what the report's pictures need."""
    predicted, n_labels = probs.argmax(1), probs.shape[1]
    return System(
        kind=kind,
        name=name,
        generation=generation,
        **asdict(measure(metric, gold, predicted, n_labels)),
        accuracy=METRICS["accuracy"](gold, predicted),
        f1_macro=METRICS["f1_macro"](gold, predicted),
        calibration_error=calibration_error(probs, gold),
        confusion=confusion(gold, predicted, n_labels) if detailed else None,
        reliability=reliability(probs, gold) if detailed else None,
    )


def _mean_of(pvps: Sequence[System], generation: int) -> System:
    """The mean PVP of a generation; its interval is the range of the single ones."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    values = [s.value for s in pvps]
    return System(
        kind="mean",
        name="mean of the PVPs",
        generation=generation,
        value=mean(values),
        low=min(values),
        high=max(values),
        accuracy=mean([s.accuracy for s in pvps]),
        f1_macro=mean([s.f1_macro for s in pvps]),
        calibration_error=mean([s.calibration_error for s in pvps]),
    )


def _write_predictions(
    file: Path, test: Path, labels: Sequence[str], probs: dict[str, Floats]
) -> None:
    """The test rows' ids and labels, and for each system the label it predicts."""
    table = pq.read_table(test, columns=["id", "label"])
    names = np.asarray(labels, dtype=object)
    for system, values in probs.items():
        table = table.append_column(system, pa.array(names[values.argmax(1)], pa.string()))
    pq.write_table(table, file, compression=COMPRESSION)
