"""Staged PET: few labels and a pool of unlabelled text in, a text classifier out.

Names are loaded when they are first used, so that a plan or a help text needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_pipeline.classifier import Classifier as Classifier
    from pet_pipeline.cli import command as command
    from pet_pipeline.config import Settings as Settings
    from pet_pipeline.errors import UserError as UserError
    from pet_pipeline.in_memory import save_table as save_table
    from pet_pipeline.patterns import load_task as load_task
    from pet_pipeline.report import write_report as write_report
    from pet_pipeline.run import Run as Run
    from pet_pipeline.settings import read_settings as read_settings
    from pet_pipeline.stages.adapt import adapt as adapt
    from pet_pipeline.stages.annotate import annotate as annotate
    from pet_pipeline.stages.distill import distill as distill
    from pet_pipeline.stages.encode import encode as encode
    from pet_pipeline.stages.ensemble import ensemble as ensemble
    from pet_pipeline.stages.evaluate import Metrics as Metrics
    from pet_pipeline.stages.evaluate import evaluate as evaluate
    from pet_pipeline.stages.evaluate import read_metrics as read_metrics
    from pet_pipeline.stages.find_task import find_task as find_task
    from pet_pipeline.stages.finetune import finetune as finetune
    from pet_pipeline.stages.grow import grow as grow
    from pet_pipeline.stages.prepare import prepare as prepare
    from pet_pipeline.stages.results import Generation as Generation
    from pet_pipeline.stages.search import find_patterns as find_patterns
    from pet_pipeline.stages.select import select as select
    from pet_pipeline.trained import Trained as Trained
    from pet_pipeline.trained import train as train

_HOMES = {
    "Classifier": "classifier",
    "Generation": "stages.results",
    "Metrics": "stages.evaluate",
    "Run": "run",
    "Settings": "config",
    "Trained": "trained",
    "UserError": "errors",
    "adapt": "stages.adapt",
    "annotate": "stages.annotate",
    "command": "cli",
    "distill": "stages.distill",
    "encode": "stages.encode",
    "ensemble": "stages.ensemble",
    "evaluate": "stages.evaluate",
    "find_patterns": "stages.search",
    "find_task": "stages.find_task",
    "finetune": "stages.finetune",
    "grow": "stages.grow",
    "load_task": "patterns",
    "prepare": "stages.prepare",
    "read_metrics": "stages.evaluate",
    "read_settings": "settings",
    "save_table": "in_memory",
    "select": "stages.select",
    "train": "trained",
    "write_report": "report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"pet_pipeline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'pet_pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
