"""`pet status --json`: what a program sees of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testing import run as run_pipeline
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.config import Settings
from pet_pipeline.records import write_record
from pet_pipeline.run import Run
from pet_pipeline.stages.evaluate import METRICS_FILE, Metrics, System
from pet_pipeline.units import Info, Unit

Make = Callable[..., Settings]


def status(folder: Path) -> dict[str, Any]:
    ended = CliRunner().invoke(app, ["status", str(folder), "--json"])
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_units_have_a_state_and_seconds_or_a_reason(tiny_settings: Make, tmp_path: Path) -> None:
    settings = tiny_settings()
    run_pipeline(settings, until="prepare")
    found = status(tmp_path / "run")
    assert (found["run"], found["task"]) == (settings.output, settings.task)
    assert found["metrics"] is None
    states = [unit["state"] for unit in found["units"]]
    assert found["counts"] == {name: states.count(name) for name in ("done", "stale", "to do")}
    assert sum(found["counts"].values()) == len(states)
    units = {(unit["stage"], unit["unit"]): unit for unit in found["units"]}
    done = units["prepare", "labelled"]
    assert list(done) == ["stage", "unit", "state", "seconds", "folder"]
    assert (done["state"], done["folder"]) == ("done", f"{settings.output}/prepare/labelled")
    assert done["seconds"] > 0
    waiting = units["distill", "classifier"]
    assert (waiting["state"], waiting["reason"]) == ("to do", "4 steps")
    assert ("gen-0/finetune", "mood-1") in units


@dataclass(frozen=True)
class Measured(Unit):
    """Metrics made by hand."""

    metrics: Metrics

    def work(self, out: Path, compute: Any) -> Info:
        """Write metrics.json."""
        write_record(out / METRICS_FILE, self.metrics)
        return {}


def test_metrics_are_those_of_the_last_generation(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = [
        System(kind, kind, generation, 0.75, 0.5, 0.9, 0.7, 0.6, 0.1)
        for kind, generation in (("ensemble", 0), ("ensemble", 1), ("classifier", None))
    ]
    metrics = Metrics("f1", ["sad", "happy"], test_rows=60, generations=2, systems=systems)

    def pipeline(settings: Settings, run: Run) -> None:
        run.do("evaluate", {"all": Measured(metrics)})

    monkeypatch.setattr("pet_pipeline.pipeline.pet_full", lambda: pipeline)
    settings = tiny_settings()
    with Run.open(settings, plan=True) as planned:
        pipeline(settings, planned)
    (tmp_path / "run").mkdir()
    with Run.open(settings) as opened:
        pipeline(settings, opened)
    found = status(tmp_path / "run")["metrics"]
    numbers = {
        "value": 0.75,
        "low": 0.5,
        "high": 0.9,
        "accuracy": 0.7,
        "f1_macro": 0.6,
        "calibration_error": 0.1,
    }
    assert found == {
        "metric": "f1",
        "test_rows": 60,
        "systems": [{"kind": kind, "name": kind, **numbers} for kind in ("ensemble", "classifier")],
        "file": f"{settings.output}/evaluate/all/metrics.json",
    }
