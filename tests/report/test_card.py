"""The model card: front matter that the hub reads, and text that says what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from report_data import CASES, report_data

from pet_pipeline.metrics import CoveragePoint
from pet_pipeline.models import HubModel, ModelFolder
from pet_pipeline.report.card import model_card
from pet_pipeline.report.data import ReportData


def front_of(data: ReportData) -> dict[str, object]:
    """The front matter of a run's card."""
    front: dict[str, object] = yaml.safe_load(model_card(data).split("---\n")[1])
    return front


@pytest.mark.parametrize("case", [case for case in CASES if case != "no pool"])
def test_the_model_card_has_front_matter_and_the_words(case: str) -> None:
    data = report_data(**CASES[case])
    _, matter, text = model_card(data).split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-classification"
    if classifier := data.system("classifier"):
        (result,) = front["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == round(classifier.value, 4)
    for label in data.task.labels:
        assert f"`{label}`" in text
    assert "{text} it was {mask}." in text
    assert "truncation=True" in text


def test_a_hub_model_is_named_as_the_base() -> None:
    data, hub = report_data(), HubModel("org/name", "0" * 40)
    assert front_of(replace(data, base=hub, student=hub))["base_model"] == "org/name"
    assert "base_model" not in front_of(data)


def test_the_base_of_a_classifier_is_its_own_encoder() -> None:
    data = report_data()
    small = replace(data, base=HubModel("org/large", "0"), student=HubModel("org/small", "1"))
    assert front_of(small)["base_model"] == "org/small"
    assert "3 models on org/large" in model_card(small)
    assert "distilled from their soft labels into org/small in" in model_card(small)
    local = replace(small, student=ModelFolder(Path("models/tiny")))
    assert "base_model" not in front_of(local)
    assert "soft labels into tiny in" in model_card(local)
    assert "soft labels in" in model_card(data)


def test_the_limits_say_the_calibration_error_and_the_coverage_in_a_sentence() -> None:
    data = report_data()
    classifier = data.system("classifier")
    assert classifier
    assert data.metrics
    points = [CoveragePoint(0, 1, 0.7, 0.57, 0.8, 60), CoveragePoint(0.8, 0.5, 0.92, 0.8, 0.98, 30)]
    for accuracy, sentence in (
        (
            0.7,
            "At threshold 0.80 the classifier answers 50 % of the texts and is right on 92 % of "
            "those (95 % interval 80 to 98 %).",
        ),
        (0.99, "It is right on 99 % of the test texts or more without a threshold."),
    ):
        changed = replace(classifier, accuracy=accuracy, calibration_error=0.0456, coverage=points)
        card = model_card(replace(data, metrics=replace(data.metrics, systems=[changed])))
        assert "Its probabilities were off by 0.046 on average on the test rows" in card
        assert sentence in card


def test_f1_says_of_which_label() -> None:
    data = report_data(labels=("sad", 'ha"p|py'), metric="f1")
    assert "| system | f1 of 'ha\"p\\|py' | 95 % interval |" in model_card(data)
    (result,) = yaml.safe_load(model_card(data).split("---\n")[1])["model-index"][0]["results"]
    assert result["metrics"][0] == {
        "type": "f1",
        "name": "f1 of 'ha\"p|py'",
        "value": pytest.approx(data.system("classifier").value, abs=1e-4),  # type: ignore[union-attr]
    }


def test_a_card_says_how_the_classifier_was_made() -> None:
    assert (
        "3 models on tiny, each tuned for 60 steps, in 1 generation, labelled the pool together; "
        "this classifier was distilled from their soft labels in 300 steps at temperature 2.0."
    ) in model_card(report_data())
    assert "3 models on tiny, in 1 generation," in model_card(report_data(labelled=False))
    ipet = model_card(report_data(labelled=False, generations=2))
    assert "3 models on tiny, each tuned for 60 steps, in 2 generations," in ipet
    assert "in 7 steps at" in model_card(replace(report_data(), steps=7))


def test_pairs_of_texts_are_used_as_pairs() -> None:
    data = report_data()
    assert "text_pair" not in model_card(data)
    pairs = replace(data, task=replace(data.task, columns=("text", "other")))
    assert 'classify({"text": "...", "text_pair": "..."}, truncation=True)' in model_card(pairs)


def test_without_a_test_table_nothing_is_claimed() -> None:
    card = model_card(report_data(measured=False))
    assert "Not measured: there was no test table." in card
    assert "model-index" not in card
    assert "calibration error" not in card
