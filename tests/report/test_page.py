"""The page: complete, self-contained, escaped, and the same each time."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import Markup
from report_data import CASES, LABELS, page_of, report_data

from pet_pipeline.metrics import CoveragePoint, label_qualities
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


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take longer than all the rest."""
    monkeypatch.setattr("pet_pipeline.report.page._figures", lambda data: defaultdict(Markup))


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_and_needs_no_network(case: str) -> None:
    page = page_of(case)
    tags = Tags(page)
    assert "script" not in tags.tags
    # Of the template; a user's would show up as happy in bold.
    assert ("b" in tags.tags) == (case != "no pool")
    assert "<b>happy" not in page
    inside = ("#", "data:image/png;base64,")
    assert all(reference.startswith(inside) for reference in tags.references)
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(tags.ids) == len(set(tags.ids))
    assert {reference[1:] for reference in tags.references if reference[0] == "#"} <= set(tags.ids)
    case_of = CASES[case]
    headings = ["What was run", "Settings", "Warnings about the tables"]
    if case_of.get("generations", 1):
        headings += ["The patterns", "The pool", "Where the PVPs disagree most"]
        if case_of.get("labelled", True):
            headings += ["What more labels bring: learning curve"]
    if case_of.get("generations", 1) > 1:
        headings += ["What iPET added"]
    if case_of.get("measured", True):
        headings += ["Results", "Label by label", "What can be left to it: coverage"]
        headings += ["Calibration", "The most confident mistakes"]
    if "prompts" in case_of:
        headings += ["The soft prompts"]
    if "selected" in case_of:
        headings += ["The selection of learning rate and steps"]
        assert "9e-05" in page
        assert "ahead of the first candidate by 0.100 ± 0.020 nats (paired, 32 rows)" in page
    if "searched" in case_of:
        headings += ["The template search", "The label-word search"]
        assert "Within noise, that is." in page
    if "adapted" in case_of:
        headings += ["How the model was adapted"]
        assert "28,000 tokens in 7 updates" in page
        assert '<td>masked accuracy</td><td class="n">50 %</td><td class="n">62 %</td>' in page
        assert "Measured on 1,234 masked positions" in page
    assert sorted(re.findall(r"<h2[^>]*>(.*?)</h2>", page)) == sorted(headings)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x_1$" in page
    assert "model = &#34;&lt;i&gt;x&lt;/i&gt;&#34;" in page
    assert "Made with python 3.11, torch 2.13." in page


def test_a_run_without_a_pool_is_about_its_baseline() -> None:
    assert re.sub(r"<[^>]+>", "", page_of("no pool")).count(
        "The baseline of the task mood: an ordinary classifier on the model"
    )


def test_every_figure_has_a_title_and_named_axes() -> None:
    page = render_page(report_data(generations=2))
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    texts = [set(re.findall(r"<text[^>]*>([^<]*)</text>", svg)) for svg in svgs]
    wanted = [
        {"Test results with 95 % intervals", "accuracy (1 is perfect)", "system"},
        {"Confusion of the classifier (test rows)", "predicted label", "true label"},
        {
            "Accuracy against coverage (test rows)",
            "coverage (fraction of rows that are answered)",
            "accuracy of the answered rows",
        },
        {"Reliability (test rows)", "mean confidence (probability)", "accuracy (fraction of rows)"},
        {"Learning curve of single PVPs, 95 % intervals", "accuracy"},
        {"Entropy of the soft labels", "entropy (nats)", "pool rows"},
        {"Labels of the pool", "pool rows", "label"},
        {"Agreement of PVPs on pool rows", "PVP"},
        {"The ensemble by generation", "generation", "accuracy (1 is perfect)"},
    ]
    assert len(svgs) == len(wanted)
    for needed, found in zip(wanted, texts, strict=True):
        assert needed <= found


def test_f1_says_of_which_label_in_words_table_and_figures() -> None:
    page = render_page(report_data(labels=("sad", "happy"), metric="f1", generations=2))
    assert re.search(r"The metric of the task, f1 of &#39;happy&#39;, is 0\.\d{3} \(", page)
    assert '<th class="n">f1 of &#39;happy&#39;</th>' in page
    assert page.count("f1 of 'happy' (1 is perfect)") == 2  # axes
    assert '<th class="n">accuracy</th>' in page  # besides the task's own metric


@pytest.mark.usefixtures("no_pictures")
def test_results_tell_the_systems_and_their_intervals() -> None:
    data = report_data()
    text = text_of(render_page(data))
    best = data.system("classifier")
    assert best
    assert f"classifier {best.value:.3f} {best.low:.3f} to {best.high:.3f}" in text
    assert "Intervals are over test splits like this one (60 rows)" in text
    nothing = text_of(render_page(report_data(measured=False)))
    assert "there was no test table, so nothing was measured" in nothing


def test_the_first_screen_answers_before_anything_else_is_shown() -> None:
    page = page_of("whole")
    first, _, rest = page[page.index("<body>") :].partition("<h2")
    assert re.findall(r"<h3>(.*?)</h3>", first) == [
        "Is it good enough?",
        "On which labels is it not?",
        "What can be left to it?",
        "What would more labels bring?",
        "What to do next?",
    ]
    assert "<svg" not in first
    assert "<table" not in first
    text = text_of(first)
    assert (
        "The classifier is right on 50 % of the 60 test texts (95 % interval 38 to 62 %)." in text
    )
    assert "12 are right with the classifier alone and 3 with the baseline alone" in text
    assert "pet label-next &#39;runs/my mood&#39; --n 50 --output todo.csv" in text
    assert "<svg" in rest


@pytest.mark.usefixtures("no_pictures")
def test_weak_labels_are_listed_and_percent_signs_stay_with_their_number() -> None:
    data = report_data(labels=("sad", "happy"))
    assert data.metrics
    assert data.best
    weak = label_qualities([[20, 80], [0, 400]], ("sad", "happy"))
    best = replace(data.best, labels=weak, confusion=[[20, 80], [0, 400]])
    page = render_page(replace(data, metrics=replace(data.metrics, systems=[best])))
    (item,) = re.findall(r"<p>(&#39;sad&#39; \(F1 0.33\).*?)</p>", page)
    assert "20 of its 100 texts are found" in item
    both = label_qualities([[20, 80], [100, 0]], ("sad", "happy"))
    best = replace(best, labels=both, confusion=[[20, 80], [100, 0]])
    page = render_page(replace(data, metrics=replace(data.metrics, systems=[best])))
    items = re.findall(r"<li>(&#39;.*?)</li>", page)
    assert [re.findall(r"&#39;(.*?)&#39;", item)[0] for item in items] == ["happy", "sad"]
    assert "(95\u00a0% interval 38 to 62\u00a0%)" in page


@pytest.mark.usefixtures("no_pictures")
def test_remarks_and_warnings_are_at_the_top_and_warnings_are_listed() -> None:
    data = report_data()
    page = render_page(data)
    top = page[: page.index("Is it good enough?")]
    assert '<a href="#data">1 warning</a>' in top
    assert "data.pool: 3 rows have no text: &lt;script&gt;" in page[len(top) :]
    assert "Before you rely on it" not in page
    one_sided = replace(data.generations[0].ensemble, label_counts={LABELS[0]: 99, LABELS[1]: 1})
    wrong = replace(data, generations=[replace(data.generations[0], ensemble=one_sided)])
    page = render_page(wrong)
    assert "The ensemble gives &#39;sad&#39; to 99 % of the pool rows" in page
    assert page.index("Before you rely on it") < page.index("Is it good enough?")
    clean = render_page(replace(data, warnings=[]))
    assert 'class="warnings"' not in clean
    assert "Warnings about the tables" not in clean


@pytest.mark.usefixtures("no_pictures")
def test_each_label_has_its_figures_with_intervals() -> None:
    data = report_data(labels=("sad", "happy"))
    assert data.best
    assert data.best.labels
    text = text_of(render_page(data))
    for quality in data.best.labels:
        shown = [
            f"{m.value:.3f} {m.low:.3f} to {m.high:.3f}"
            for m in (quality.precision, quality.recall, quality.f1)
            if m
        ]
        counts = f"{quality.gold} {quality.predicted} {quality.right}"
        assert f"{quality.label} {' '.join(shown)} {counts}" in text


@pytest.mark.usefixtures("no_pictures")
def test_a_label_that_is_never_predicted_has_no_precision() -> None:
    data = report_data(labels=("sad", "happy"))
    assert data.metrics
    assert data.best
    never = label_qualities([[5, 0], [3, 0]], ("sad", "happy"))
    metrics = replace(data.metrics, systems=[replace(data.best, labels=never)])
    text = text_of(render_page(replace(data, metrics=metrics)))
    assert "happy none 0.000 0.000 to 0.561 0.000 0.000 to 0.719 3 0 0" in text


@pytest.mark.usefixtures("no_pictures")
def test_mistakes_are_shown_with_their_texts() -> None:
    data = report_data(labels=("sad", "happy"))
    assert data.metrics
    page = render_page(data)
    shown = page[page.index('id="mistakes"') : page.index('id="data"')]
    assert "t1 &lt;script&gt;alert(1)" in text_of(shown)
    assert "sad happy 0.987" in text_of(shown)
    perfect = replace(data, metrics=replace(data.metrics, mistakes=[]))
    assert "The classifier makes none on the test rows." in render_page(perfect)


@pytest.mark.usefixtures("no_pictures")
def test_wished_accuracies_have_their_threshold_or_none() -> None:
    data = report_data()
    assert data.metrics
    assert data.best
    points = [CoveragePoint(0, 1, 0.7, 0.57, 0.8, 60), CoveragePoint(0.8, 0.5, 0.92, 0.8, 0.98, 30)]
    best = replace(data.best, accuracy=0.7, coverage=points)
    text = text_of(render_page(replace(data, metrics=replace(data.metrics, systems=[best]))))
    assert "90 % 0.8 50 % 92 % 80 % to 98 % 30" in text
    assert "95 % none" in text


@pytest.mark.usefixtures("no_pictures")
def test_the_time_of_each_stage_and_of_all() -> None:
    text = text_of(render_page(report_data()))
    assert "finetune 3 1 min 15 s distill 1 4.2 s all 4 1 min 19 s" in text


def test_tables_and_pictures_scroll_by_themselves() -> None:
    page = page_of("searched")
    assert page.count("<table>") == page.count('<div class="scroll"><table>') > 5
    assert "min-width: 8ch" in page
    for width, smallest in re.findall(
        r'<svg[^>]*? width="([\d.]+)pt" style="min-width: (\d+)pt"', page
    ):
        assert float(smallest) == pytest.approx(0.75 * float(width), abs=1)
    assert page.count("<svg ") == len(re.findall(r'<svg[^>]*style="min-width', page))


def test_the_page_has_colours_for_the_dark_and_for_print() -> None:
    page = page_of("whole")
    style = page[page.index("<style>") : page.index("</style>")]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    names = [re.findall(r"--(\w+): #", block) for block in (light, dark)]
    assert names[0] == names[1]
    assert "@media screen and (prefers-color-scheme: dark)" in style  # not on paper
    assert "@media print" in style
    used = set(re.findall(r"var\(--(\w+)", page))
    assert used <= set(names[0])


@pytest.mark.usefixtures("no_pictures")
def test_added_rows_are_told_per_model() -> None:
    text = text_of(render_page(report_data(generations=2, labels=("sad", "happy"))))
    assert "rows per model" in text
    assert "1 4 0.700 sad 2, happy 2 sad 1 of 9" in text


@pytest.mark.usefixtures("no_pictures")
def test_figures_of_the_searches_are_called_in_sample() -> None:
    text = text_of(render_page(report_data(searched=True)))
    assert "right in-sample, found words right in-sample, own words" in text
    assert "In-sample: labelled rows that the untuned model gets right" in text
    assert "7 of 8" in text
    assert "5 of 8" in text
    assert "2,500, all compared" in text
    assert "those of the kept templates are in-sample" in text
    assert "log-loss standard error judged kept as" in text


@pytest.mark.usefixtures("no_pictures")
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
    assert render_page(report_data()) == page_of("whole")
