"""Report data made by hand, with texts that a page must escape."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from pet_pipeline.adapted import Adapted, AdaptedModel, Figures
from pet_pipeline.metrics import (
    Paired,
    calibration_error,
    confusion,
    coverage_curve,
    label_qualities,
    measure,
    proportion,
    reliability,
)
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import Adaptation, Optimisation
from pet_pipeline.patterns import Field, Pattern, Task
from pet_pipeline.report.data import (
    AddedRows,
    GenerationData,
    HeldOut,
    ReadPrompt,
    ReportData,
    StageTime,
)
from pet_pipeline.report.page import render_page
from pet_pipeline.search.selection import LogLoss
from pet_pipeline.settings import check_settings
from pet_pipeline.soft_tokens import NearWord, SoftTokenWords
from pet_pipeline.stages.check_patterns import CheckedPattern
from pet_pipeline.stages.compare_templates import RankedTemplate
from pet_pipeline.stages.ensemble import EnsembleSummary
from pet_pipeline.stages.evaluate import Metrics, Mistake, System
from pet_pipeline.stages.pool_summary import DisputedRow, Histogram
from pet_pipeline.stages.search_templates import TemplateRanking
from pet_pipeline.stages.search_words import WordsRecord
from pet_pipeline.stages.selected import RankedTuning, Selection

EVIL = '<script>alert(1)</script> & $x_1$ "quoted" {mask} 😀 中'
LABELS = ("sad", "<b>happy</b> & $free$")
MANY = tuple(f"label number {n} with a rather long name" for n in range(77))
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "ipet": {"generations": 3},
    "no test": {"measured": False},
    "no classifier": {"classifier": False},
    "zero-shot": {"labelled": False},
    "one pattern": {"models": 1},
    "many labels": {"labels": MANY},
    "searched": {"searched": True},
    "f1": {"metric": "f1"},
    "soft prompts": {"prompts": True},
    "selected": {"selected": True},
    "adapted": {"adapted": True},
    "no pool": {"generations": 0, "classifier": False},
}


def report_data(
    *,
    labels: tuple[str, ...] = LABELS,
    metric: str = "accuracy",
    models: int = 3,
    generations: int = 1,
    measured: bool = True,
    classifier: bool = True,
    labelled: bool = True,
    searched: bool = False,
    prompts: bool = False,
    selected: bool = False,
    adapted: bool = False,
) -> ReportData:
    """The data of a run of some kind."""
    names = [f"pattern_{n}-1" for n in range(models)]
    systems = list(_ensembles(names, labels, generations))
    systems += [system("classifier", "classifier", labels)] * classifier
    systems += [system("baseline", "baseline", labels)] * labelled
    rows = {"labelled": 8 * labelled, "pool": 100 * bool(generations), "test": 60 * measured}
    metrics = Metrics(
        metric=metric,
        labels=list(labels),
        test_rows=60,
        generations=generations,
        systems=systems,
        mistakes=[Mistake("t1", {"text": EVIL}, labels[0], labels[1], 0.987)],
        against_baseline=Paired(12, 3, 0.035) if labelled and generations else None,
    )
    return ReportData(
        task=Task("mood", ("text",), labels, metric, tuple(_pattern(n, labels) for n in names)),
        settings=check_settings({"model": "<i>x</i>", "demonstrations": {"enabled": searched}}),
        base=ModelFolder(Path("models/tiny")),
        student=ModelFolder(Path("models/tiny")),
        learning_rate=3e-4,
        updates=60,
        selection=_selection() if selected else None,
        rows={name: count for name, count in rows.items() if count},
        labelled=dict.fromkeys(labels, 4) if labelled else {},
        patterns=[_checked(name[:-2], labels) for name in names] if generations else [],
        generations=[
            GenerationData(summary(names, labels), {"m": _added(labels)} if n else {})
            for n in range(generations)
        ],
        metrics=metrics if measured else None,
        searched=_templates(EVIL) if searched else None,
        found_words=[_words(labels)] if searched else [],
        versions={"python": "3.11", "torch": "2.13"},
        folder="runs/my mood",
        classifier=classifier,
        steps=300 if classifier else 0,
        warnings=[f"data.pool: 3 rows have no text: {EVIL}"],
        held_out=HeldOut(6, 8, proportion(2, 8), proportion(5, 8))
        if labelled and generations
        else None,
        prompts=[
            ReadPrompt("pattern_0-1", [SoftTokenWords("It", [NearWord(EVIL, 0.5)])]),
        ]
        * prompts,
        adapted=_adapted() if adapted else None,
        times=[StageTime("finetune", models, 75.0), StageTime("distill", 1, 4.25)],
    )


@functools.cache
def page_of(case: str) -> str:
    """The page of a case."""
    return render_page(report_data(**CASES[case]))


def system(kind: str, name: str, labels: tuple[str, ...], generation: int | None = None) -> System:
    """What is measured of random predictions; the accuracy stands for any metric."""
    n_labels = len(labels)
    rng = np.random.default_rng(len(name))
    probs, gold = rng.dirichlet(np.ones(n_labels), 60), rng.integers(n_labels, size=60).tolist()
    counts = confusion(gold, probs.argmax(1), n_labels)
    return System(
        kind=kind,
        name=name,
        generation=generation,
        **vars(measure("accuracy", gold, probs.argmax(1), n_labels)),
        accuracy=0.5,
        f1_macro=0.5,
        calibration_error=calibration_error(probs, gold),
        confusion=counts,
        reliability=reliability(probs, gold),
        coverage=coverage_curve(probs, gold),
        labels=label_qualities(counts, labels),
    )


def summary(names: list[str], labels: tuple[str, ...]) -> EnsembleSummary:
    """An ensemble of some models, and a pool with one disputed row."""
    return EnsembleSummary(
        models=names,
        weights=[1 / len(names)] * len(names),
        temperature=2.0,
        rows=100,
        agreement=np.eye(len(names)).tolist(),
        label_counts=dict.fromkeys(labels, 10),
        label_mass=dict.fromkeys(labels, 9.5),
        entropy=Histogram(np.linspace(0, 1, 6).tolist(), [5, 4, 3, 2, 1]),
        disputed=[
            DisputedRow(
                id="x1",
                text={"text": EVIL + "long " * 400},
                votes=[labels[n % len(labels)] for n in range(len(names))],
                probs=[1 / len(labels)] * len(labels),
                disagreement=0.3,
            )
        ],
    )


def _ensembles(names: list[str], labels: tuple[str, ...], generations: int) -> list[System]:
    systems = []
    for n in range(generations):
        kinds = [("pvp", name) for name in names]
        kinds += [("mean", "mean of the PVPs"), ("ensemble", "ensemble")]
        systems += [system(kind, name, labels, n) for kind, name in kinds]
    return systems


def _pattern(name: str, labels: tuple[str, ...]) -> Pattern:
    parts = (Field("text"), " it was ", Field("mask"), ".")
    return Pattern(name[:-2], parts, labels, tuple((f"word {n}",) for n in range(len(labels))))


def _checked(name: str, labels: tuple[str, ...]) -> CheckedPattern:
    words = {label: [["a", "##b"]] for label in labels}
    return CheckedPattern(name, [EVIL], words, masks=2, truncated=1, checked=9)


def _added(labels: tuple[str, ...]) -> AddedRows:
    return AddedRows(4, 0.7, dict.fromkeys(labels, 2), "sad 1 of 9")


def _adapted() -> AdaptedModel:
    figures = Figures(2.5, 0.5, 1.0), Figures(2.25, 0.625, 0.875)
    return AdaptedModel(
        base=EVIL,
        on_hub=False,
        texts=EVIL,
        teacher="",
        new_head=False,
        adaptation=Adaptation(Optimisation(1e-4), 7, 128),
        adapted=Adapted(2.375, 28000, 300, 1234, *figures),
    )


def _templates(template: str) -> TemplateRanking:
    candidates = [
        RankedTemplate(
            template=f"{template} {n}",
            generator="mlm",
            score=-1.0,
            log_loss=n / 3,
            standard_error=0.1,
            rounds=2 - n // 2,
            name=f"found-{n}" if n < 2 else None,
        )
        for n in range(5)
    ]
    return TemplateRanking(8, "Within noise, that is.", candidates)


def _selection() -> Selection:
    ranked = [
        RankedTuning(rate, 60, LogLoss(loss, 0.04), 0.75)
        for rate, loss in ((3e-4, 0.6), (9e-5, 0.7), (9e-4, 0.5))
    ]
    return Selection("folds", 32, [EVIL, "just"], ranked, 2, LogLoss(0.1, 0.02))


def _words(labels: tuple[str, ...]) -> WordsRecord:
    return WordsRecord(
        name="just-words",
        labels=labels,
        words=tuple((f"w{n}", EVIL) for n in range(len(labels))),
        correct=7,
        own_correct=5,
        rows=8,
        combinations=2500,
        exact=True,
    )
