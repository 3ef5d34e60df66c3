"""Where the pipeline `pet_full` is: in the checkout's `pipelines/`, or in the wheel."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from pet_pipeline.config import Settings
from pet_pipeline.run import Run

Pipeline = Callable[[Settings, Run], object]


def pet_full() -> Pipeline:
    """The pipeline of `pipelines/pet_full.py`."""
    package = Path(__file__).parent
    files = [package / "pet_full.py", package.parent / "pipelines" / "pet_full.py"]
    file = next(file for file in files if file.exists())
    pipeline: Pipeline = runpy.run_path(str(file))["pet_full"]
    return pipeline
