"""The page: complete, self-contained, escaped, and the same each time."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_data import CASES, report_data

from pet_pipeline.report.page import render_page
from pet_pipeline.settings import check_settings


class Tags(HTMLParser):
    """The tags of a page and what they refer to."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def text_of(page: str) -> str:
    """What a page says, without its pictures and tags."""
    without = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without))


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_and_needs_no_network(case: str) -> None:
    page = render_page(report_data(**CASES[case]))
    tags = Tags(page)
    assert "script" not in tags.tags
    assert "b" in tags.tags  # of the template; a user's would show up as happy in bold
    assert "<b>happy" not in page
    inside = ("#", "data:image/png;base64,")
    assert all(reference.startswith(inside) for reference in tags.references)
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(tags.ids) == len(set(tags.ids))
    assert {reference[1:] for reference in tags.references if reference[0] == "#"} <= set(tags.ids)
    headings = [
        "What was run",
        "The pool",
        "Where the PVPs disagree most",
        "The patterns",
        "Settings",
    ]
    if CASES[case].get("measured", True):
        headings += ["Results", "Calibration"]
    if "generations" in CASES[case]:
        headings += ["What iPET added"]
    if "searched" in CASES[case]:
        headings += ["The template search", "The label-word search"]
        assert "Within noise, that is." in page
    assert sorted(re.findall(r"<h2[^>]*>(.*?)</h2>", page)) == sorted(headings)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x_1$" in page
    assert "model = &#34;&lt;i&gt;x&lt;/i&gt;&#34;" in page
    assert "Made with python 3.11, torch 2.13." in page


def test_every_figure_has_a_title_and_named_axes() -> None:
    page = render_page(report_data(generations=2))
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    texts = [set(re.findall(r"<text[^>]*>([^<]*)</text>", svg)) for svg in svgs]
    wanted = [
        {"Test results with 95 % intervals", "accuracy (1 is perfect)", "system"},
        {"Confusion of the classifier (test rows)", "predicted label", "true label"},
        {"Reliability (test rows)", "mean confidence (probability)", "accuracy (fraction of rows)"},
        {"Entropy of the soft labels", "entropy (nats)", "pool rows"},
        {"Labels of the pool", "pool rows", "label"},
        {"Agreement of the PVPs (fraction of pool rows)", "PVP"},
        {"The ensemble by generation", "generation", "accuracy (1 is perfect)"},
    ]
    assert len(svgs) == len(wanted)
    for needed, found in zip(wanted, texts, strict=True):
        assert needed <= found


def test_f1_says_of_which_label_in_words_table_and_figures() -> None:
    page = render_page(report_data(labels=("sad", "happy"), metric="f1", generations=2))
    assert re.search(r"The classifier reaches f1 of &#39;happy&#39; 0\.\d{3} \(", page)
    assert '<th class="n">f1 of &#39;happy&#39;</th>' in page
    assert page.count("f1 of 'happy' (1 is perfect)") == 2  # axes
    assert '<th class="n">accuracy</th>' in page  # besides the task's own metric


def test_results_tell_the_systems_and_their_intervals() -> None:
    data = report_data()
    text = text_of(render_page(data))
    best = data.system("classifier")
    assert best
    assert (
        f"The classifier reaches accuracy {best.value:.3f} ({best.low:.3f} to {best.high:.3f}) "
        "on 60 test rows; the mean PVP "
    ) in text
    assert "Intervals are over test splits like this one (60 rows)" in text
    nothing = text_of(render_page(report_data(measured=False)))
    assert "There was no test table, so nothing is measured." in nothing
    assert "No test table was given, so there are no results to show" in nothing


def test_added_rows_are_told_per_model() -> None:
    text = text_of(render_page(report_data(generations=2, labels=("sad", "happy"))))
    assert "rows per model" in text
    assert "1 4 0.700 sad 2, happy 2 sad 1 of 9" in text


def test_figures_of_the_searches_are_called_in_sample() -> None:
    text = text_of(render_page(report_data(searched=True)))
    assert "right in-sample, found words right in-sample, own words" in text
    assert "In-sample: labelled rows that the untuned model gets right" in text
    assert "7 of 8" in text
    assert "5 of 8" in text
    assert "2,500, all compared" in text
    assert "those of the kept templates are in-sample" in text
    assert "log-loss standard error judged kept as" in text


def test_models_say_whether_they_were_tuned() -> None:
    tuned = "60 steps each at a learning rate of 0.0003"
    data = report_data()
    assert tuned in text_of(render_page(data))
    assert tuned in text_of(render_page(report_data(labelled=False, generations=2)))
    for untuned in (
        report_data(labelled=False),
        replace(data, settings=check_settings({"finetune": {"steps": 0}})),
    ):
        assert "3, untuned" in text_of(render_page(untuned))


def test_the_same_run_gives_the_same_page() -> None:
    assert render_page(report_data()) == render_page(report_data())
