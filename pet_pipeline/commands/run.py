"""`pet run`: a pipeline from end to end, and the same options for programs of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.commands.options import (
    LabelColumn,
    ModelName,
    Override,
    SettingsFile,
    TextColumns,
    Verbosity,
    check_task_folder,
    program_name,
    user_errors,
)
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.labelled import task_columns
from pet_pipeline.patterns import load_task
from pet_pipeline.pipeline import Pipeline, pet_full
from pet_pipeline.progress import say
from pet_pipeline.run import OWN_TASK, Run
from pet_pipeline.settings import read_settings, run_folder

RESUME = "run the same command again to resume"

Task = Annotated[
    str | None,
    typer.Option(
        help="Folder of a task and its patterns; none: one is made from the labelled texts."
    ),
]
Labelled = Annotated[str | None, typer.Option(help="Table of labelled texts; none: zero-shot.")]
Pool = Annotated[str | None, typer.Option(help="Table of unlabelled texts; none: baseline alone.")]
Test = Annotated[str | None, typer.Option(help="Labelled table to measure on.")]
Output = Annotated[
    str | None,
    typer.Option(help="Folder of the run.  [default: runs/NAME, of the task or labelled table]"),
]
Jobs = Annotated[int | None, typer.Option(help="Units run at the same time; 0 chooses.")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what is to do, and why; run nothing.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Redo a stage and what depends on it; repeatable."),
]
Only = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE", help="Run this stage alone; refuses if others have to run first."
    ),
]


def runner(pipeline: Pipeline | None) -> Callable[..., None]:
    """The function of a command that runs a pipeline; None is `pet_full`."""

    def run(
        settings_file: SettingsFile = None,
        task: Task = None,
        labelled: Labelled = None,
        pool: Pool = None,
        test: Test = None,
        text_column: TextColumns = None,
        label_column: LabelColumn = None,
        model: ModelName = None,
        output: Output = None,
        override: Override = None,
        plan: Plan = False,
        until: Until = None,
        force: Force = None,
        only: Only = None,
        jobs: Jobs = None,
        verbosity: Verbosity = None,
    ) -> None:
        with user_errors():
            data = {"labelled": labelled, "pool": pool, "test": test}
            given = {"task": task, "model": model, "output": output}
            values: dict[str, Any] = {
                **{name: value for name, value in given.items() if value is not None},
                "data": {name: value for name, value in data.items() if value is not None},
                "machine": {} if jobs is None else {"jobs": jobs},
            }
            if task:
                check_task_folder(Path(task))
            if settings_file is None and not any((task, labelled, pool, test, override)):
                raise UserError(
                    "nothing to run: give a settings file, or --labelled, --pool, and --test and "
                    "--task if you have them; the demo is data/support/demo.toml"
                )
            if text_column or label_column:
                whole = read_settings(settings_file, override or [], over=values)
                columns = _table_names(whole, text_column or [], label_column)
                of_file = read_settings(settings_file, over=values).data.columns
                values["data"]["columns"] = {**of_file, **columns}
            settings = _settings(settings_file, values, override or [])
            chosen = pipeline or pet_full()
            redone = tuple(force or ())
            run_pipeline(chosen, settings, plan=plan, until=until, only=only, force=redone)

    return run


def run_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    *,
    plan: bool,
    until: str | None,
    only: str | None,
    force: tuple[str, ...],
) -> None:
    """Plan a pipeline, run it, and print what came out."""
    from pet_pipeline.show import print_results, print_units, unit_states

    if only and until:
        raise UserError("--only, --until: both say where to stop; give one of them")
    planned = Run.open(settings, plan=True, only=only, force=force)
    pipeline(settings, planned)
    _check_stages(planned, [*force, *filter(None, (until, only))])
    if plan:
        print_units(planned)
        return
    states = [state for _, state, _ in unit_states(planned)]
    done = states.count("done")
    say(f"{settings.output}: {done} units done, {len(states) - done} to do")
    run = Run.open(settings, until=until, only=only, force=force)
    run.expect(planned)
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
    if until or only:
        option = "only" if only else "until"
        say(f"stopped after {only or until}; without --{option} the rest follows")


def _check_stages(run: Run, names: list[str]) -> None:
    known = sorted({unit.stage for unit in run.units})
    folders = {unit.dir.parent.relative_to(run.root).as_posix() for unit in run.units}
    raise_all(
        f"stage {name!r}: no such stage in this run{nearest(name, known)}"
        for name in names
        if name not in {*known, *folders}
    )


def _table_names(settings: Settings, texts: list[str], label: str | None) -> dict[str, str]:
    """What the tables call the task's text columns, in its order, and its label.

    A task that is still to be made gets text columns of these names. Raises `UserError` if there
    are not as many texts as the task has text columns.
    """
    given = [*texts, *([label] if label else [])]
    raise_all(
        f"--text-column, --label-column: {name!r} is given for two columns; name different ones"
        for name in given
        if given.count(name) > 1
    )
    own = run_folder(settings) / OWN_TASK
    folder = settings.task or (own if own.exists() else "")
    columns = load_task(folder).columns if folder else tuple(task_columns(texts))
    if texts and len(texts) != len(columns):
        raise UserError(
            f"--text-column: {len(texts)} given, {listed(texts)}; the task has "
            f"{listed(columns)}: give one for each, in this order"
        )
    return dict(zip(columns, texts, strict=False)) | ({"label": label} if label else {})


def _settings(file: Path | None, values: dict[str, Any], overrides: list[str]) -> Settings:
    settings = read_settings(file, overrides, over=values)
    return settings.model_copy(update={"output": str(run_folder(settings))})
