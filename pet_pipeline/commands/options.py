"""Options that commands share, and how a user's mistakes are shown."""

from __future__ import annotations

import os
import select
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.progress import set_verbosity

MISTAKE, INTERRUPTED, CLOSED = 2, 130, 141  # exit codes: the user's, and those of signals

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
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        metavar="NAME",
        help="The tables' column of texts; repeatable, in the order of the task's text columns.",
    ),
]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The tables' column of labels.")
]


def _set_verbosity(verbose: bool | None) -> bool | None:
    if verbose is not None:
        set_verbosity("verbose" if verbose else "quiet")
    return verbose


Verbosity = Annotated[
    bool | None,
    typer.Option(
        "--verbose/--quiet",
        "-v/-q",
        callback=_set_verbosity,
        help="Say more while it works, or nothing but results and errors.",
        show_default=False,
    ),
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what ends a command into its exit code; a mistake of the user's has no traceback.

    A reader of the standard output who has seen enough, such as `head`, has made no mistake.
    """
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(MISTAKE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        # or else Python complains when it closes what it could not write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED)


def _is_closed(stream: TextIO) -> bool:
    """Whether nobody reads any more what is written to a stream."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


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
