"""The pictures of the report, as SVG text; the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pet_pipeline.metrics import Measured
from pet_pipeline.report.data import HeldOut
from pet_pipeline.stages.compare_templates import RankedTemplate
from pet_pipeline.stages.evaluate import System
from pet_pipeline.stages.pool_summary import Histogram

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pet_pipeline",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "savefig.transparent": True,
}
# Okabe and Ito's colours, which colour-blind readers can tell apart.
INK, GREY, LINES = "#000000", "#7f7f7f", "#bbbbbb"
BLUE, SKY, ORANGE, GREEN = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
COLOURS = {
    "pvp": GREY,
    "mean": INK,
    "ensemble": BLUE,
    "classifier": ORANGE,
    "baseline": GREEN,
}
# What the page calls these colours, so that it can have others in the dark.
VARIABLES = {
    INK: "ink",
    GREY: "grey",
    LINES: "lines",
    BLUE: "blue",
    SKY: "sky",
    ORANGE: "orange",
    GREEN: "green",
}
# From nothing to blue, so that the page shows through, be it light or dark.
SHADES = LinearSegmentedColormap.from_list("shades", [f"{BLUE}00", f"{BLUE}ff"])
MOST_NUMBERS = 20  # rows of a matrix whose cells still show their numbers


@dataclass(frozen=True)
class Dot:
    """A value with an interval around it, and the name and colour it has in a plot."""

    name: str
    value: float
    low: float
    high: float
    colour: str


def systems_plot(systems: Sequence[System], metric: str) -> str:
    """A dot with its interval for each system; metric: its title."""
    dots = [Dot(s.name, s.value, s.low, s.high, COLOURS[s.kind]) for s in systems]
    title = "Test results with 95 % intervals"
    return _dots(dots, title, f"{_label(metric)} (1 is perfect)", "system")


def templates_plot(candidates: Sequence[RankedTemplate]) -> str:
    """Log-loss with its standard error of each tuned template, the kept ones in colour."""
    dots = [
        Dot(
            name=c.template,
            value=c.log_loss,
            low=c.log_loss - c.standard_error,
            high=c.log_loss + c.standard_error,
            colour=COLOURS["ensemble" if c.name else "pvp"],
        )
        for c in candidates
        if c.rounds
    ]
    title = "Tuned templates, kept ones in blue"
    return _dots(dots, title, "log-loss ± standard error in nats (lower is better)", "template")


def confusion_plot(counts: Sequence[Sequence[int]], labels: Sequence[str], name: str) -> str:
    """Rows of the test table by true and predicted label."""
    title = f"Confusion of the {name} (test rows)"
    return _matrix(np.array(counts), labels, title, "predicted label", "true label", ".0f")


def agreement_plot(fractions: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Fraction of the pool's rows on which two PVPs predict the same label."""
    title = "Agreement of PVPs on pool rows"
    return _matrix(np.array(fractions), names, title, "PVP", "PVP", ".2f")


def reliability_plot(systems: Sequence[System]) -> str:
    """Accuracy by confidence; on the diagonal a system is as sure as it is right."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.4, 4.0)
        axes.plot([0, 1], [0, 1], color=LINES, linestyle="--", label="perfectly calibrated")
        for system in systems:
            bins = system.reliability or []
            axes.plot(
                [b.confidence for b in bins],
                [b.accuracy for b in bins],
                "o-",
                color=COLOURS[system.kind],
                label=f"{system.name}, calibration error {system.calibration_error:.3f}",
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        y = "accuracy (fraction of rows)"
        _name(axes, "Reliability (test rows)", "mean confidence (probability)", y)
        return _svg(figure)


def coverage_plot(systems: Sequence[System]) -> str:
    """Accuracy of the answered rows by how many are answered; the band is the 95 % interval."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.6, 3.6)
        for system in systems:
            points = system.coverage or []
            coverage = [p.coverage for p in points]
            colour = COLOURS[system.kind]
            low, high = [p.low for p in points], [p.high for p in points]
            axes.plot(coverage, [p.accuracy for p in points], "o-", color=colour, markersize=3,
                      label=system.name)  # fmt: skip
            if system is systems[-1]:
                axes.fill_between(coverage, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(top=1.01)
        axes.grid(axis="y", color=LINES, linewidth=0.5)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
        x = "coverage (fraction of rows that are answered)"
        _name(axes, "Accuracy against coverage (test rows)", x, "accuracy of the answered rows")
        return _svg(figure)


def entropy_plot(entropies: Histogram) -> str:
    """How certain the soft labels of the pool are."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.6, 2.9)
        axes.bar(
            entropies.edges[:-1],
            entropies.counts,
            0.94 * np.diff(entropies.edges),
            align="edge",
            color=BLUE,
            edgecolor="none",
        )
        _name(axes, "Entropy of the soft labels", "entropy (nats)", "pool rows")
        return _svg(figure)


def balance_plot(counts: dict[str, int], mass: dict[str, float]) -> str:
    """How often each label is the most probable one, and how much probability it has."""
    with mpl.rc_context(STYLE):
        labels = list(counts)
        figure, axes = _figure(4.6, 1.0 + 0.24 * len(labels))
        positions = np.arange(len(labels))[::-1]
        rows, sums = list(counts.values()), list(mass.values())
        axes.barh(positions, rows, 0.7, color=SKY, label="most probable label")
        axes.plot(sums, positions, "D", color=INK, markersize=4, label="sum of probabilities")
        axes.set_yticks(positions, [_label(label) for label in labels])
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        _name(axes, "Labels of the pool", "pool rows", "label")
        return _svg(figure)


def generations_plot(ensembles: Sequence[System], metric: str) -> str:
    """The ensemble of each generation on the test table; metric: its title."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.6, 2.9)
        numbers = range(len(ensembles))
        values = [Measured(s.value, s.low, s.high) for s in ensembles]
        _interval_line(axes, numbers, values, BLUE, "ensemble")
        axes.set_xticks(numbers)
        y = f"{_label(metric)} (1 is perfect)"
        _name(axes, "The ensemble by generation", "generation", y)
        return _svg(figure)


def learning_plot(part: HeldOut, n_labelled: int, whole: Measured | None) -> str:
    """Accuracy of single PVPs by the labelled rows that they were tuned on.

    whole: on the test rows, tuned on all labelled rows; None without a test table
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.6, 2.9)
        _interval_line(axes, [0, part.tuned_on], [part.untuned, part.accuracy], BLUE,
                       "on labelled rows that were left out")  # fmt: skip
        if whole:
            _interval_line(axes, [n_labelled], [whole], ORANGE, "on the test rows")
        axes.set_xticks([0, part.tuned_on, *([n_labelled] if whole else [])])
        axes.set_ylim(0, 1.02)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        x = "labelled rows that a PVP is tuned on"
        _name(axes, "Learning curve of single PVPs, 95 % intervals", x, "accuracy")
        return _svg(figure)


def _interval_line(
    axes: Axes, x: Sequence[float], values: Sequence[Measured], colour: str, name: str
) -> None:
    """Values with their intervals, and a line through them."""
    middle = np.array([v.value for v in values])
    low = np.maximum(0, middle - [v.low for v in values])
    high = np.maximum(0, [v.high for v in values] - middle)
    axes.errorbar(x, middle, [low, high], fmt="o-", color=colour, capsize=3, label=name)


def _dots(dots: Sequence[Dot], title: str, x: str, y: str) -> str:
    """A line for each dot, the first at the top."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.9, 0.9 + 0.26 * len(dots))
        for position, dot in enumerate(reversed(dots)):
            line = [position, position]
            axes.plot([dot.low, dot.high], line, color=dot.colour, linewidth=2)
            axes.plot(dot.value, position, "o", color=dot.colour, markersize=6)
        axes.set_yticks(range(len(dots)), [_label(dot.name) for dot in reversed(dots)])
        axes.grid(axis="x", color=LINES, linewidth=0.5)
        axes.set_axisbelow(True)
        _name(axes, title, x, y)
        return _svg(figure)


def _matrix(
    values: np.ndarray[Any, Any], names: Sequence[str], title: str, x: str, y: str, form: str
) -> str:
    with mpl.rc_context(STYLE):
        n = len(names)
        size = min(13.0, 2.2 + (0.55 if n <= MOST_NUMBERS else 0.15) * n)
        figure, axes = _figure(size + 0.8, size)
        image = axes.imshow(values, cmap=SHADES, vmin=0, vmax=max(float(values.max()), 1e-9))
        font = 9 if n <= MOST_NUMBERS else 5
        ticks = [_label(name) for name in names]
        axes.set_xticks(range(n), ticks, rotation=45, ha="right", fontsize=font)
        axes.set_yticks(range(n), ticks, fontsize=font)
        if n <= MOST_NUMBERS:
            for row, column in np.ndindex(values.shape):
                dark = values[row, column] > 0.6 * values.max()
                text = format(values[row, column], form)
                colour = "white" if dark else INK
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
        else:
            figure.colorbar(image, ax=axes, shrink=0.6)
        axes.spines[:].set_visible(False)
        _name(axes, title, x, y)
        return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _name(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _label(name: str, longest: int = 32) -> str:
    """A user's text for an axis: short, and without what would be read as a formula."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


def _svg(figure: Figure) -> str:
    """A figure as an SVG element of a page."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, name in VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var(--{name}, {colour})")
    return svg
