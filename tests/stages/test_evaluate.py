"""What is measured on the test table: every system, as it was written before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from planning import QUICK, Make, planned, result
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from testing import CPU

from pet_pipeline.metrics import calibration_error, label_qualities
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.evaluate import MISTAKES, Measure, Metrics, System, read_metrics
from pet_pipeline.tables import labels_of, read_scores
from pet_pipeline.units import Result

NAMES = ["it_was-1", "just-1", "mood-1"]
DETAILED = ["ensemble", "classifier", "baseline"]
FITTED: dict[str, Any] = {"ensemble": {"weights": "fitted", "folds": 2}, **QUICK}
# Weights that are far apart and models that are sure of it, so that they decide.
APART: dict[str, Any] = {**FITTED, "learning_rate": 0.01, "finetune": {"steps": 12}}


def predictions(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(folder / "predictions.parquet").to_pydict()
    return found


def test_every_system_is_measured(finished: Make) -> None:
    settings = finished()
    evaluated = result(settings, "evaluate/all")
    metrics = read_metrics(evaluated)
    kinds = Counter(system.kind for system in metrics.systems)
    assert kinds == {"pvp": 3, "mean": 1, "ensemble": 1, "classifier": 1, "baseline": 1}
    assert (metrics.metric, metrics.labels) == ("accuracy", ["sad", "happy"])
    assert (metrics.test_rows, metrics.generations) == (8, 1)
    predicted = predictions(evaluated.dir)
    confidences = [f"{name}_confidence" for name in DETAILED]
    assert list(predicted) == ["id", "label", *NAMES, *DETAILED, *confidences]
    gold = predicted["label"]
    for system in metrics.systems:
        if system.kind == "mean":
            continue
        names = predicted[system.name]
        assert system.value == system.accuracy == pytest.approx(accuracy_score(gold, names))
        assert system.f1_macro == pytest.approx(f1_score(gold, names, average="macro"))
        assert system.low <= system.value <= system.high
        detailed = system.kind != "pvp"
        for found in (system.confusion, system.reliability, system.coverage, system.labels):
            assert (found is not None) == detailed
        if detailed:
            expected = confusion_matrix(gold, names, labels=["sad", "happy"]).tolist()
            assert system.confusion == expected
            assert system.labels == label_qualities(expected, ["sad", "happy"])
    classifier = metrics.system("classifier")
    assert classifier is not None
    assert evaluated.info == {"classifier": classifier.value}


def test_confidences_are_those_that_coverage_and_calibration_were_measured_by(
    finished: Make,
) -> None:
    evaluated = result(finished(), "evaluate/all")
    metrics, predicted = read_metrics(evaluated), predictions(evaluated.dir)
    for name in DETAILED:
        system, confidence = metrics.system(name), np.array(predicted[f"{name}_confidence"])
        assert system
        assert system.coverage
        right = np.array(predicted[name]) == np.array(predicted["label"])
        assert system.coverage[0].rows == 8
        for point in system.coverage:
            answered = confidence >= point.threshold
            assert point.rows == answered.sum()
            assert point.accuracy == pytest.approx(right[answered].mean())


def test_the_most_confident_mistakes_are_those_of_the_classifier(finished: Make) -> None:
    settings = finished()
    evaluated = result(settings, "evaluate/all")
    metrics, predicted = read_metrics(evaluated), predictions(evaluated.dir)
    rows = pq.read_table(Path(settings.output) / "prepare/test/table.parquet").to_pylist()
    wrong = [
        (confidence, row["id"], row["text"], gold, name)
        for row, gold, name, confidence in zip(
            rows,
            predicted["label"],
            predicted["classifier"],
            predicted["classifier_confidence"],
            strict=True,
        )
        if gold != name
    ]
    assert wrong
    wrong.sort(key=lambda mistake: -mistake[0])
    found = [(m.confidence, m.id, m.text["text"], m.gold, m.predicted) for m in metrics.mistakes]
    assert [m[1:] for m in found] == [m[1:] for m in wrong]
    assert [m[0] for m in found] == pytest.approx([m[0] for m in wrong])
    assert metrics.best == metrics.system("classifier")


def test_mistakes_are_few_and_their_texts_not_long(finished: Make) -> None:
    unit = planned(finished())["evaluate/all"].unit
    assert isinstance(unit, Measure)
    probs = np.tile([0.3, 0.7], (30, 1))
    probs[7] = [0.1, 0.9]
    rows = [{"id": n, "text": "word " * 200} for n in range(30)]
    found = unit._mistakes(probs, [1] * 5 + [0] * 25, rows)
    assert len(found) == MISTAKES
    assert [m.id for m in found[:3]] == [7, 5, 6]  # then in the table's order
    assert len(found[0].text["text"]) == 600
    assert found[0].text["text"].endswith("…")
    assert (found[0].gold, found[0].predicted, found[0].confidence) == ("sad", "happy", 0.9)


def test_the_classifier_is_compared_with_the_baseline_row_by_row(finished: Make) -> None:
    evaluated = result(finished(), "evaluate/all")
    metrics, predicted = read_metrics(evaluated), predictions(evaluated.dir)
    pairs = zip(predicted["label"], predicted["classifier"], predicted["baseline"], strict=True)
    outcomes = Counter((gold == one, gold == other) for gold, one, other in pairs)
    assert metrics.against_baseline
    assert metrics.against_baseline.gained == outcomes[True, False]
    assert metrics.against_baseline.lost == outcomes[False, True]
    assert read_metrics(result(finished(**FITTED), "evaluate/all")).against_baseline is None


def test_without_generations_the_baseline_is_measured_alone(finished: Make, tmp_path: Path) -> None:
    unit = planned(finished())["evaluate/all"].unit
    assert isinstance(unit, Measure)
    classifiers = {"baseline": unit.classifiers["baseline"]}
    info = replace(unit, generations=(), classifiers=classifiers).work(tmp_path, CPU)
    metrics = read_metrics(Result(tmp_path, "", {}))
    assert [s.kind for s in metrics.last_systems()] == ["baseline"]
    assert metrics.best
    assert info == {"baseline": metrics.best.value}
    assert list(predictions(tmp_path)) == ["id", "label", "baseline", "baseline_confidence"]


def test_the_mean_pvp_is_the_mean_of_the_pvps(finished: Make) -> None:
    metrics = read_metrics(result(finished(), "evaluate/all"))
    pvps, mean = [s for s in metrics.systems if s.kind == "pvp"], metrics.system("mean")
    assert mean is not None
    for name in ("value", "accuracy", "f1_macro", "calibration_error"):
        assert getattr(mean, name) == pytest.approx(np.mean([getattr(s, name) for s in pvps]))
    assert (mean.low, mean.high) == (min(s.value for s in pvps), max(s.value for s in pvps))


def test_the_ensemble_is_measured_with_the_combination_that_was_written(finished: Make) -> None:
    settings = finished(**APART)
    root = Path(settings.output)
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    scores = [
        read_scores(root / f"gen-0/annotate/{name}-test/scores.parquet")[1]
        for name in summary.models
    ]
    probs = summary.combination.soft_labels(scores)
    evaluated = result(settings, "evaluate/all")
    names = [("sad", "happy")[n] for n in probs.argmax(1)]
    assert predictions(evaluated.dir)["ensemble"] == names
    ensemble = read_metrics(evaluated).system("ensemble")
    assert ensemble is not None
    gold = labels_of(root / "prepare/test/table.parquet", ("sad", "happy"))
    assert ensemble.calibration_error == pytest.approx(calibration_error(probs, gold))
    assert summary.temperature != 1.0  # which the calibration error depends on


def test_another_combination_changes_the_ensemble_and_nothing_else(
    finished: Make, tmp_path: Path
) -> None:
    settings = finished(**APART)
    unit = planned(settings)["evaluate/all"].unit
    assert isinstance(unit, Measure)
    before = predictions(result(settings, "evaluate/all").dir)
    assert before[NAMES[0]] != before[NAMES[1]] != before[NAMES[2]]
    (generation,) = unit.generations
    for n, name in enumerate(NAMES):
        soft = tmp_path / name / "soft"
        shutil.copytree(generation.soft.dir, soft)
        written = json.loads((soft / "ensemble.json").read_text())
        written["weights"] = [float(n == m) for m in range(3)]
        (soft / "ensemble.json").write_text(json.dumps(written))
        changed = replace(generation, soft=Result(soft, "", {}))
        replace(unit, generations=(changed,)).work(tmp_path / name, CPU)
        after = predictions(tmp_path / name)
        assert after["ensemble"] == after[name] == before[name]
        own = ("ensemble", "ensemble_confidence")
        assert {**after, **{column: before[column] for column in own}} == before


def test_without_a_classifier_and_without_a_baseline(finished: Make) -> None:
    evaluated = result(finished(**FITTED), "evaluate/all")
    metrics = read_metrics(evaluated)
    assert [system.kind for system in metrics.systems] == ["pvp"] * 3 + ["mean", "ensemble"]
    ensemble = metrics.system("ensemble")
    assert ensemble is not None
    assert evaluated.info == {"ensemble": ensemble.value}
    assert metrics.system("classifier") is None


def test_nothing_is_measured_without_a_test_table(tiny_settings: Make) -> None:
    assert "evaluate/all" in planned(tiny_settings())
    assert "evaluate/all" not in planned(tiny_settings(data={"test": ""}))


def test_the_systems_of_the_last_generation(tiny_settings: Make) -> None:
    def system(kind: str, generation: int | None, value: float) -> System:
        numbers = {"low": 0.0, "high": 1.0, "accuracy": 0.5, "f1_macro": 0.5}
        return System(kind, f"{kind}-{value}", generation, value, **numbers, calibration_error=0.1)

    systems = [
        *(system(kind, n, n / 4) for n in range(3) for kind in ("pvp", "mean", "ensemble")),
        system("classifier", None, 0.9),
    ]
    metrics = Metrics("accuracy", ["a", "b"], 8, 3, systems)
    assert metrics.last_systems() == systems[-4:]
    assert metrics.system("ensemble") == systems[-2]
    assert metrics.system("baseline") is None


def test_generations_are_measured_in_their_order(finished: Make) -> None:
    settings = finished(ipet={"generations": 2, "scale": 1.5}, data={"k": 2}, **QUICK)
    evaluated = result(settings, "evaluate/all")
    metrics = read_metrics(evaluated)
    assert metrics.generations == 3
    assert [s.generation for s in metrics.systems if s.kind == "ensemble"] == [0, 1, 2]
    assert [s.generation for s in metrics.systems if s.kind == "pvp"] == [0] * 3 + [1] * 3 + [2] * 3
    detailed = [s for s in metrics.systems if s.confusion is not None]
    assert [(s.kind, s.generation) for s in detailed] == [("ensemble", 2)]
    names = [s.name for s in metrics.last_systems() if s.kind != "mean"]
    assert list(predictions(evaluated.dir)) == ["id", "label", *names, "ensemble_confidence"]
    last = Path(settings.output) / "gen-2/annotate/just-1-test/scores.parquet"
    expected = [("sad", "happy")[n] for n in read_scores(last)[1].argmax(1)]
    assert predictions(evaluated.dir)["just-1"] == expected
