"""The report: complete, self-contained, escaped, and the same each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pet_pipeline.metrics import calibration_error, confusion, measure, reliability
from pet_pipeline.patterns import Field, Pattern, Task
from pet_pipeline.report.card import model_card
from pet_pipeline.report.facts import Facts
from pet_pipeline.report.page import render_page
from pet_pipeline.run import Result

EVIL = '<script>alert(1)</script> & $x_1$ "quoted" {mask} 😀 中'


def pvp(name: str, labels: tuple[str, ...]) -> Pattern:
    parts = (Field("text"), " it was ", Field("mask"), ".")
    return Pattern(name, parts, labels, tuple((f"word {n}",) for n in range(len(labels))))


def system(kind: str, name: str, labels: int, generation: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(len(name))
    probs, gold = rng.dirichlet(np.ones(labels), 60), rng.integers(labels, size=60)
    found = measure("accuracy", gold, probs.argmax(1))
    return {
        "kind": kind,
        "name": name,
        "generation": generation,
        **vars(found),
        "accuracy": found.value,
        "f1_macro": 0.5,
        "calibration_error": calibration_error(probs, gold),
        "confusion": confusion(gold, probs.argmax(1), labels),
        "reliability": [vars(b) for b in reliability(probs, gold)],
    }


def templates(template: str) -> dict[str, Any]:
    candidates = [
        {"template": f"{template} {n}", "generator": "mlm", "log_loss": n / 3, "error": 0.1}
        for n in range(5)
    ]
    for n, candidate in enumerate(candidates):
        candidate |= {"rounds": 2 - n // 2} | ({"name": f"found-{n}"} if n < 2 else {})
    return {"rows": 8, "verdict": "Within noise, that is.", "candidates": candidates}


def found_words(labels: tuple[str, ...]) -> dict[str, Any]:
    words = [[f"w{n}", EVIL] for n in range(len(labels))]
    counts = {"correct": 7, "own_correct": 5, "rows": 8, "combinations": 2500, "exact": True}
    return {"name": "just-words", "labels": labels, "words": words, **counts}


def facts(
    *,
    labels: tuple[str, ...] = ("sad", "<b>happy</b> & $free$"),
    models: int = 3,
    generations: int = 1,
    measured: bool = True,
    classifier: bool = True,
    labelled: bool = True,
    searched: bool = False,
) -> Facts:
    names = [f"pattern_{n}-1" for n in range(models)]
    ensemble = {
        "models": names,
        "weights": [1 / models] * models,
        "temperature": 1.0,
        "rows": 100,
        "agreement": np.eye(models).tolist(),
        "label_counts": dict.fromkeys(labels, 10),
        "label_mass": dict.fromkeys(labels, 9.5),
        "entropy": {"edges": np.linspace(0, 1, 6).tolist(), "counts": [5, 4, 3, 2, 1]},
        "disputed": [
            {
                "id": "x1",
                "text": {"text": EVIL + "long " * 400},
                "votes": [labels[n % len(labels)] for n in range(models)],
                "probs": [1 / len(labels)] * len(labels),
                "disagreement": 0.3,
            }
        ],
    }
    grown = {
        "rows": 4,
        "mean_confidence": 0.7,
        "added": dict.fromkeys(labels, 2),
        "short": "sad 1 of 9",
    }
    systems = [system("pvp", name, len(labels), 0) for name in names]
    for n in range(generations):
        systems += [system("pvp", name, len(labels), n) for name in names if n]
        systems += [system("mean", "mean of the PVPs", len(labels), n)]
        systems += [system("ensemble", "ensemble", len(labels), n)]
    systems += [system("classifier", "classifier", len(labels))] * classifier
    systems += [system("baseline", "baseline", len(labels))] * labelled
    return Facts(
        task=Task("mood", ("text",), labels, "accuracy", tuple(pvp(n[:-2], labels) for n in names)),
        settings_text='model = "<i>x</i>"',
        settings={
            "finetune": {"steps": 60, "learning_rate": 0.0003},
            "ensemble": {"weights": "uniform"},
            "distill": {"steps": 300, "temperature": 2.0},
            "demonstrations": {"enabled": searched, "draws": 4},
        },
        model="tiny",
        on_hub=False,
        rows={
            "pool": 100,
            **({"labelled": 8} if labelled else {}),
            **({"test": 60} if measured else {}),
        },
        labelled=dict.fromkeys(labels, 4) if labelled else {},
        patterns=[
            {
                "name": n,
                "rendered": [EVIL],
                "words": {label: [["a", "##b"]] for label in labels},
                "masks": 2,
                "truncated": 1,
                "checked": 9,
            }
            for n in names
        ],
        generations=[
            {"ensemble": ensemble, "rows": {}, "grown": {"m": grown} if n else {}}
            for n in range(generations)
        ],
        metrics={
            "metric": "accuracy",
            "labels": list(labels),
            "test_rows": 60,
            "generations": generations,
            "systems": systems,
        }
        if measured
        else None,
        classifier=Result(Path("c"), "k", {}) if classifier else None,
        made_by={"python": "3.11", "torch": "2.13", "machine": {"jobs": 1}},
        searched=templates(EVIL) if searched else None,
        found_words=[found_words(labels)] if searched else [],
    )


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
}


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_and_needs_no_network(case: str) -> None:
    page = render_page(facts(**CASES[case]))
    tags = Tags(page)
    assert "script" not in tags.tags
    assert "b" in tags.tags  # of the template; a user's would show up as happy in bold
    assert "<b>happy" not in page
    inside = ("#", "data:image/png;base64,")
    assert all(reference.startswith(inside) for reference in tags.references)
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(tags.ids) == len(set(tags.ids))
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
    found = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert sorted(found) == sorted(headings)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x_1$" in page


def test_every_figure_has_a_title_and_named_axes() -> None:
    page = render_page(facts(generations=2))
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    texts = [set(re.findall(r"<text[^>]*>([^<]*)</text>", svg)) for svg in svgs]
    wanted = [
        {"Test results with 95 % intervals", "accuracy (1 is perfect)", "system"},
        {"Confusion of the classifier (test rows)", "predicted label", "true label"},
        {"Reliability (test rows)", "mean confidence (probability)", "accuracy (share)"},
        {"Entropy of the soft labels", "entropy (nats)", "pool rows"},
        {"Labels of the pool", "pool rows", "label"},
        {"Agreement of the PVPs (share of pool rows)", "PVP"},
        {"The ensemble by generation", "generation", "accuracy (1 is perfect)"},
    ]
    assert len(svgs) == len(wanted)
    for own, found in zip(wanted, texts, strict=True):
        assert own <= found


def test_the_same_run_gives_the_same_page() -> None:
    assert render_page(facts()) == render_page(facts())


@pytest.mark.parametrize("case", CASES)
def test_the_model_card_has_front_matter_and_the_words(case: str) -> None:
    made = facts(**CASES[case])
    _, matter, text = model_card(made).split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-classification"
    if made.system("classifier"):
        (result,) = front["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == round(made.system("classifier")["value"], 4)
    for label in made.task.labels:
        assert f"`{label}`" in text
    assert "{text} it was {mask}." in text
    assert "truncation=True" in text


def test_a_hub_model_is_named_as_the_base() -> None:
    made = facts()
    hub = Facts(**{**vars(made), "on_hub": True, "model": "org/name"})
    assert yaml.safe_load(model_card(hub).split("---\n")[1])["base_model"] == "org/name"
    assert "base_model" not in model_card(made)
