"""Report data: read from results, in the task's order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_data import CASES, LABELS, report_data, summary

from pet_pipeline.keys import fingerprint
from pet_pipeline.metrics import proportion
from pet_pipeline.models import HubModel, ModelFolder, model_title
from pet_pipeline.records import write_record, write_records
from pet_pipeline.report.data import (
    AddedRows,
    GenerationData,
    HeldOut,
    RunRecords,
    StageTime,
    checked_patterns,
    versions_of,
)
from pet_pipeline.settings import check_settings
from pet_pipeline.stages.check_patterns import PATTERNS
from pet_pipeline.stages.ensemble import ENSEMBLE
from pet_pipeline.units import RECORD, Result


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return Result(tmp_path, "k", {})


def test_patterns_of_several_checks_come_in_the_tasks_order(tmp_path: Path) -> None:
    data = report_data()
    first, second, third = data.patterns
    results = []
    for n, checked in enumerate([[third], [second, first]]):
        (tmp_path / str(n)).mkdir()
        write_records(tmp_path / str(n) / PATTERNS, checked)
        results.append(Result(tmp_path / str(n), "k", {}))
    assert checked_patterns(results, data.task) == [first, second, third]
    assert checked_patterns([], data.task) == []


def test_a_generation_has_its_ensemble_and_what_was_added(result: Result) -> None:
    ensemble = summary(["a-1", "b-1"], LABELS)
    write_record(result.dir / ENSEMBLE, ensemble)
    info = {"rows": 3, "mean_confidence": 0.5, "added": {"sad": 3}}
    added = {"a-1": replace(result, info=info), "b-1": replace(result, info=info | {"short": "x"})}
    assert GenerationData.of(result, added) == GenerationData(
        ensemble,
        {"a-1": AddedRows(3, 0.5, {"sad": 3}, ""), "b-1": AddedRows(3, 0.5, {"sad": 3}, "x")},
    )


def test_versions_are_those_of_packages(result: Result) -> None:
    made_by = {"python": "3.11", "torch": "2.13", "machine": {"threads": 1}}
    (result.dir / RECORD).write_text(json.dumps({"made_by": made_by}))
    assert versions_of(result) == {"python": "3.11", "torch": "2.13"}


def test_versions_of_nothing_are_none(result: Result) -> None:
    assert versions_of(result) == {}


def test_a_model_is_titled_by_its_name_or_folder(tmp_path: Path) -> None:
    assert model_title(HubModel("org/name", "0" * 40)) == "org/name"
    assert model_title(ModelFolder(tmp_path / "tiny")) == "tiny"


def test_models_are_tuned_with_rows_and_steps() -> None:
    data = report_data()
    assert data.tuned
    assert not report_data(labelled=False).tuned
    assert report_data(labelled=False, generations=2).tuned
    assert not replace(data, settings=check_settings({"finetune": {"steps": 0}})).tuned


def test_systems_and_the_metrics_title() -> None:
    data = report_data(metric="f1", labels=("sad", "happy"), generations=2)
    assert data.metric == "f1 of 'happy'"
    ensemble = data.system("ensemble")
    assert ensemble
    assert ensemble.generation == 1
    assert report_data(measured=False).system("ensemble") is None


def test_templates_are_shown_with_the_columns_names() -> None:
    assert report_data(models=1).templates == [("pattern_0", "{text} it was {mask}.")]


def fold(rows: int, accuracy: float = 0.0) -> Result:
    """A fold as `crossfit` describes it; an empty one has no accuracy."""
    figures = {"untuned_accuracy": accuracy / 2, "accuracy": accuracy}
    return Result(Path(), "k", {"rows": rows, **figures} if rows else {"rows": 0})


def test_folds_scored_by_one_model_each_count_every_row() -> None:
    folds = {0: [fold(8, 0.75)], 1: [fold(8, 0.5)], 2: [fold(0)]}
    assert HeldOut.of(folds, 24) == HeldOut(16, 16, proportion(5, 16), proportion(10, 16))


def test_folds_scored_by_several_models_count_each_row_once() -> None:
    folds = {0: [fold(8, 0.75), fold(8, 0.25)], 1: [fold(8, 1.0), fold(8, 1.0)]}
    assert HeldOut.of(folds, 16) == HeldOut(8, 16, proportion(6, 16), proportion(12, 16))


def test_without_folds_nothing_is_known_of_rows_left_out() -> None:
    assert HeldOut.of({}, 16) is None
    assert HeldOut.of({0: [fold(0)]}, 0) is None


def test_times_are_summed_by_stage_and_never_count(tmp_path: Path) -> None:
    folders = []
    for n, seconds in enumerate((1.5, 2.0)):
        folders.append(tmp_path / str(n))
        folders[-1].mkdir()
        (folders[-1] / RECORD).write_text(json.dumps({"seconds": seconds}))
    records = RunRecords({"finetune": tuple(folders), "distill": (tmp_path / "lost",)})
    assert records.times() == [StageTime("finetune", 2, 3.5), StageTime("distill", 1, 0.0)]
    elsewhere = RunRecords({"finetune": (tmp_path / "moved",), "distill": ()})
    assert fingerprint(records) == fingerprint(elsewhere)


def test_the_best_system_and_the_first_mean() -> None:
    kinds = {
        name: best.kind
        for name, case in CASES.items()
        if (best := report_data(**case).best) is not None
    }
    assert kinds["whole"] == "classifier"
    assert kinds["no classifier"] == "ensemble"
    assert kinds["no pool"] == "baseline"
    assert "no test" not in kinds
    mean = report_data(generations=3).first_mean
    assert mean
    assert (mean.kind, mean.generation) == ("mean", 0)
    assert report_data(measured=False).first_mean is None


def test_a_run_without_a_pool_has_no_ensemble() -> None:
    data = report_data(**CASES["no pool"])
    assert data.ensemble is None
    assert data.tuned
