"""The time that is left, from the plan and the units that are finished."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pet_pipeline import schedule
from pet_pipeline.schedule import Schedule
from pet_pipeline.units import Info, PlannedUnit, Result, Unit


@dataclass(frozen=True)
class Costs(Unit):
    """A unit of a cost."""

    rows: float

    def work(self, out: Path, compute: Any) -> Info:
        return {}

    def cost(self) -> float:
        return self.rows


def planned(stage: str, name: str, rows: float) -> PlannedUnit:
    return PlannedUnit(Path(stage) / name, stage, Costs(rows))


@pytest.fixture(autouse=True)
def seconds_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second after the last."""
    clock = itertools.count()
    monkeypatch.setattr(schedule.time, "monotonic", lambda: float(next(clock)))


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "shows_units", lambda: False)


def finish(made: Schedule, unit: PlannedUnit, seconds: float) -> None:
    result = Result(unit.dir, unit.key, {})
    made.finish((unit.stage, unit.dir.name), result, seconds, (1, 1))


def test_the_time_left_runs_down_between_units() -> None:
    one, two = planned("one", "a", 100), planned("two", "b", 1000)
    made = Schedule(1)
    made.expect({("one", "a"): one, ("two", "b"): two})
    assert made.left() == ""
    made.begin("one", {"a": one})
    finish(made, one, 30.0)
    assert made.left() == "about 5 min left in all"
    said = [made.left() for _ in range(400)]
    assert said[100] == "about 3 min left in all"
    assert said[-1] == ""  # it takes longer than was thought


def test_what_a_stage_knows_of_its_units_replaces_the_plan() -> None:
    one, two = planned("one", "a", 100), planned("two", "b", 1000)
    made = Schedule(1)
    made.expect({("one", "a"): one, ("two", "b"): two})
    made.begin("one", {"a": one})
    finish(made, one, 30.0)
    made.begin("two", {"b": planned("two", "b", 100)})
    assert made.left() == "about 30 s left in all"


def test_without_a_plan_nothing_is_said_of_the_time_left() -> None:
    one = planned("one", "a", 100)
    made = Schedule(1)
    made.begin("one", {"a": one, "b": planned("one", "b", 100)})
    finish(made, one, 30.0)
    assert made.left() == ""


def test_a_stage_is_said_when_the_next_begins_and_the_run_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = Schedule(1)
    made.end()
    assert capsys.readouterr().err == ""  # nothing was done
    for stage in ("one", "two"):
        unit = planned(stage, "a", 1)
        made.begin(stage, {"a": unit})
        finish(made, unit, 1.0)
        made.pause()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split() == ["one", "1", "unit", "2.0", "s"]
    made.end()
    second, took = capsys.readouterr().err.splitlines()
    assert second.split() == ["two", "1", "unit", "2.0", "s"]
    assert took.startswith("took ")
    assert took.endswith("one 2.0 s, two 2.0 s, the rest 3.0 s")
