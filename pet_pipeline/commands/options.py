"""Options that commands share, and how a user's mistakes are shown."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_pipeline.errors import UserError, nearest, raise_all

TABLE_OPTION: Any = {"labelled": False, "place": "--table", "mapping": "--column COLUMN=NAME"}

SettingsFile = Annotated[
    Path | None, typer.Argument(metavar="[SETTINGS.toml]", help="Settings file.")
]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
]
ModelName = Annotated[str | None, typer.Option(help="Masked LM: folder, hub name, NAME@REVISION.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="COLUMN=NAME", help="A column and its name in the table; repeatable."
    ),
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Show an error of the user's as a message, without a traceback, and exit with 2."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def column_names(texts: list[str], columns: Sequence[str]) -> dict[str, str]:
    """The names that columns have in a table, of COLUMN=NAME; raises `UserError` for others."""
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


def check_task_folder(task: Path) -> None:
    """Raise `UserError` if a task is named by a file."""
    if task.is_file():
        raise UserError(f"{task}: a file; name the task's folder, {task.parent}")


def program_name() -> str:
    """How to type `pet`: by its name if that is this installation's, or else by its path."""
    own = Path(sys.executable).with_name("pet")
    if not own.exists() or shutil.which("pet") == str(own):
        return "pet"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)
