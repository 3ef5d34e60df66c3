"""The command line: pet run | status | patterns | predict | config, and your own programs."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, at_place, nearest, raise_all
from pet_pipeline.progress import say
from pet_pipeline.run import CONFIG, Run
from pet_pipeline.settings import read_settings, write_settings

Pipeline = Callable[[Settings, Run], object]

RESUME = "run the same command again to resume"
TABLE_OPTION: Any = {"labelled": False, "place": "--table", "mapping": "--column COLUMN=NAME"}

File = Annotated[Path | None, typer.Argument(metavar="[SETTINGS.toml]", help="Settings file.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
]
Task = Annotated[str | None, typer.Option(help="Folder of the task and its patterns.")]
Labelled = Annotated[str | None, typer.Option(help="Table of labelled texts; none: zero-shot.")]
Pool = Annotated[str | None, typer.Option(help="Table of unlabelled texts.")]
Test = Annotated[str | None, typer.Option(help="Labelled table to measure on.")]
ModelName = Annotated[str | None, typer.Option(help="Masked LM: folder, hub name, NAME@REVISION.")]
Output = Annotated[str | None, typer.Option(help="Folder of the run.  [default: runs/<task>]")]
Jobs = Annotated[int | None, typer.Option(help="Units run at the same time.")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what is to do, and why; run nothing.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Redo a stage and what depends on it; repeatable."),
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Redo a stage and stop after it.")]

app = typer.Typer(
    help="Few labels and a pool of unlabelled text in, a text classifier out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(pipeline: Pipeline) -> None:
    """Make a program of a pipeline: read the command line, run it, show what came out.

    Exits with 2 after a mistake of the user's, with 1 and a traceback after one of ours.
    """
    program = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    program.command(help=pipeline.__doc__)(_runner(pipeline))
    program()


def main() -> None:
    """The `pet` command."""
    app()


def _runner(pipeline: Pipeline | None) -> Callable[..., None]:
    def run(
        settings_file: File = None,
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
        with _for_people():
            data = {"labelled": labelled, "pool": pool, "test": test}
            given = {"task": task, "model": model, "output": output}
            values = {
                **{name: value for name, value in given.items() if value is not None},
                "data": {name: value for name, value in data.items() if value is not None},
                "machine": {} if jobs is None else {"jobs": jobs},
            }
            if task:
                _check_task_folder(Path(task))
            if settings_file is None and not any((task, labelled, pool, test, override)):
                raise UserError(
                    "nothing to run: give a settings file, or --task, --labelled, --pool and "
                    "--test; the demo is data/support/demo.toml"
                )
            settings = _settings(settings_file, values, override or [])
            redone = tuple(force or ()) + ((only,) if only else ())
            _run(pipeline or _pet_full(), settings, plan=plan, until=until or only, force=redone)

    return run


app.command("run", help="Run the pipeline end to end; finished units are not run again.")(
    _runner(None)
)


@app.command()
def status(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Show what is done, stale or to do in a run, and why."""
    from pet_pipeline.show import print_units

    with _for_people():
        if not (run / CONFIG).exists():
            raise UserError(f"{run}: not a run (no {CONFIG}); name the folder that --output named")
        settings = read_settings(run / CONFIG).model_copy(update={"output": str(run)})
        planned = Run.open(settings, plan=True)
        _pet_full()(settings, planned)
        print_units(planned)


@app.command()
def patterns(
    folder: Annotated[Path, typer.Argument(help="Folder of a task.")],
    model: ModelName = None,
    table: Annotated[str | None, typer.Option(help="Table whose rows are shown.")] = None,
    prior: Annotated[
        bool,
        typer.Option("--prior", help="Show the untuned label prior; needs --model and --table."),
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="A column and its name in the table; repeatable."),
    ] = None,
) -> None:
    """Check a task's patterns; show them on rows, with their tokens."""
    from pet_pipeline.patterns import load_task
    from pet_pipeline.show import print_patterns
    from pet_pipeline.sources import check_source, find_source, read_batches

    with _for_people():
        _check_task_folder(folder)
        task = load_task(folder)
        names = _mapping(column or [], task.columns)
        rows: list[dict[str, Any]] = [{c: f"<{c}>" for c in task.columns}]
        if prior and not (model and table):
            raise UserError(
                "--prior: needs --model and --table; it is the model's view of the rows"
            )
        if table:
            raise_all(check_source(table, task.columns, names, **TABLE_OPTION))
            with at_place(TABLE_OPTION["place"]):
                batch = next(read_batches(find_source(table), task.columns, names, None), None)
            rows = batch.slice(0, 200).to_pylist() if batch is not None else rows
        if not model:
            print_patterns(task, rows[:2], {})
            return
        from pet_pipeline.describe import describe_patterns

        print_patterns(task, rows[:2], describe_patterns(task, model, rows, prior=prior))


@app.command()
def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder of a classifier.")],
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text; repeatable.")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text, for pairs.")] = None,
    table: Annotated[str | None, typer.Option(help="A table of texts.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Parquet file for the table's labels.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="A column and its name in the table; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
) -> None:
    """Label texts, or a whole table, with a finished classifier."""
    with _for_people():
        raise_all(_predict_problems(text, pair, table, output))
        if not classifier.is_dir():
            raise UserError(f"{classifier}: no such folder; name the classifier of a run")
        from pet_pipeline.classifier import Classifier
        from pet_pipeline.show import print_prediction

        loaded = Classifier.load(classifier, Compute(device=device))
        if table and output:
            from pet_pipeline.predicting import predict_table

            predict_table(loaded, table, output, _mapping(column or [], loaded.columns))
            return
        if pair is not None and len(loaded.columns) < 2:
            raise UserError(f"--pair: this classifier reads one text, {loaded.columns[0]!r}")
        for one in text or []:
            row = dict.fromkeys(loaded.columns, "") | {loaded.columns[0]: one}
            if pair is not None:
                row[loaded.columns[1]] = pair
            print_prediction(one, loaded.labels, loaded.predict([row])[0].tolist())


@app.command()
def config(
    settings_file: File = None,
    override: Override = None,
) -> None:
    """Print every setting, its default and what it does."""
    with _for_people():
        typer.echo(write_settings(read_settings(settings_file, override or [])), nl=False)


def _run(
    pipeline: Pipeline,
    settings: Settings,
    *,
    plan: bool,
    until: str | None,
    force: tuple[str, ...],
) -> None:
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
    print_results(run, _program())
    if until:
        say(f"stopped after {until}; without --until the rest follows")


def _program() -> str:
    """How to type `pet`: by its name if that is this installation's, or else by its path."""
    own = Path(sys.executable).with_name("pet")
    if not own.exists() or shutil.which("pet") == str(own):
        return "pet"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


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


def _pet_full() -> Pipeline:
    """The pipeline of `pipelines/pet_full.py`, from the checkout or from the wheel."""
    here = Path(__file__).parent
    files = [here / "pet_full.py", here.parent / "pipelines" / "pet_full.py"]
    file = next(file for file in files if file.exists())
    pipeline: Pipeline = runpy.run_path(str(file))["pet_full"]
    return pipeline


def _check_task_folder(task: Path) -> None:
    if task.is_file():
        raise UserError(f"{task}: a file; name the task's folder, {task.parent}")


def _predict_problems(
    text: list[str] | None, pair: str | None, table: str | None, output: Path | None
) -> Iterator[str]:
    if bool(text) == bool(table):
        yield 'predict: give --text "..." or --table FILE, one of them'
    elif table and output is None:
        yield "predict: --table needs --output FILE.parquet for the labels"
    elif table and pair is not None:
        yield "predict: --pair goes with --text; a table has the second texts in a column"
    elif text and output is not None:
        yield "predict: --output goes with --table; the labels of --text are shown here"
    if output and output.is_dir():
        yield f"--output: {output} is a folder; name a file, such as {output}/labels.parquet"


def _mapping(texts: list[str], columns: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    raise_all(
        f"--column {text}: write COLUMN=NAME"
        for text, (_, equals, name) in zip(texts, pairs, strict=True)
        if not equals or not name
    )
    known = (*columns, "id")
    raise_all(
        f"--column {text}: {column!r} is not a column here{nearest(column, known)}"
        for text, (column, *_) in zip(texts, pairs, strict=True)
        if column not in known
    )
    return {column: name for column, _, name in pairs}


@contextmanager
def _for_people() -> Iterator[None]:
    """Show an error of the user's as a message, without a traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
