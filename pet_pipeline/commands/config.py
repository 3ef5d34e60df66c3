"""`pet config`: every setting."""

from __future__ import annotations

import typer

from pet_pipeline.commands.options import Override, SettingsFile, user_errors
from pet_pipeline.settings import read_settings, write_settings


def config(settings_file: SettingsFile = None, override: Override = None) -> None:
    """Print every setting, its default and what it does."""
    with user_errors():
        typer.echo(write_settings(read_settings(settings_file, override or [])), nl=False)
