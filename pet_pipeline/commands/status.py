"""`pet status`: what is done, stale or to do in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_pipeline.commands.options import user_errors
from pet_pipeline.errors import UserError
from pet_pipeline.pipeline import pet_full
from pet_pipeline.run import CONFIG, Run
from pet_pipeline.settings import read_settings


def status(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Show what is done, stale or to do in a run, and why."""
    from pet_pipeline.show import print_units

    with user_errors():
        if not (run / CONFIG).exists():
            raise UserError(f"{run}: not a run (no {CONFIG}); name the folder that --output named")
        settings = read_settings(run / CONFIG).model_copy(update={"output": str(run)})
        planned = Run.open(settings, plan=True)
        pet_full()(settings, planned)
        print_units(planned)
