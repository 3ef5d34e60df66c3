"""Measure every PVP, the ensemble, the classifier and the baseline on the test table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.metrics import (
    METRICS,
    Bin,
    CoveragePoint,
    LabelQuality,
    Paired,
    calibration_error,
    confusion,
    coverage_curve,
    label_qualities,
    measure,
    paired,
    reliability,
)
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.from_settings import precision
from pet_pipeline.stages.results import (
    SCORES,
    TABLE,
    Classifiers,
    Generation,
    Inputs,
    need_inputs,
)
from pet_pipeline.tables import COMPRESSION, Floats, labels_of, read_rows, read_scores
from pet_pipeline.texts import shortened
from pet_pipeline.units import Info, Result, Unit

METRICS_FILE = "metrics.json"
PREDICTIONS = "predictions.parquet"
MISTAKES = 20
LONGEST_TEXT = 600  # characters of a mistake's text; the whole text is in the test table


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
    # Of the last generation's ensemble, the classifier and the baseline:
    confusion: list[list[int]] | None = None  # (gold, predicted)
    reliability: list[Bin] | None = None
    coverage: list[CoveragePoint] | None = None
    labels: list[LabelQuality] | None = None


@dataclass(frozen=True)
class Mistake:
    """A test row that got a wrong label."""

    id: str | int
    text: dict[str, str]  # by column; cut if it is long
    gold: str
    predicted: str
    confidence: float  # the probability of the predicted label


@dataclass(frozen=True)
class Metrics:
    """Everything that was measured."""

    metric: str
    labels: list[str]
    test_rows: int
    generations: int
    systems: list[System]
    mistakes: list[Mistake] = field(default_factory=list)  # of the best; most confident first
    against_baseline: Paired | None = None  # the best and the baseline, if it is another

    @property
    def best(self) -> System | None:
        """The system that a run is for: the classifier, else the ensemble, else the baseline."""
        kinds = ("classifier", "ensemble", "baseline")
        return next((found for kind in kinds if (found := self.system(kind))), None)

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
    classifiers: Classifiers | None = None,
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
    unit = Measure(
        labels=task.labels,
        columns=task.columns,
        metric=task.metric,
        test=test,
        generations=scored,
        classifiers=classifiers.by_name() if classifiers else {},
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
    columns: tuple[str, ...]
    metric: str
    test: Result
    generations: tuple[ScoredGeneration, ...]
    classifiers: dict[str, Result] = field(hash=False)
    precision: str
    version = 3
    figure = "classifier"

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
            kind: Classifier(result.dir, compute).predict_proba(rows, f"evaluate {kind}")
            for kind, result in self.classifiers.items()
        }
        for kind, values in classified.items():
            systems.append(self._measured(kind, kind, values, gold, None, detailed=True))
        measured = probs | classified
        detailed = [system.name for system in systems if system.confusion]
        _write_predictions(out / PREDICTIONS, file, self.labels, measured, detailed)
        metrics = Metrics(self.metric, list(self.labels), len(gold), last + 1, systems)
        best = metrics.best
        if best:
            metrics = replace(
                metrics,
                mistakes=self._mistakes(measured[best.name], gold, rows),
                against_baseline=_against_baseline(measured, best, gold),
            )
        write_record(out / METRICS_FILE, metrics)
        return {best.kind: best.value} if best else {}

    def _mistakes(
        self, probs: Floats, gold: list[int], rows: list[dict[str, Any]]
    ) -> list[Mistake]:
        """The wrong rows that a system is surest of; probs: (rows, labels)."""
        confidence, predicted = probs.max(1), probs.argmax(1)
        surest = np.argsort(-confidence, kind="stable")
        wrong = surest[(predicted != np.asarray(gold))[surest]][:MISTAKES].tolist()
        return [
            Mistake(
                id=rows[row]["id"],
                text={
                    column: shortened(rows[row][column], LONGEST_TEXT) for column in self.columns
                },
                gold=self.labels[gold[row]],
                predicted=self.labels[predicted[row]],
                confidence=float(confidence[row]),
            )
            for row in wrong
        ]

    def _systems(
        self, probs: dict[str, Floats], gold: list[int], generation: int, *, detailed: bool
    ) -> Iterator[System]:
        """The PVPs of a generation, their mean, and their ensemble, which is the last of probs."""
        *names, ensemble = probs
        pvps = [
            self._measured("pvp", name, probs[name], gold, generation, detailed=False)
            for name in names
        ]
        yield from pvps
        yield _mean_of(pvps, generation)
        yield self._measured(
            "ensemble", ensemble, probs[ensemble], gold, generation, detailed=detailed
        )

    def _measured(
        self,
        kind: str,
        name: str,
        probs: Floats,
        gold: list[int],
        generation: int | None,
        *,
        detailed: bool,
    ) -> System:
        """One system; in detail, with what the report says of a system by itself."""
        predicted, counts = probs.argmax(1), None
        if detailed:
            counts = confusion(gold, predicted, len(self.labels))
        return System(
            kind=kind,
            name=name,
            generation=generation,
            **asdict(measure(self.metric, gold, predicted, len(self.labels))),
            accuracy=METRICS["accuracy"](gold, predicted),
            f1_macro=METRICS["f1_macro"](gold, predicted),
            calibration_error=calibration_error(probs, gold),
            confusion=counts,
            reliability=reliability(probs, gold) if detailed else None,
            coverage=coverage_curve(probs, gold) if detailed else None,
            labels=label_qualities(counts, self.labels) if counts else None,
        )


def _probabilities(generation: ScoredGeneration) -> Iterator[tuple[str, Floats]]:
    """Probabilities (rows, labels) of each model, then of their ensemble."""
    scores = [read_scores(result.dir / SCORES)[1] for result in generation.scores]
    for name, values in zip(generation.models, scores, strict=True):
        yield name, np.asarray(softmax(values, axis=-1))
    yield "ensemble", read_ensemble(generation.soft).combination.soft_labels(scores)


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


def _against_baseline(probs: dict[str, Floats], best: System, gold: list[int]) -> Paired | None:
    if best.kind == "baseline" or "baseline" not in probs:
        return None
    return paired(gold, probs[best.name].argmax(1), probs["baseline"].argmax(1))


def _write_predictions(
    file: Path,
    test: Path,
    labels: Sequence[str],
    probs: dict[str, Floats],
    detailed: Sequence[str],
) -> None:
    """The test rows' ids and labels, the label that each system predicts, and confidences.

    detailed: the systems whose confidences are written, as NAME_confidence
    """
    table = pq.read_table(test, columns=["id", "label"])
    names = np.asarray(labels, dtype=object)
    for system, values in probs.items():
        table = table.append_column(system, pa.array(names[values.argmax(1)], pa.string()))
    for system in detailed:
        confidence = pa.array(probs[system].max(1), pa.float32())
        table = table.append_column(f"{system}_confidence", confidence)
    pq.write_table(table, file, compression=COMPRESSION)
