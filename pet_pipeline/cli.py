"""The command line: `pet`, and your own programs."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Annotated

import typer

from pet_pipeline.commands.compare import compare
from pet_pipeline.commands.config import config
from pet_pipeline.commands.export import export
from pet_pipeline.commands.init import init
from pet_pipeline.commands.label_next import label_next
from pet_pipeline.commands.options import Verbosity
from pet_pipeline.commands.patterns import patterns
from pet_pipeline.commands.predict import predict
from pet_pipeline.commands.run import runner
from pet_pipeline.commands.status import status
from pet_pipeline.pipeline import Pipeline
from pet_pipeline.progress import set_verbosity

LIBRARIES = ("torch", "transformers")  # what results depend on; not loaded to be named
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EXIT_CODES = (
    "Exit codes: 0 done; 1 a defect of the program, with a traceback; 2 a mistake in what was "
    "given, with a message; 130 interrupted; 141 the reader of the output closed it."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP,
    epilog=EXIT_CODES,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        libraries = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
        own = metadata.version("pet_pipeline")
        typer.echo(f"pet_pipeline {own} (Python {platform.python_version()}, {libraries})")
        raise typer.Exit


@app.callback()
def _pet(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show versions and exit."
        ),
    ] = False,
    verbosity: Verbosity = None,
) -> None:
    """Few labels and a pool of unlabelled text in, a text classifier out."""
    if verbosity is None:
        set_verbosity("normal")


app.command()(init)
app.command("run", help="Run the pipeline end to end; finished units are not run again.")(
    runner(None)
)
for _command in (status, label_next, patterns, predict, compare, export, config):
    app.command()(_command)


def command(pipeline: Pipeline) -> None:
    """Make a program of a pipeline: read the command line, run it, show what came out.

    Exits with 2 after a mistake of the user's, with 1 and a traceback after one of ours.
    """
    program = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    program.command(help=pipeline.__doc__, context_settings=HELP, epilog=EXIT_CODES)(
        runner(pipeline)
    )
    program()


def main() -> None:
    """The `pet` command."""
    app()
