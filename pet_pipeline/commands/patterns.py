"""`pet patterns`: a task's patterns on rows, with the tokens of their label words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.commands.options import (
    TABLE_OPTION,
    Columns,
    ModelName,
    check_task_folder,
    column_names,
    user_errors,
)
from pet_pipeline.errors import UserError, at_place, raise_all


def patterns(
    folder: Annotated[Path, typer.Argument(help="Folder of a task.")],
    model: ModelName = None,
    table: Annotated[str | None, typer.Option(help="Table whose rows are shown.")] = None,
    prior: Annotated[
        bool,
        typer.Option("--prior", help="Show the untuned label prior; needs --model and --table."),
    ] = False,
    column: Columns = None,
) -> None:
    """Check a task's patterns; show them on rows, with their tokens."""
    from pet_pipeline.patterns import load_task
    from pet_pipeline.show import print_patterns
    from pet_pipeline.sources import check_source, find_source, read_batches

    with user_errors():
        check_task_folder(folder)
        task = load_task(folder)
        names = column_names(column or [], task.columns)
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
