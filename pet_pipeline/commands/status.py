"""`pet status`: what is done, stale or to do in a run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.commands.options import user_errors
from pet_pipeline.pipeline import planned_run
from pet_pipeline.run import OWN_TASK, Run
from pet_pipeline.units import PlannedUnit, read_record

MEASURED = (
    *("kind", "name", "value", "low", "high"),
    *("accuracy", "f1_macro", "calibration_error"),
)


def status(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Show it as JSON.")] = False,
) -> None:
    """Show what is done, stale or to do in a run, and why."""
    from pet_pipeline.show import print_units

    with user_errors():
        settings, planned = planned_run(run)
        if as_json:
            text = json.dumps(
                _status(planned, settings.task or str(run / OWN_TASK)), indent=1, ensure_ascii=False
            )
            typer.echo(text.encode())  # UTF-8, whatever the terminal has
        else:
            print_units(planned)


def _status(run: Run, task: str) -> dict[str, Any]:
    """What `pet status --json` prints: units with their states, and what was measured."""
    from pet_pipeline.show import unit_states

    states = unit_states(run)
    counts = Counter(state for _, state, _ in states)
    return {
        "run": str(run.root),
        "task": task,
        "counts": {state: counts[state] for state in ("done", "stale", "to do")},
        "units": [_unit(run, unit, state, reason) for unit, state, reason in states],
        "metrics": next(filter(None, (_metrics(unit) for unit, *_ in states)), None),
    }


def _unit(run: Run, unit: PlannedUnit, state: str, reason: str) -> dict[str, Any]:
    """A unit; the seconds it took if it is done, else the reason, or the size of the work."""
    stage = unit.dir.parent.relative_to(run.root).as_posix()
    record = read_record(unit.dir) if state == "done" else None
    return {
        "stage": unit.stage if stage == "." else stage,
        "unit": unit.dir.name,
        "state": state,
        **({"seconds": record["seconds"]} if record else {"reason": reason}),
        "folder": str(unit.dir),
    }


def _metrics(unit: PlannedUnit) -> dict[str, Any] | None:
    """What was measured of the systems of the last generation, if this unit did it."""
    from pet_pipeline.stages.evaluate import METRICS_FILE, read_metrics

    result = unit.result() if unit.stage == "evaluate" else None
    if result is None:
        return None
    metrics = read_metrics(result)
    return {
        "metric": metrics.metric,
        "test_rows": metrics.test_rows,
        "systems": [{name: getattr(s, name) for name in MEASURED} for s in metrics.last_systems()],
        "file": str(result.dir / METRICS_FILE),
    }
