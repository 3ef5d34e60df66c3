"""The last verb of a pipeline: write the page, and the model card beside the classifier."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.compute import Compute
from pet_pipeline.config import Machine, Settings
from pet_pipeline.files import write_text
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_records
from pet_pipeline.report.data import (
    GenerationData,
    HeldOut,
    ReadPrompt,
    ReportData,
    RunRecords,
    checked_patterns,
    versions_of,
)
from pet_pipeline.run import Run
from pet_pipeline.settings import check_settings, write_settings
from pet_pipeline.soft_tokens import SoftTokenWords
from pet_pipeline.stages.adapt import read_adapted
from pet_pipeline.stages.crossfit import CrossFit
from pet_pipeline.stages.evaluate import read_metrics
from pet_pipeline.stages.finetune import PROMPT, FineTune
from pet_pipeline.stages.from_settings import base_model, student_model, tuning
from pet_pipeline.stages.results import (
    Classifiers,
    FoundPattern,
    Generation,
    Inputs,
    Tables,
    need_inputs,
)
from pet_pipeline.stages.search import Searched
from pet_pipeline.stages.search_templates import read_templates
from pet_pipeline.stages.search_words import read_words
from pet_pipeline.stages.select import SELECT
from pet_pipeline.stages.selected import read_selection, with_selected
from pet_pipeline.units import Info, Result, Unit

PAGE = "index.html"
CARD = "README.md"


def write_report(
    run: Run,
    task: Task,
    generations: Sequence[Generation],
    inputs: Inputs,
    settings: Settings,
    *,
    metrics: Result | None = None,
    classifiers: Classifiers | None = None,
    searched: Searched | None = None,
) -> Result:
    """report/index.html of a run, and README.md in the classifier's folder."""
    tables = need_inputs(inputs, "write_report").tables
    base = base_model(run, settings)
    classifier = classifiers.classifier if classifiers else None
    unit = WriteReport(
        task=task,
        settings=write_settings(_reported(settings)),
        base=base,
        student=student_model(run, settings) if classifier or not generations else base,
        tables=_by_name(tables),
        checked=tables.checked,
        data_checks=tables.data_checks,
        generations=tuple(ReportedGeneration(g.soft, g.added) for g in generations),
        metrics=metrics,
        classifier=classifier,
        templates=searched.templates if searched else None,
        words=searched.words if searched else (),
        folds=_folds(run),
        selected=inputs.selected,
        prompts=_prompts(run, len(generations) - 1),
        adapted=inputs.adapted,
        records=_records(run),
    )
    report = run.do("report", {".": unit})["."]
    if classifier and not run.plan:
        _copy_card(report.dir / CARD, classifier.dir / CARD)
    return report


@dataclass(frozen=True)
class ReportedGeneration:
    """The soft labels of a generation, and by model the rows that were added before it."""

    soft: Result
    added: dict[str, Result]


@dataclass(frozen=True)
class WriteReport(Unit):
    """The page, and the model card if there is a classifier."""

    task: Task
    settings: str  # as TOML, without the machine's and the run's folder
    base: Pretrained
    student: Pretrained  # the encoder of the classifier
    tables: dict[str, Result]
    checked: tuple[Result, ...]  # what is known of the patterns
    data_checks: Result | None  # what is wrong with the tables
    generations: tuple[ReportedGeneration, ...]
    metrics: Result | None
    classifier: Result | None
    templates: Result | None
    words: tuple[Result, ...]
    folds: dict[int, tuple[Result, ...]]  # by number, of the first generation
    selected: Result | None  # what decided the learning rate and the steps
    prompts: dict[str, Result]  # fine-tunes of the last generation, by model, with soft prompts
    adapted: Result | None  # the model that the PVPs start from
    records: RunRecords
    version = 3

    def work(self, out: Path, compute: Compute) -> Info:
        """Write index.html and README.md."""
        from pet_pipeline.report.card import model_card
        from pet_pipeline.report.page import render_page

        data = self._data(out.parent)
        page = render_page(data)
        (out / PAGE).write_text(page, "utf-8")
        if self.classifier:
            (out / CARD).write_text(model_card(data), "utf-8")
        return {"kilobytes": len(page.encode()) // 1024}

    def _data(self, folder: Path) -> ReportData:
        """What the results say; folder: of the run."""
        settings = check_settings(tomllib.loads(self.settings))
        labelled = self.tables.get("labelled")
        counts = labelled.info["labels"] if labelled else {}
        how = with_selected(tuning(settings, self.base), self.selected)
        made = self.generations[-1].soft if self.generations else self.metrics or labelled
        return ReportData(
            task=self.task,
            settings=settings,
            base=self.base,
            student=self.student,
            learning_rate=how.optimisation.learning_rate,
            updates=how.steps,
            selection=read_selection(self.selected) if self.selected else None,
            rows={name: table.info["rows"] for name, table in self.tables.items()},
            labelled=counts,
            patterns=checked_patterns(self.checked, self.task),
            generations=[GenerationData.of(g.soft, g.added) for g in self.generations],
            metrics=read_metrics(self.metrics) if self.metrics else None,
            searched=read_templates(self.templates) if self.templates else None,
            found_words=[read_words(result) for result in self.words],
            versions=versions_of(made) if made else {},
            folder=folder.as_posix(),
            classifier=self.classifier is not None,
            steps=self.classifier.info["steps"] if self.classifier else 0,
            warnings=self.data_checks.info.get("warnings", []) if self.data_checks else [],
            held_out=HeldOut.of(self.folds, sum(counts.values())),
            prompts=[
                ReadPrompt(name, read_records(result.dir / PROMPT, SoftTokenWords))
                for name, result in self.prompts.items()
            ],
            adapted=read_adapted(self.adapted) if self.adapted else None,
            times=self.records.times(),
        )


def _folds(run: Run) -> dict[int, tuple[Result, ...]]:
    """Out-of-fold scores of the first generation, by the fold; empty if none were needed."""
    folds: dict[int, list[Result]] = {}
    for planned in {unit.dir: unit for unit in run.units}.values():
        unit = planned.unit
        if not isinstance(unit, CrossFit) or isinstance(unit.real.pattern, FoundPattern):
            continue
        if planned.stage == SELECT:  # candidates of a selection, tuned otherwise
            continue
        if unit.real.tuning and unit.real.generation == 0:
            result = planned.result() or Result(planned.dir, planned.key, {})
            folds.setdefault(unit.fold, []).append(result)
    return {fold: tuple(results) for fold, results in folds.items()}


def _prompts(run: Run, generation: int) -> dict[str, Result]:
    """The fine-tunes of a generation that have soft prompts, by the model's name."""
    return {
        planned.dir.name: planned.result() or Result(planned.dir, planned.key, {})
        for planned in {unit.dir: unit for unit in run.units}.values()
        if isinstance(planned.unit, FineTune)
        and planned.unit.method.prompt
        and planned.dir.parent.parent.name == f"gen-{generation}"
    }


def _records(run: Run) -> RunRecords:
    """The folders of all units so far, by stage."""
    folders: dict[str, list[Path]] = {}
    for unit in {unit.dir: unit for unit in run.units}.values():
        folders.setdefault(unit.stage, []).append(unit.dir)
    return RunRecords({stage: tuple(named) for stage, named in folders.items()})


def _by_name(tables: Tables) -> dict[str, Result]:
    """The tables that there are."""
    named = {
        "labelled": tables.labelled,
        "pool": tables.pool,
        "test": tables.test,
        "development": tables.development,
    }
    return {name: table for name, table in named.items() if table}


def _copy_card(card: Path, beside: Path) -> None:
    """Put the card beside the classifier, unless it is there.

    Not only when the report was written: a classifier that was trained again has none.
    """
    text = card.read_text("utf-8")
    if not beside.exists() or beside.read_text("utf-8") != text:
        write_text(beside, text)


def _reported(settings: Settings) -> Settings:
    """The settings as the page shows them: the same wherever the run is done, or moved to."""
    return settings.model_copy(update={"machine": Machine(), "output": Settings().output})
