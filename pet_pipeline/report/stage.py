"""The last verb of a pipeline: write the page, and the model card beside the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pet_pipeline.config import Machine, Settings, write_settings
from pet_pipeline.models import resolve_model
from pet_pipeline.patterns import Task
from pet_pipeline.run import Result, Run, write_text
from pet_pipeline.stages.results import Generation, Tables
from pet_pipeline.stages.search import Searched

PAGE = "index.html"
CARD = "README.md"


def write_report(
    run: Run,
    task: Task,
    generations: Sequence[Generation],
    tables: Tables,
    settings: Settings,
    *,
    metrics: Result | None = None,
    classifier: Result | None = None,
    baseline: Result | None = None,
    searched: Searched | None = None,
) -> Result:
    """report/index.html of a run, and README.md in the classifier's folder."""
    call = {
        "task": task,
        "settings": write_settings(settings.model_copy(update={"machine": Machine()})),
        "base": resolve_model(settings.model, settings.revision),
        "tables": {
            "labelled": tables.labelled,
            "pool": tables.pool,
            "test": tables.test,
            "development": tables.development,
        },
        "patterns": tables.checked,
        "generations": [
            {
                "models": {s.model.name: s.model.result for s in g.scores},
                "soft": g.soft,
                "grown": g.grown,
            }
            for g in generations
        ],
        "metrics": metrics,
        "classifier": classifier,
        "baseline": baseline,
        "templates": searched.templates if searched else None,
        "words": searched.words if searched else (),
    }
    return run.do("report", _report, {".": call})[0]


def _report(out: Path, machine: Machine, **params: Any) -> dict[str, Any]:
    from pet_pipeline.report.card import model_card
    from pet_pipeline.report.facts import gather
    from pet_pipeline.report.page import render_page

    facts = gather(**params)
    page = render_page(facts)
    (out / PAGE).write_text(page, "utf-8")
    if facts.classifier is not None:
        write_text(facts.classifier.dir / CARD, model_card(facts))
    return {"kilobytes": len(page.encode()) // 1024}
