"""`pet label-next`: which rows of a run's pool to label by hand next, and their labels back."""

from __future__ import annotations

import codecs
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_pipeline.commands.options import program_name, user_errors
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, listed
from pet_pipeline.pipeline import pet_full, planned_run
from pet_pipeline.run import CONFIG, Run

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_ROWS = 50
SHOWN_CHARACTERS = 200


def label_next(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Rows to choose.")] = DEFAULT_ROWS,
    output: Annotated[
        Path | None, typer.Option(help="File for the rows: .csv, .jsonl, .parquet; none: show.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="What rows are chosen by: disagreement of the models, entropy, margin."),
    ] = "disagreement",
    merge: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the labels of a filled file to the run's rows."),
    ] = None,
) -> None:
    """Choose pool rows to label by hand next, or merge the labels."""
    with user_errors():
        if merge and output:
            raise UserError("--merge: reads a filled file, and --output writes one; give either")
        if output:
            _check_output(output)
        settings, planned = planned_run(run)
        if merge:
            _merge(planned, settings, merge)
            return
        from pet_pipeline.stages.choose_rows import choose_rows
        from pet_pipeline.stages.find_task import find_task

        rows = choose_rows(planned, settings, n=n, by=by)
        if rows.num_rows < n:
            typer.echo(f"the pool has only {rows.num_rows} texts without a label", err=True)
        if output:
            _write(rows, output)
        else:
            _show(rows)
        labels = find_task(planned, settings).labels
        _say_what_next(run, labels, output, n=n, by=by)


def _check_output(output: Path) -> None:
    """Raise `UserError` if a file cannot be written, or has labels that would be lost."""
    from pet_pipeline.sources import find_source, read_batches
    from pet_pipeline.writers import output_format

    output_format(str(output))
    if output.is_dir():
        raise UserError(f"--output: {output} is a folder; name a file, such as {output}/todo.csv")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {output}: {error.strerror}; name another file") from None
    if not output.exists():
        return
    try:
        batches = list(read_batches(find_source(str(output)), ("label",), {}, None))
    except UserError:
        raise UserError(
            f"--output: {output} exists and has no column 'label'; name another file"
        ) from None
    filled = sum(bool(label.strip()) for batch in batches for label in batch["label"].to_pylist())
    if filled:
        raise UserError(
            f"--output: {output} has {filled} labels, which would be lost; merge it first "
            f"(--merge {output}), or name another file"
        )


def _write(rows: pa.Table, output: Path) -> None:
    """Write a table in the format of the file's suffix; it is never half-written."""
    from pet_pipeline.writers import opened_output, output_format, write_batches

    form = output_format(str(output))
    with opened_output(str(output)) as file:
        if form == "csv":
            file.write(codecs.BOM_UTF8)  # without it spreadsheets take UTF-8 for something else
        write_batches(file, form, rows.schema, rows.to_batches())


def _show(rows: pa.Table) -> None:
    """The rows as a table on the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from pet_pipeline.show import console

    *columns, guess, confidence, _ = rows.column_names
    table = Table(guess, confidence, *columns, box=None, pad_edge=False)
    for row in rows.to_pylist():
        texts = [" ".join(str(row[column]).split()) for column in columns]
        short = [
            t if len(t) <= SHOWN_CHARACTERS else t[: SHOWN_CHARACTERS - 1] + "…" for t in texts
        ]
        cells = [row[guess], f"{row[confidence]:.2f}", *short]
        table.add_row(*map(escape, cells))
    console.print(table)


def _say_what_next(
    run: Path, labels: Sequence[str], output: Path | None, *, n: int, by: str
) -> None:
    command = [program_name(), "label-next", str(run)]
    if output is None:
        again = shlex.join([*command, "--n", str(n), "--by", by, "--output", "todo.csv"])
        typer.echo(f"\nto label them: {again}")
        return
    typer.echo(f"written: {output}")
    typer.echo(f"fill its column 'label' with {listed(labels)}; rows may be left empty; then")
    typer.echo(f"  {shlex.join([*command, '--merge', str(output)])}")


def _merge(planned: Run, settings: Settings, filled: Path) -> None:
    """Merge a filled table, and say what the next run will do again."""
    from pet_pipeline.show import unit_states
    from pet_pipeline.stages.find_task import find_task
    from pet_pipeline.stages.merge_labels import merge_labels

    result = merge_labels(planned, find_task(planned, settings), settings, filled)
    counts = ", ".join(f"{label} {count}" for label, count in result.counts.items())
    typer.echo(f"{_count(result.added, 'row')} added to {result.file}: {counts}")
    if result.known:
        typer.echo(f"{_count(result.known, 'row')} of {filled} merged before")
    if result.empty:
        typer.echo(f"{_count(result.empty, 'row')} of {filled} without a label, left out")
    missing = [label for label, count in result.counts.items() if not count]
    if missing:
        typer.echo(f"no row is labelled {listed(missing)} yet; a run needs one of each label")
    if not result.file.exists():  # every text was labelled before, in the user's table
        return
    after = Run.open(settings, plan=True)
    pet_full()(settings, after)
    undone = [unit for unit, state, _ in unit_states(after) if state != "done"]
    if not undone:
        typer.echo("nothing is to be run again")
        return
    stages = Counter(after.place_of(unit)[0] for unit in undone)
    typer.echo(
        f"the next run reads {result.file} in place of data.labelled; "
        f"it has {_count(len(undone), 'unit')} to do, by stage:"
    )
    for stage, count in stages.items():
        typer.echo(f"  {stage:<20} {count}")
    again = shlex.join([program_name(), "run", str(after.root / CONFIG)])
    typer.echo(f"next: {again}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
