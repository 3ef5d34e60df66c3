"""`pet run`: a pipeline from end to end, and the same options for programs of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.commands.options import (
    ModelName,
    Override,
    SettingsFile,
    check_task_folder,
    program_name,
    user_errors,
)
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.pipeline import Pipeline, pet_full
from pet_pipeline.progress import say
from pet_pipeline.run import Run
from pet_pipeline.settings import read_settings

RESUME = "run the same command again to resume"

Task = Annotated[str | None, typer.Option(help="Folder of the task and its patterns.")]
Labelled = Annotated[str | None, typer.Option(help="Table of labelled texts; none: zero-shot.")]
Pool = Annotated[str | None, typer.Option(help="Table of unlabelled texts.")]
Test = Annotated[str | None, typer.Option(help="Labelled table to measure on.")]
Output = Annotated[str | None, typer.Option(help="Folder of the run.  [default: runs/<task>]")]
Jobs = Annotated[int | None, typer.Option(help="Units run at the same time.")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what is to do, and why; run nothing.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Redo a stage and what depends on it; repeatable."),
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Redo a stage and stop after it.")]


def runner(pipeline: Pipeline | None) -> Callable[..., None]:
    """The function of a command that runs a pipeline; None is `pet_full`."""

    def run(
        settings_file: SettingsFile = None,
        task: Task = None,
        labelled: Labelled = None,
        pool: Pool = None,
        test: Test = None,
        model: ModelName = None,
        output: Output = None,
        override: Override = None,
        plan: Plan = False,
        until: Until = None,
        force: Force = None,
        only: Only = None,
        jobs: Jobs = None,
    ) -> None:
        with user_errors():
            data = {"labelled": labelled, "pool": pool, "test": test}
            given = {"task": task, "model": model, "output": output}
            values = {
                **{name: value for name, value in given.items() if value is not None},
                "data": {name: value for name, value in data.items() if value is not None},
                "machine": {} if jobs is None else {"jobs": jobs},
            }
            if task:
                check_task_folder(Path(task))
            if settings_file is None and not any((task, labelled, pool, test, override)):
                raise UserError(
                    "nothing to run: give a settings file, or --task, --labelled, --pool and "
                    "--test; the demo is data/support/demo.toml"
                )
            settings = _settings(settings_file, values, override or [])
            redone = tuple(force or ()) + ((only,) if only else ())
            run_pipeline(
                pipeline or pet_full(), settings, plan=plan, until=until or only, force=redone
            )

    return run


def run_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    *,
    plan: bool,
    until: str | None,
    force: tuple[str, ...],
) -> None:
    """Plan a pipeline, run it, and print what came out."""
    from pet_pipeline.show import print_results, print_units, unit_states

    planned = Run.open(settings, plan=True, force=force)
    pipeline(settings, planned)
    _check_stages(planned, [*force, *([until] if until else [])])
    if plan:
        print_units(planned)
        return
    states = [state for _, state, _ in unit_states(planned)]
    done = states.count("done")
    say(f"{settings.output}: {done} units done, {len(states) - done} to do")
    run = Run.open(settings, until=until, force=force)
    try:
        with run:
            pipeline(settings, run)
    except UserError:
        say(f"stopped; finished units are kept: correct what is said below, then {RESUME}")
        raise
    except BaseException:
        say(f"stopped; {RESUME}")
        raise
    print_results(run, program_name())
    if until:
        say(f"stopped after {until}; without --until the rest follows")


def _check_stages(run: Run, names: list[str]) -> None:
    known = sorted({unit.stage for unit in run.units})
    folders = {unit.dir.parent.relative_to(run.root).as_posix() for unit in run.units}
    raise_all(
        f"stage {name!r}: no such stage in this run{nearest(name, known)}"
        for name in names
        if name not in {*known, *folders}
    )


def _settings(file: Path | None, values: dict[str, Any], overrides: list[str]) -> Settings:
    settings = read_settings(file, overrides, over=values)
    if "output" not in settings.model_fields_set:
        name = Path(settings.task).resolve().name
        settings = settings.model_copy(update={"output": f"runs/{name}"})
    return settings
