"""The page: one HTML file with its pictures in it and nothing to fetch."""

from __future__ import annotations

import itertools
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pet_pipeline.report import plots
from pet_pipeline.report.facts import Facts

LONGEST_TEXT = 600


def render_page(facts: Facts) -> str:
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
        facts=facts,
        ensemble=facts.last,
        summary=_summary(facts),
        figures=_figures(facts),
        generations=_generations(facts),
    )


def _figures(facts: Facts) -> dict[str, Markup]:
    """The pictures by name, only those that there is something to show in."""
    last = facts.last
    svgs = {
        "entropy": plots.entropy_plot(last["entropy"]["edges"], last["entropy"]["counts"]),
        "balance": plots.balance_plot(last["label_counts"], last["label_mass"]),
    }
    if len(last["models"]) > 1:
        svgs["agreement"] = plots.agreement_plot(last["agreement"], last["models"])
    if facts.metrics:
        metric = facts.metrics["metric"]
        svgs["systems"] = plots.systems_plot(facts.systems(), metric)
        measured = [s for kind in ("ensemble", "classifier") if (s := facts.system(kind))]
        svgs["reliability"] = plots.reliability_plot(measured)
        shown = measured[-1]
        labels = facts.metrics["labels"]
        svgs["confusion"] = plots.confusion_plot(shown["confusion"], labels, shown["name"])
        ensembles = [s for s in facts.metrics["systems"] if s["kind"] == "ensemble"]
        if len(ensembles) > 1:
            svgs["generations"] = plots.generations_plot(ensembles, metric)
    if facts.searched:
        svgs["templates"] = plots.templates_plot(facts.searched["candidates"])
    return {name: Markup(_own_ids(svg, name)) for name, svg in svgs.items()}


def _own_ids(svg: str, name: str) -> str:
    """An SVG whose ids do not clash with those of the other pictures on the page."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg)


def _summary(facts: Facts) -> str:
    """What was run and what came out, in a sentence or two."""
    rows, patterns = facts.rows, len(facts.task.patterns)
    labelled = f"{_count(rows['labelled'])} labelled texts" if "labelled" in rows else "no labels"
    parts = [
        f"{patterns} pattern{'s' * (patterns != 1)} of the task {facts.task.name} on the model "
        f"{facts.model}: {labelled} and a pool of {_count(rows['pool'])} unlabelled texts."
    ]
    best = facts.system("classifier") or facts.system("ensemble")
    if best and facts.metrics:
        baseline, mean = facts.system("baseline"), facts.system("mean")
        compared = [f"the mean PVP {mean['value']:.3f}"] if mean else []
        compared += [f"the supervised baseline {baseline['value']:.3f}"] if baseline else []
        parts.append(
            f"The {best['name']} reaches {facts.metrics['metric']} {best['value']:.3f} "
            f"({best['low']:.3f} to {best['high']:.3f}) on {_count(facts.metrics['test_rows'])} "
            f"test rows; {' and '.join(compared)}."
        )
    else:
        parts.append("There was no test table, so nothing is measured.")
    return " ".join(parts)


def _generations(facts: Facts) -> list[dict[str, Any]]:
    """What iPET added in each generation: rows, by label, and how sure their labels were."""
    lines = []
    for number, generation in enumerate(facts.generations):
        grown = list(generation["grown"].values())
        if grown:
            labels = facts.task.labels
            added = {label: sum(g["added"][label] for g in grown) / len(grown) for label in labels}
            shorts = itertools.chain(g["short"] for g in grown if "short" in g)
            lines.append(
                {
                    "number": number,
                    "rows": sum(g["rows"] for g in grown) / len(grown),
                    "confidence": sum(g["mean_confidence"] for g in grown) / len(grown),
                    "added": added,
                    "short": sorted(set(shorts)),
                }
            )
    return lines


def _shorten(text: str) -> str:
    text = str(text)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
