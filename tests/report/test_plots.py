"""The pictures: SVG with the texts that are given, whatever is in them."""

from __future__ import annotations

import re

import pytest
from report_data import EVIL, LABELS, MANY, report_data, system

from pet_pipeline.metrics import Measured, proportion
from pet_pipeline.report import plots
from pet_pipeline.report.data import HeldOut
from pet_pipeline.stages.compare_templates import RankedTemplate
from pet_pipeline.stages.pool_summary import Histogram


def texts(svg: str) -> list[str]:
    """The texts of a picture."""
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def template(text: str, **values: object) -> RankedTemplate:
    given = {"generator": "mlm", "score": 0.0, "log_loss": 0.5, "standard_error": 0.1, **values}
    return RankedTemplate(text, **given)  # type: ignore[arg-type]


def test_systems_have_a_line_each_the_first_at_the_top() -> None:
    systems = [system("pvp", "first", LABELS), system("ensemble", "second", LABELS)]
    svg = plots.systems_plot(systems, "f1 of 'a$b'")
    heights = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>(?:first|second)<', svg)]
    names = re.findall(r">(first|second)<", svg)
    assert dict(zip(names, heights, strict=True))["first"] < max(heights)
    assert "f1 of 'a$b' (1 is perfect)" in texts(svg)  # no formula
    assert plots.COLOURS["ensemble"].lower() in svg


def test_only_tuned_templates_are_shown_and_kept_ones_have_their_colour() -> None:
    candidates = [
        template("{text} {mask}", rounds=2, name="found-1"),
        template("{mask}: {text}", rounds=1),
        template("untuned {mask}"),
    ]
    svg = plots.templates_plot(candidates)
    assert {"{text} {mask}", "{mask}: {text}"} <= set(texts(svg))
    assert "untuned {mask}" not in texts(svg)
    assert plots.COLOURS["ensemble"].lower() in svg
    assert plots.COLOURS["ensemble"].lower() not in plots.templates_plot(candidates[1:])


def test_a_large_matrix_has_a_scale_instead_of_numbers() -> None:
    small = texts(plots.confusion_plot([[31, 2], [3, 44]], ["a", "b"], "classifier"))
    assert {"31", "2", "3", "44", "true label", "predicted label"} <= set(small)
    large = texts(plots.confusion_plot([[77] * 77] * 77, MANY, "classifier"))
    assert "77" not in large
    assert "Confusion of the classifier (test rows)" in large


def test_long_and_odd_texts_fit_on_an_axis() -> None:
    shown = texts(plots.balance_plot({EVIL * 5: 3, "b": 1}, {EVIL * 5: 2.5, "b": 1.5}))
    long = next(text for text in shown if text.startswith("&lt;script"))
    assert long.endswith("…")
    assert {"most probable label", "sum of probabilities"} <= set(shown)


def test_a_system_without_details_is_no_obstacle() -> None:
    data = report_data()
    assert data.metrics
    mean = data.metrics.systems[0]
    bare = type(mean)(**{**vars(mean), "reliability": None})
    assert "perfectly calibrated" in texts(plots.reliability_plot([bare]))


def test_coverage_has_a_line_for_each_system_and_a_band_for_the_last() -> None:
    systems = [system(kind, kind, LABELS) for kind in ("ensemble", "classifier")]
    svg = plots.coverage_plot(systems)
    assert {"Accuracy against coverage (test rows)", "ensemble", "classifier"} <= set(texts(svg))
    assert svg.count("FillBetweenPolyCollection") == 1
    ours = svg[svg.index("FillBetweenPolyCollection") :]
    assert "var(--orange, #d55e00)" in ours[: ours.index("</g>")]


def test_colours_are_variables_that_the_page_can_change() -> None:
    svg = plots.systems_plot([system("mean", "a", LABELS), system("ensemble", "b", LABELS)], "mcc")
    svg += plots.confusion_plot([[31, 2], [3, 44]], ["a", "b"], "classifier")
    svg += plots.balance_plot({"a": 3}, {"a": 2.5})
    assert "var(--ink, #000000)" in svg
    plain = set(re.findall(r": (#[0-9a-f]{6})", svg))
    assert plain <= {"#ffffff"}  # numbers on dark cells
    assert "background" not in svg
    assert 'id="patch_1"' in svg
    assert not re.search(r'id="patch_1">\s*<path[^>]*fill: #ffffff(?!; opacity: 0)', svg)


def test_generations_are_numbered_from_0() -> None:
    ensembles = [system("ensemble", "ensemble", LABELS, n) for n in range(3)]
    shown = texts(plots.generations_plot(ensembles, "mcc"))
    assert {"0", "1", "2", "mcc (1 is perfect)"} <= set(shown)


@pytest.mark.parametrize("whole", [None, proportion(7, 10)])
def test_the_learning_curve_has_what_was_tuned_on(whole: Measured | None) -> None:
    part = HeldOut(36, 48, untuned=proportion(0, 48), accuracy=proportion(48, 48))
    shown = texts(plots.learning_plot(part, 47, whole))
    assert {"0", "36", "on labelled rows that were left out"} <= set(shown)
    assert ("47" in shown) == ("on the test rows" in shown) == bool(whole)


def test_the_same_numbers_give_the_same_bytes() -> None:
    entropies = Histogram([0.0, 0.3, 0.7], [4, 2])
    assert plots.entropy_plot(entropies) == plots.entropy_plot(entropies)
