"""The command line: pet run | status | patterns | predict | config, and programs of one's own."""

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

from pet_pipeline.config import Machine, Settings, read_settings, write_settings
from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.progress import progress, say
from pet_pipeline.run import CONFIG, Run

Pipeline = Callable[[Settings, Run], object]

GO_ON = "to go on from here, type the same command again"
TABLE_OPTION: Any = {"labelled": False, "place": "--table", "mapping": "--column COLUMN=NAME"}

File = Annotated[Path | None, typer.Argument(metavar="[SETTINGS.toml]", help="Settings file.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
]
Task = Annotated[str | None, typer.Option(help="Folder of the task and its patterns.")]
Labelled = Annotated[str | None, typer.Option(help="Table of labelled texts.")]
Pool = Annotated[str | None, typer.Option(help="Table of unlabelled texts.")]
Test = Annotated[str | None, typer.Option(help="Labelled table to measure on.")]
ModelName = Annotated[str | None, typer.Option(help="Masked LM: folder or hub name.")]
Output = Annotated[str | None, typer.Option(help="Folder of the run.")]
Jobs = Annotated[int | None, typer.Option(help="Units at the same time.")]
Plan = Annotated[bool, typer.Option("--plan", help="Show done, to do and why; run nothing.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[
    list[str] | None, typer.Option(metavar="STAGE", help="Run this stage again; repeatable.")
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Force a stage, stop after it.")]

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
            stages = (only, tuple(force or ()) + ((only,) if only else ()))
            _run(pipeline or _pet_full(), settings, plan, until or stages[0], stages[1])

    return run


app.command("run", help="Run the pipeline end to end; finished units are not run again.")(
    _runner(None)
)


@app.command()
def status(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Show the stages and units of a run: state, seconds, and why a stale one is stale."""
    from pet_pipeline.show import print_units

    with _for_people():
        if not (run / CONFIG).exists():
            raise UserError(f"{run}: no run (no {CONFIG}); name the folder that --output named")
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
        bool, typer.Option("--prior", help="Show the untuned model's label prior (needs both).")
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="A task's column by the table's name."),
    ] = None,
) -> None:
    """Check a task's patterns and show each on real rows, with its label words' tokens."""
    from pet_pipeline.data import check_source, find_source, read_batches
    from pet_pipeline.patterns import load_task
    from pet_pipeline.show import print_patterns

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
            batch = next(read_batches(find_source(table), task.columns, names, None), None)
            rows = batch.slice(0, 200).to_pylist() if batch is not None else rows
        described = _describe(task, model, rows, prior=prior) if model else {}
        print_patterns(task, rows[:2], described)


@app.command()
def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder of a classifier.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; repeatable.")] = None,
    pair: Annotated[str | None, typer.Option(help="The second text, for pairs.")] = None,
    table: Annotated[str | None, typer.Option(help="A table of texts.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Parquet file for the table's labels.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="A classifier's column by the table's name."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Label texts, or a whole table, with a finished classifier."""
    with _for_people():
        raise_all(_predict_problems(text, pair, table, output))
        if not classifier.is_dir():
            raise UserError(f"{classifier}: no such folder; name the classifier of a run")
        from pet_pipeline.classifier import Classifier
        from pet_pipeline.show import print_prediction

        loaded = Classifier(classifier, Machine(device=device))
        if table and output:
            _predict_table(loaded, table, output, _mapping(column or [], loaded.columns))
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
    """Print every setting with its default and a line that explains it."""
    with _for_people():
        typer.echo(write_settings(read_settings(settings_file, override or [])), nl=False)


def _run(
    pipeline: Pipeline, settings: Settings, plan: bool, until: str | None, force: tuple[str, ...]
) -> None:
    from pet_pipeline.show import print_results, print_units, unit_states

    planned = Run.open(settings, plan=True, force=force)
    pipeline(settings, planned)
    _check_stages(planned, [*force, *([until] if until else [])])
    if plan:
        print_units(planned)
        return
    todo = sum(state != "done" for _, state, _ in unit_states(planned))
    say(f"{settings.output}: {len(planned.units) - todo} units done, {todo} to do")
    run = Run.open(settings, until=until, force=force)
    try:
        with run:
            pipeline(settings, run)
    except UserError:
        raise
    except BaseException:
        say(f"stopped; {GO_ON}")
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
    places = [here / "pet_full.py", here.parent / "pipelines" / "pet_full.py"]
    file = next(place for place in places if place.exists())
    pipeline: Pipeline = runpy.run_path(str(file))["pet_full"]
    return pipeline


def _describe(
    task: Any, model: str, rows: list[dict[str, Any]], *, prior: bool
) -> dict[str, dict[str, Any]]:
    """By pattern: its words' tokens, warnings, and the label prior of the untuned model."""
    from pet_pipeline.encoding import PatternEncoder, check_encoders, describe_words
    from pet_pipeline.inference import score_rows
    from pet_pipeline.models import resolve_model
    from pet_pipeline.pooling import pool_scores
    from pet_pipeline.pretrained import check_mlm, load_mlm, load_tokenizer

    base = resolve_model(model)
    check_mlm(base)
    tokenizer, max_tokens = load_tokenizer(base), Settings().finetune.max_tokens
    encoders = [PatternEncoder(pattern, tokenizer, max_tokens) for pattern in task.patterns]
    raise_all(check_encoders(encoders))
    loaded = load_mlm(base) if prior else None
    described: dict[str, dict[str, Any]] = {}
    for encoder in encoders:
        warnings = []
        lengths = sorted({len(word) for word in encoder.words.words})
        if lengths != [1]:
            warnings.append(f"label words of {lengths} tokens: {encoder.words.n_masks} masks")
        if cut := encoder.count_truncated(rows):
            warnings.append(f"{cut} of {len(rows)} rows are cut to {max_tokens} tokens")
        found: dict[str, Any] = {"words": describe_words(encoder), "warnings": warnings}
        if prior:
            scores = score_rows(
                loaded,
                encoder.encode(rows),
                encoder.layout,
                encoder.words,
                machine=Machine(),
                what=encoder.pattern.name,
            )
            found["prior"] = pool_scores([scores], [1.0], 1.0).mean(0).tolist()
        described[encoder.pattern.name] = found
    return described


def _predict_table(classifier: Any, table: str, output: Path, names: dict[str, str]) -> None:
    import pyarrow.parquet as pq

    from pet_pipeline.data import (
        check_source,
        count_rows,
        find_source,
        read_batches,
        soft_label_table,
    )

    raise_all(check_source(table, classifier.columns, names, **TABLE_OPTION))
    source = find_source(table)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {output}: {error.strerror}; name another file") from None
    beside = output.with_name(f".{output.name}.partial")
    writer = None
    rows = 0
    with progress("predict", count_rows(source), "rows") as advance:
        for batch in read_batches(source, classifier.columns, names, None):
            probs = classifier.predict(batch.to_pylist())
            labelled = soft_label_table(batch["id"], probs, classifier.labels)
            writer = writer or pq.ParquetWriter(beside, labelled.schema, compression="zstd")
            writer.write_table(labelled)
            rows += batch.num_rows
            advance(batch.num_rows)
    if writer is None:
        raise UserError(f"--table: {table} has no rows")
    writer.close()
    os.replace(beside, output)
    say(f"{rows} rows labelled: {output}")


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
        yield "predict: --output goes with --table; what --text gets is shown here"
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
        f"--column {text}: {column!r} is no column here{nearest(column, known)}"
        for text, (column, *_) in zip(texts, pairs, strict=True)
        if column not in known
    )
    return {column: name for column, _, name in pairs}


@contextmanager
def _for_people() -> Iterator[None]:
    """Show a mistake of the user's as a message instead of a traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
