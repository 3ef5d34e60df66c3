"""What a report tells, gathered from the results of a run."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_pipeline.models import HubModel, Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.run import Result, record
from pet_pipeline.stages.ensemble import read_weights
from pet_pipeline.stages.evaluate import read_metrics
from pet_pipeline.stages.search_templates import read_templates
from pet_pipeline.stages.search_words import read_words


@dataclass(frozen=True)
class Facts:
    """Everything that the page and the model card show."""

    task: Task
    settings_text: str
    settings: dict[str, Any]
    model: str  # the hub's name, or the last part of a folder's
    on_hub: bool
    rows: dict[str, int]  # by table
    labelled: dict[str, int]  # labelled rows by label
    patterns: list[dict[str, Any]]  # rendered texts, tokens, truncation
    generations: list[dict[str, Any]]
    metrics: dict[str, Any] | None
    classifier: Result | None
    made_by: dict[str, Any]
    searched: dict[str, Any] | None  # the candidates of a template search
    found_words: list[dict[str, Any]]  # of a label-word search, by pattern

    @property
    def last(self) -> dict[str, Any]:
        """What the last ensemble says of itself and the pool."""
        found: dict[str, Any] = self.generations[-1]["ensemble"]
        return found

    @property
    def templates(self) -> list[tuple[str, str]]:
        """Name and template of each pattern."""
        return [
            (pattern.name, pattern.render({c: "{" + c + "}" for c in self.task.columns}))
            for pattern in self.task.patterns
        ]

    def system(self, kind: str) -> dict[str, Any] | None:
        """The last measured system of a kind: ensemble, classifier, baseline, mean."""
        found = [s for s in (self.metrics or {}).get("systems", []) if s["kind"] == kind]
        return found[-1] if found else None

    def systems(self) -> list[dict[str, Any]]:
        """The systems of the last generation, in the order of the table."""
        if self.metrics is None:
            return []
        last = self.metrics["generations"] - 1
        return [s for s in self.metrics["systems"] if s["generation"] in (None, last)]


def gather(
    *,
    task: Task,
    settings: str,
    base: Pretrained,
    tables: dict[str, Result | None],
    patterns: tuple[Result, ...],
    generations: list[dict[str, Any]],
    metrics: Result | None,
    classifier: Result | None,
    baseline: Result | None,
    templates: Result | None,
    words: tuple[Result, ...],
) -> Facts:
    """Read what the results of a run say."""
    labelled = tables["labelled"]
    soft = generations[-1]["soft"]
    return Facts(
        task=task,
        settings_text=settings,
        settings=tomllib.loads(settings),
        model=base.name if isinstance(base, HubModel) else Path(base).resolve().name,
        on_hub=isinstance(base, HubModel),
        rows={name: table.info["rows"] for name, table in tables.items() if table},
        labelled=labelled.info["labels"] if labelled else {},
        patterns=_patterns(patterns, task),
        generations=[_generation(generation) for generation in generations],
        metrics=read_metrics(metrics) if metrics else None,
        classifier=classifier,
        made_by=(record(soft.dir) or {}).get("made_by", {}),
        searched=read_templates(templates) if templates else None,
        found_words=[read_words(result) for result in words],
    )


def _patterns(checked: tuple[Result, ...], task: Task) -> list[dict[str, Any]]:
    """What is known of each pattern of the task, in its order."""
    known = {}
    for result in checked:
        for pattern in json.loads((result.dir / "patterns.json").read_text("utf-8")):
            known[pattern["name"]] = pattern
    return [known[pattern.name] for pattern in task.patterns]


def _generation(generation: dict[str, Any]) -> dict[str, Any]:
    return {
        "ensemble": read_weights(generation["soft"]),
        "rows": {name: result.info["rows"] for name, result in generation["models"].items()},
        "grown": {name: result.info for name, result in generation["grown"].items()},
    }
