"""Which words and templates a new task starts with."""

from __future__ import annotations

import pytest

from pet_pipeline.drafts import JUDGEMENTS, RELATIONS, TOPICS, draft_task, with_columns
from pet_pipeline.errors import UserError

ONE = ["text"]


@pytest.mark.parametrize(
    ("labels", "columns", "templates"),
    [
        (["sports", "politics"], ONE, TOPICS),
        (["sports", "politics"], ["title", "body"], TOPICS),
        (["negative", "positive"], ONE, JUDGEMENTS),
        (["negative", "positive"], ["title", "body"], JUDGEMENTS),
        (["1", "2", "3", "4", "5"], ONE, JUDGEMENTS),
        (["entailment", "not_entailment"], ["a", "z"], RELATIONS),
        (["0", "1"], ["sentence1", "sentence2"], RELATIONS),
        (["0", "1"], ["Premise", "Hypothesis"], RELATIONS),
        (["0", "1"], ["title", "body"], TOPICS),
        (["0", "1"], ["text", "text_2"], TOPICS),
        (["no", "yes"], ONE, TOPICS),
        (["no", "yes"], ["a", "b", "c"], TOPICS),
    ],
)
def test_templates_are_chosen_by_names(
    labels: list[str], columns: list[str], templates: object
) -> None:
    draft = draft_task(labels, columns)
    assert draft.templates is templates
    assert draft.others is not templates


def test_words_are_those_that_fit_the_templates() -> None:
    assert draft_task(["bad", "good"], ONE).words == {"bad": ("bad",), "good": ("good",)}
    assert draft_task(["no", "yes"], ["text_a", "text_b"]).words["yes"] == ("Yes",)
    assert draft_task(["no", "yes"], ONE).words["yes"] == ("yes",)
    assert draft_task(["low", "high"], ["text_a", "text_b"]).words["low"] == ("low",)


def test_words_that_are_given_are_taken() -> None:
    draft = draft_task(["0", "spam"], ONE, {"0": ["fine", "useful"]})
    assert draft.words == {"0": ("fine", "useful"), "spam": ("spam",)}
    assert draft_task(["negative", "positive"], ONE, {"positive": "nice"}).words == {
        "negative": ("terrible",),
        "positive": ("nice",),
    }
    same = draft_task(["Spam", "spam"], ONE, {"Spam": "advertising"})
    assert same.words == {"Spam": ("advertising",), "spam": ("spam",)}
    with pytest.raises(UserError) as error:
        draft_task(["spam", "ham"], ONE, {"spma": "x"})
    assert str(error.value) == "words: 'spma' is not a label; did you mean 'spam'?"


@pytest.mark.parametrize(
    ("labels", "columns", "weak"),
    [
        (["0", "1"], ONE, ("0", "1")),
        (["0", "1"], ["text_a", "text_b"], ("0", "1")),
        (["no", "yes"], ONE, ("no", "yes")),
        (["no", "yes"], ["text_a", "text_b"], ()),
        (["1", "2", "3", "4", "5"], ONE, ()),
        (["0", "spam"], ONE, ("0",)),
    ],
)
def test_labels_whose_names_say_nothing_are_remembered(
    labels: list[str], columns: list[str], weak: tuple[str, ...]
) -> None:
    assert draft_task(labels, columns).weak == weak
    assert draft_task(labels, columns, dict.fromkeys(labels, "word")).weak == ()


@pytest.mark.parametrize(
    ("template", "columns", "filled"),
    [
        ("{text} {mask}", ["text"], "{text} {mask}"),
        ("{text} {mask}", ["title", "text"], "{title} {text} {mask}"),
        ("{first:strip_punct}? {second}", ["second", "first"], "{second:strip_punct}? {first}"),
        ("{text} {mask}", ["the \\1 text"], "{the \\1 text} {mask}"),
    ],
)
def test_templates_name_the_columns(template: str, columns: list[str], filled: str) -> None:
    assert with_columns(template, columns) == filled
