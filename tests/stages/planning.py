"""What the tests of the stages look at: the units of a plan, and the results of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from testing import run

from pet_pipeline import Run, encode, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.patterns import Task
from pet_pipeline.stages.results import Inputs
from pet_pipeline.units import PlannedUnit, Result, read_record

Make = Callable[..., Settings]
# Ends a run with the test table's scores, for tests of what is before.
QUICK: dict[str, Any] = {"distill": {"enabled": False}, "baseline": {"enabled": False}}


def planned(settings: Settings) -> dict[str, PlannedUnit]:
    """The units of a whole run, done or not, as stage/unit."""
    root = Path(settings.output)
    units = run(settings, plan=True).units
    return {unit.dir.relative_to(root).as_posix(): unit for unit in units}


def result(settings: Settings, name: str) -> Result:
    """A finished unit, named as stage/unit."""
    folder = Path(settings.output) / name
    record = read_record(folder)
    assert record is not None, f"{name} is not finished"
    return Result(folder, record["key"], record["info"])


def inputs_of(settings: Settings, run: Run) -> tuple[Task, Inputs]:
    """The task and its encoded tables, in a run that is open."""
    task = load_task(settings.task)
    return task, encode(run, task, prepare(run, task, settings), settings)
