"""Measure every PVP, the ensemble, the classifier and the baseline on the test table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from pet_pipeline.config import Machine
from pet_pipeline.data import COMPRESSION, Floats, read_rows, read_scores
from pet_pipeline.metrics import METRICS, calibration_error, confusion, measure, reliability
from pet_pipeline.patterns import Task
from pet_pipeline.pooling import pool_scores
from pet_pipeline.run import Result, Run
from pet_pipeline.stages.ensemble import read_weights
from pet_pipeline.stages.results import SCORES, TABLE, Generation, Tables, labels_of

METRICS_FILE = "metrics.json"
PREDICTIONS = "predictions.parquet"


def evaluate(
    run: Run,
    task: Task,
    generations: Sequence[Generation],
    tables: Tables,
    *,
    classifier: Result | None = None,
    baseline: Result | None = None,
) -> Result | None:
    """metrics.json and predictions.parquet of everything trained; None without a test table."""
    if tables.test is None:
        return None
    call = {
        "labels": task.labels,
        "metric": task.metric,
        "test": tables.test,
        "generations": [
            {
                "models": [[s.model.name, s.model.pattern.name, s.model.seed] for s in g.scores],
                "scores": [s.extra["test"] for s in g.scores],
                "soft": g.soft,
            }
            for g in generations
        ],
        "classifier": classifier,
        "baseline": baseline,
    }
    return run.do("evaluate", _evaluate, {"all": call})[0]


def read_metrics(result: Result) -> dict[str, Any]:
    """The metrics of an evaluation."""
    found: dict[str, Any] = json.loads((result.dir / METRICS_FILE).read_text("utf-8"))
    return found


def _evaluate(
    out: Path,
    machine: Machine,
    *,
    labels: tuple[str, ...],
    metric: str,
    test: Result,
    generations: list[dict[str, Any]],
    classifier: Result | None,
    baseline: Result | None,
) -> dict[str, Any]:
    file = test.dir / TABLE
    gold = labels_of(file, labels)
    systems: list[dict[str, Any]] = []
    probs: dict[str, Floats] = {}

    def add(kind: str, name: str, found: Floats, generation: int | None = None) -> None:
        last = generation in (None, len(generations) - 1)
        if last:
            probs[name] = found
        systems.append(_measured(kind, name, found, gold, metric, generation, detailed=last))

    for number, generation in enumerate(generations):
        scores = [read_scores(result.dir / SCORES)[1] for result in generation["scores"]]
        for (name, *_), values in zip(generation["models"], scores, strict=True):
            add("pvp", name, np.asarray(softmax(values, axis=-1)), number)
        systems.append(_mean_of(systems, number))
        weights = read_weights(generation["soft"])
        pooled = pool_scores(scores, weights["weights"], weights["temperature"])
        add("ensemble", "ensemble", pooled, number)
    rows = read_rows(file)
    for kind, result in (("classifier", classifier), ("baseline", baseline)):
        if result is not None:
            from pet_pipeline.classifier import Classifier

            add(kind, kind, Classifier(result.dir, machine).predict(rows, f"evaluate {kind}"))
    _write_predictions(out / PREDICTIONS, file, labels, probs)
    report = {
        "metric": metric,
        "labels": list(labels),
        "test_rows": len(gold),
        "generations": len(generations),
        "systems": systems,
    }
    (out / METRICS_FILE).write_text(json.dumps(report, indent=1), "utf-8")
    best = next(s for s in reversed(systems) if s["kind"] in ("classifier", "ensemble"))
    return {best["kind"]: best["value"]}


def _measured(
    kind: str,
    name: str,
    probs: Floats,
    gold: list[int],
    metric: str,
    generation: int | None,
    *,
    detailed: bool,
) -> dict[str, Any]:
    """One line of the results; in detail, with what the report's pictures need."""
    predicted = probs.argmax(1)
    line: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "generation": generation,
        **asdict(measure(metric, gold, predicted)),
        "accuracy": METRICS["accuracy"](gold, predicted),
        "f1_macro": METRICS["f1_macro"](gold, predicted),
        "calibration_error": calibration_error(probs, gold),
    }
    if detailed and kind != "pvp":
        line["confusion"] = confusion(gold, predicted, probs.shape[1])
        line["reliability"] = [asdict(b) for b in reliability(probs, gold)]
    return line


def _mean_of(systems: list[dict[str, Any]], generation: int) -> dict[str, Any]:
    """The mean PVP of a generation; its interval is the range of the single ones."""
    pvps = [s for s in systems if s["kind"] == "pvp" and s["generation"] == generation]
    numbers = ("value", "accuracy", "f1_macro", "calibration_error")
    means = {key: float(np.mean([s[key] for s in pvps])) for key in numbers}
    values = [s["value"] for s in pvps]
    mean = {"kind": "mean", "name": "mean of the PVPs", "generation": generation, **means}
    return {**mean, "low": min(values), "high": max(values)}


def _write_predictions(
    file: Path, test: Path, labels: Sequence[str], probs: dict[str, Floats]
) -> None:
    """The test rows' ids and labels, and for each system the label it predicts."""
    table = pq.read_table(test, columns=["id", "label"])
    names = np.asarray(labels, dtype=object)
    for system, values in probs.items():
        table = table.append_column(system, pa.array(names[values.argmax(1)], pa.string()))
    pq.write_table(table, file, compression=COMPRESSION)
