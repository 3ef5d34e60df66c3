"""The template search: candidates are generated, compared, and the best written as patterns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.models import model_title
from pet_pipeline.patterns import Task, template_of
from pet_pipeline.progress import say
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.search.selection import verdict
from pet_pipeline.stages.compare_templates import (
    ROUNDS,
    Compare,
    RankedTemplate,
    Ranking,
    Screen,
    compared_labels,
    short_tuning,
    survivors,
)
from pet_pipeline.stages.from_settings import base_model, precision, tuning
from pet_pipeline.stages.generators import GENERATORS, SearchContext, SearchTask
from pet_pipeline.stages.results import Tables
from pet_pipeline.task_files import write_pattern, write_task
from pet_pipeline.units import Info, Result, Unit

TEMPLATES = "templates.json"


@dataclass(frozen=True)
class TemplateRanking:
    """All candidates with their log-losses, which were kept, and what to make of it."""

    rows: int
    verdict: str
    candidates: list[RankedTemplate]


def search_templates(
    run: Run, task: Task, tables: Tables, settings: Settings, names: list[str]
) -> Result:
    """The best templates as pattern files of these names, in a folder that is one of a task."""
    chosen, searched = settings.search, SearchTask.of(task)
    given = SearchContext(run, searched, tables, settings)
    generated = run.do(
        "search", {f"generate-{name}": GENERATORS[name](given) for name in chosen.generators}
    )
    screen = Screen(
        task=searched,
        labelled=given.labelled,
        generated=tuple(generated.values()),
        base=base_model(run, settings),
        count=chosen.candidates,
        known=tuple(map(template_of, task.patterns)) if chosen.use == "add" else (),
        folds=chosen.folds,
        max_tokens=settings.finetune.max_tokens,
        precision=precision(run, settings),
    )
    screened = run.do("search", {"screen": screen})["screen"]
    rounds: list[tuple[Result, ...]] = []
    for number in range(ROUNDS):
        units = _round(given, screened, tuple(rounds), number)
        rounds.append(tuple(run.do("search", units).values()))
    write = WriteTemplates(
        task=searched,
        metric=task.metric,
        labelled=given.labelled,
        screened=screened,
        rounds=tuple(rounds),
        model=model_title(base_model(run, settings)),
        names=tuple(names),
    )
    return run.do("search", {"templates": write})["templates"]


def read_templates(result: Result) -> TemplateRanking:
    """What a search made of its candidates."""
    return read_record(result.dir / TEMPLATES, TemplateRanking)


@dataclass(frozen=True)
class WriteTemplates(Unit):
    """The best templates as pattern files, and all of them with what they were judged by."""

    task: SearchTask
    metric: str
    labelled: Result
    screened: Result
    rounds: tuple[tuple[Result, ...], ...]
    model: str
    names: tuple[str, ...]  # of the patterns that are kept
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write task.toml, a file for each pattern, and templates.json."""
        gold = compared_labels(self.labelled, self.task.labels)
        ranking = Ranking.of(self.screened, self.rounds, gold)
        templates, keep = list(ranking.templates), len(self.names)
        write_task(out, self.task.columns, self.task.labels, self.metric, self.task.words)
        for rank, (name, ranked) in enumerate(zip(self.names, templates, strict=False)):
            templates[rank] = replace(ranked, name=name)
            comment = (
                f"Found by a search ({ranked.generator}, {self.model}): {rank + 1} of "
                f"{len(templates)} candidates by log-loss, {ranked.log_loss:.3f} "
                f"± {ranked.standard_error:.3f} nats on {len(gold)} labelled rows (in-sample: "
                "the search chose by them)"
            )
            file = out / f"{name}.toml"
            write_pattern(file, comment, ranked.template, self.task.labels, self.task.words)
        last = [ranked for ranked in templates if ranked.rounds == len(self.rounds)]
        compared = np.array([ranking.losses[ranked.template] for ranked in last])
        summary = verdict(compared[:keep], compared[keep:])
        say(f"  {summary}")
        write_record(out / TEMPLATES, TemplateRanking(len(gold), summary, templates))
        kept = min(keep, len(templates))
        best = templates[0].log_loss
        return {"candidates": len(templates), "kept": kept, "in_sample_log_loss": best}


def _round(
    given: SearchContext, screened: Result, earlier: tuple[tuple[Result, ...], ...], number: int
) -> dict[str, Compare]:
    """A unit for each fold of a round."""
    settings, chosen = given.settings, given.settings.search
    base = base_model(given.run, settings)
    return {
        f"round-{number + 1}-fold-{fold}": Compare(
            task=given.task,
            labelled=given.labelled,
            screened=screened,
            earlier=earlier,
            base=base,
            templates=survivors(chosen.keep, number),
            fold=fold,
            folds=chosen.folds,
            tuning=short_tuning(tuning(settings, base), chosen.steps, number),
            max_tokens=settings.finetune.max_tokens,
            precision=precision(given.run, settings),
        )
        for fold in range(chosen.folds)
    }
