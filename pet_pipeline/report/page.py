"""The page: one HTML file with its pictures in it and nothing to fetch."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pet_pipeline.metrics import metric_title
from pet_pipeline.models import model_title
from pet_pipeline.report import plots
from pet_pipeline.report.data import ReportData
from pet_pipeline.settings import write_settings
from pet_pipeline.stages.evaluate import Metrics

LONGEST_TEXT = 600


def render_page(data: ReportData) -> str:
    """The report of a run as HTML; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("pet_pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shorten": _shorten, "number": _number, "count": _count}
    template = environment.get_template("page.html.j2")
    return template.render(
        data=data,
        ensemble=data.ensemble,
        model=model_title(data.base),
        settings_text=write_settings(data.settings),
        summary=_summary(data),
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


def _figures(data: ReportData) -> dict[str, Markup]:
    """The pictures by name, only those that there is something to show in."""
    ensemble = data.ensemble
    svgs = {
        "entropy": plots.entropy_plot(ensemble.entropy),
        "balance": plots.balance_plot(ensemble.label_counts, ensemble.label_mass),
    }
    if len(ensemble.models) > 1:
        svgs["agreement"] = plots.agreement_plot(ensemble.agreement, ensemble.models)
    if data.metrics:
        svgs |= _measured_figures(data.metrics)
    if data.searched:
        svgs["templates"] = plots.templates_plot(data.searched.candidates)
    return {name: Markup(_own_ids(svg, name)) for name, svg in svgs.items()}


def _measured_figures(metrics: Metrics) -> dict[str, str]:
    """The pictures of what was measured on the test table."""
    title = metric_title(metrics.metric, metrics.labels)
    svgs = {"systems": plots.systems_plot(metrics.last_systems(), title)}
    detailed = [s for kind in ("ensemble", "classifier") if (s := metrics.system(kind))]
    svgs["reliability"] = plots.reliability_plot(detailed)
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


def _summary(data: ReportData) -> str:
    """What was run and what came out, in a sentence or two."""
    rows, patterns = data.rows, len(data.task.patterns)
    labelled = f"{_count(rows['labelled'])} labelled texts" if "labelled" in rows else "no labels"
    run = (
        f"{patterns} pattern{'s' * (patterns != 1)} of the task {data.task.name} on the model "
        f"{model_title(data.base)}: {labelled} and a pool of {_count(rows['pool'])} unlabelled "
        "texts."
    )
    best = data.system("classifier") or data.system("ensemble")
    if data.metrics is None or best is None:
        return f"{run} There was no test table, so nothing is measured."
    baseline, mean = data.system("baseline"), data.system("mean")
    compared = [f"the mean PVP {mean.value:.3f}"] if mean else []
    compared += [f"the supervised baseline {baseline.value:.3f}"] if baseline else []
    return (
        f"{run} The {best.name} reaches {data.metric} {best.value:.3f} "
        f"({best.low:.3f} to {best.high:.3f}) on {_count(data.metrics.test_rows)} "
        f"test rows; {' and '.join(compared)}."
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


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
