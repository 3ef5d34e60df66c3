"""The command line: `pet`, and your own programs."""

from __future__ import annotations

import typer

from pet_pipeline.commands.config import config
from pet_pipeline.commands.patterns import patterns
from pet_pipeline.commands.predict import predict
from pet_pipeline.commands.run import runner
from pet_pipeline.commands.status import status
from pet_pipeline.pipeline import Pipeline

app = typer.Typer(
    help="Few labels and a pool of unlabelled text in, a text classifier out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run", help="Run the pipeline end to end; finished units are not run again.")(
    runner(None)
)
for _command in (status, patterns, predict, config):
    app.command()(_command)


def command(pipeline: Pipeline) -> None:
    """Make a program of a pipeline: read the command line, run it, show what came out.

    Exits with 2 after a mistake of the user's, with 1 and a traceback after one of ours.
    """
    program = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    program.command(help=pipeline.__doc__)(runner(pipeline))
    program()


def main() -> None:
    """The `pet` command."""
    app()
