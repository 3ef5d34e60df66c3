"""The page: one HTML file with its pictures in it and nothing to fetch."""

from __future__ import annotations

import functools
import re
import statistics
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pet_pipeline.metrics import CoveragePoint, coverage_at, metric_title, percent
from pet_pipeline.models import model_title
from pet_pipeline.progress import duration
from pet_pipeline.remarks import remarks
from pet_pipeline.report import answers, plots
from pet_pipeline.report.data import ReportData
from pet_pipeline.report.glossary import Glossary
from pet_pipeline.settings import write_settings
from pet_pipeline.stages.evaluate import Metrics
from pet_pipeline.texts import shortened

LONGEST_TEXT = 600
SMALLEST = 0.75  # of a picture's own width


def render_page(data: ReportData) -> str:
    """The report of a run as HTML; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("pet_pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shorten": functools.partial(shortened, limit=LONGEST_TEXT),
        "number": _number,
        "count": _count,
        "duration": duration,
        "percent": percent,
        "unbroken": _unbroken,
        "explained": Glossary().explained,  # terms, in the order in which the template has them
    }
    template = environment.get_template("page.html.j2")
    return template.render(
        data=data,
        ensemble=data.ensemble,
        model=model_title(data.base),
        settings_text=write_settings(data.settings),
        summary=_summary(data),
        remarks=remarks(data.metrics, data.ensemble),
        answers=_answers(data),
        commands=answers.next_commands(data),
        coverage=_coverage(data),
        figures=_figures(data),
        added=_added(data),
    )


@dataclass(frozen=True)
class AddedRow:
    """What iPET added in a generation, for the table: means over its models."""

    generation: int
    rows: float
    confidence: float
    by_label: dict[str, float]
    short: list[str]


@dataclass(frozen=True)
class Answer:
    """A question of the first screen, and the sentences that answer it."""

    question: str
    sentences: list[str]
    listed: bool = False  # one below the other


def _answers(data: ReportData) -> list[Answer]:
    return [
        Answer("Is it good enough?", answers.good_enough(data)),
        Answer("On which labels is it not?", answers.weak_labels(data), listed=True),
        Answer("What can be left to it?", answers.left_to_it(data)),
        Answer("What would more labels bring?", answers.more_labels(data)),
    ]


def _coverage(data: ReportData) -> list[tuple[float, CoveragePoint | None]]:
    """For accuracies that one may wish, where the best system reaches them, if it does."""
    best = data.best
    if best is None or not best.coverage:
        return []
    wished = [value for value in (0.8, *answers.WISHED) if value > best.accuracy]
    return [(value, coverage_at(best.coverage, value)) for value in wished]


def _figures(data: ReportData) -> dict[str, Markup]:
    """The pictures by name, only those that there is something to show in."""
    svgs: dict[str, str] = {}
    if ensemble := data.ensemble:
        svgs["entropy"] = plots.entropy_plot(ensemble.entropy)
        svgs["balance"] = plots.balance_plot(ensemble.label_counts, ensemble.label_mass)
        if len(ensemble.models) > 1:
            svgs["agreement"] = plots.agreement_plot(ensemble.agreement, ensemble.models)
    if data.held_out and (n_labelled := sum(data.labelled.values())):
        svgs["learning"] = plots.learning_plot(data.held_out, n_labelled, data.first_accuracy)
    if data.metrics:
        svgs |= _measured_figures(data.metrics)
    if data.searched:
        svgs["templates"] = plots.templates_plot(data.searched.candidates)
    return {name: Markup(_legible(_own_ids(svg, name))) for name, svg in svgs.items()}


def _measured_figures(metrics: Metrics) -> dict[str, str]:
    """The pictures of what was measured on the test table."""
    title = metric_title(metrics.metric, metrics.labels)
    svgs = {"systems": plots.systems_plot(metrics.last_systems(), title)}
    kinds = ("baseline", "ensemble", "classifier")
    detailed = [s for kind in kinds if (s := metrics.system(kind))]
    svgs["reliability"] = plots.reliability_plot(detailed)
    svgs["coverage"] = plots.coverage_plot(detailed)
    best = detailed[-1]
    svgs["confusion"] = plots.confusion_plot(best.confusion or [], metrics.labels, best.name)
    ensembles = [s for s in metrics.systems if s.kind == "ensemble"]
    if len(ensembles) > 1:
        svgs["generations"] = plots.generations_plot(ensembles, title)
    return svgs


def _own_ids(svg: str, name: str) -> str:
    """An SVG whose ids do not clash with those of the other pictures on the page."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg)


def _legible(svg: str) -> str:
    """An SVG that does not shrink so far on a narrow page that its texts cannot be read."""
    return re.sub(
        r'width="([\d.]+)pt"',
        lambda width: f'{width[0]} style="min-width: {SMALLEST * float(width[1]):.0f}pt"',
        svg,
        count=1,
    )


def _summary(data: ReportData) -> str:
    """What was run, in a sentence."""
    rows, patterns = data.rows, len(data.task.patterns)
    labelled = f"{_count(rows['labelled'])} labelled texts" if "labelled" in rows else "no labels"
    if not data.generations:
        return (
            f"The baseline of the task {data.task.name}: an ordinary classifier on the model "
            f"{model_title(data.student)}, trained on {labelled} alone. Without a pool of "
            "unlabelled texts there is nothing to distil from, and patterns are not used."
        )
    return (
        f"{patterns} pattern{'s' * (patterns != 1)} of the task {data.task.name} on the model "
        f"{model_title(data.base)}, with {labelled} and a pool of {_count(rows['pool'])} "
        "unlabelled texts."
    )


def _added(data: ReportData) -> list[AddedRow]:
    """What iPET added in each generation: rows, by label, and how confident their labels were."""
    lines = []
    for number, generation in enumerate(data.generations):
        sets = list(generation.added.values())
        if sets:
            lines.append(
                AddedRow(
                    generation=number,
                    rows=statistics.fmean(s.rows for s in sets),
                    confidence=statistics.fmean(s.mean_confidence for s in sets),
                    by_label={
                        label: statistics.fmean(s.by_label[label] for s in sets)
                        for label in data.task.labels
                    },
                    short=sorted({s.short for s in sets if s.short}),
                )
            )
    return lines


def _unbroken(text: str) -> str:
    """A text whose percent signs stay on the line of their number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _number(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
