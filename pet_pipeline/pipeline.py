"""Where the pipeline `pet_full` is: in the checkout's `pipelines/`, or in the wheel."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.run import CONFIG, Run
from pet_pipeline.settings import read_settings

Pipeline = Callable[[Settings, Run], object]


def pet_full() -> Pipeline:
    """The pipeline of `pipelines/pet_full.py`."""
    package = Path(__file__).parent
    files = [package / "pet_full.py", package.parent / "pipelines" / "pet_full.py"]
    file = next(file for file in files if file.exists())
    pipeline: Pipeline = runpy.run_path(str(file))["pet_full"]
    return pipeline


def planned_run(folder: Path) -> tuple[Settings, Run]:
    """The settings of a run's folder, and a plan of `pet_full` with them.

    Raises `UserError` if the folder is not that of a run.
    """
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder}: not a run (no {CONFIG}); name the folder that --output named")
    settings = read_settings(folder / CONFIG).model_copy(update={"output": str(folder)})
    planned = Run.open(settings, plan=True)
    pet_full()(settings, planned)
    return settings, planned
