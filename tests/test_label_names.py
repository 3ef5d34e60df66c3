"""What names of labels say: their order, judgements and relations, words for the mask."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.label_names import (
    in_order,
    judgement_words,
    relation_words,
    weak_names,
    words_from_names,
)

STARS = {"1": "terrible", "2": "bad", "3": "okay", "4": "good", "5": "great"}
names = st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=5, unique=True)
likely_names = st.lists(
    st.text("aAbBcC12_-/&| ,", min_size=1, max_size=12), min_size=2, max_size=5, unique=True
)


@pytest.mark.parametrize(
    "ordered",
    [
        ["very negative", "negative", "neutral", "positive", "very positive"],
        ["negative", "somewhat negative", "neutral", "somewhat positive", "positive"],
        ["NEG", "POS"],
        ["awful", "bad", "okay", "good", "great"],
        ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        ["entailment", "neutral", "contradiction"],
        ["-1", "0", "0.5", "2", "10"],
        ["class 2", "class 10"],
        ["apples", "Business", "sports", "Äpfel"],
    ],
)
def test_the_order_is_that_of_the_meaning(ordered: list[str]) -> None:
    shuffled = [*ordered]
    random.Random(3).shuffle(shuffled)
    assert in_order(shuffled) == ordered


@given(names)
def test_every_label_is_in_the_order_however_the_rows_are(labels: list[str]) -> None:
    assert in_order(labels) == in_order(labels[::-1])
    assert sorted(in_order(labels)) == sorted(labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["negative", "positive"], ["terrible", "great"]),
        (["Negative", "Neutral", "Positive"], ["terrible", "okay", "great"]),
        (
            ["very_negative", "negative", "neutral", "positive", "very_positive"],
            ["terrible", "bad", "okay", "good", "great"],
        ),
        (["somewhat negative", "negative", "positive"], ["bad", "terrible", "great"]),
        (["bad", "good"], ["bad", "good"]),
        (["negative", "mixed", "neutral", "positive"], ["terrible", "mixed", "okay", "great"]),
        ([*STARS], [*STARS.values()]),
        (["1 star", "2 stars", "5 Stars"], ["terrible", "bad", "great"]),
    ],
)
def test_labels_that_judge_get_adjectives(labels: list[str], words: list[str]) -> None:
    assert judgement_words(labels) == {
        label: (word,) for label, word in zip(labels, words, strict=True)
    }


@pytest.mark.parametrize(
    "labels",
    [
        ["positive", "negative", "spam"],
        ["0", "1"],
        ["1", "2", "3"],  # no marks, for 5 is missing
        ["neutral", "mixed"],  # neither is better
        ["okay", "neutral", "bad"],  # would both be okay
        ["negative", "neg", "positive"],
        ["not good", "good"],
    ],
)
def test_other_labels_do_not_judge(labels: list[str]) -> None:
    assert judgement_words(labels) == {}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["entailment", "neutral", "contradiction"], ["Yes", "Maybe", "No"]),
        (["not_duplicate", "duplicate"], ["No", "Yes"]),
        (["True", "False"], ["Yes", "No"]),
        (["no", "yes"], ["No", "Yes"]),
        (["entailment", "yes"], None),
        (["contradiction", "not entailment"], None),
        (["entailment", "sports"], None),
        (["yes"], None),
    ],
)
def test_labels_that_relate_are_yes_maybe_and_no(labels: list[str], words: list[str]) -> None:
    made = {label: (word,) for label, word in zip(labels, words or [], strict=False)}
    assert relation_words(labels) == made


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("World", ("World",)),
        ("Sci/Tech", ("Sci", "Tech")),
        ("Society & Culture", ("Society", "Culture")),
        ("black and white", ("black", "white")),
        ("apple_pay_or_google_pay", ("apple pay or google pay",)),
        ("Sports/sports", ("Sports",)),
        ("Q&A", ("Q&A",)),
        ("24/7", ("24/7",)),
        ("card_not_working", ("card not working",)),
        ("non-fiction", ("non fiction",)),
        ("CustomerService", ("Customer Service",)),
        ("accountIssue", ("account issue",)),
        ("iPhone", ("iPhone",)),
        ("C++", ("C++",)),
        ("-1", ("-1",)),
        ("__", ("__",)),
        ("  spaced   out ", ("spaced out",)),
        ("Straße_und_Verkehr", ("Straße und Verkehr",)),
    ],
)
def test_words_are_names_as_one_writes_them(name: str, words: tuple[str, ...]) -> None:
    assert words_from_names([name, "something else"])[name] == words


def test_capitals_alone_are_no_way_to_write_a_word() -> None:
    assert words_from_names(["HATE_SPEECH", "OTHER"]) == {
        "HATE_SPEECH": ("hate speech",),
        "OTHER": ("other",),
    }
    assert words_from_names(["HR", "IT"]) == {"HR": ("HR",), "IT": ("IT",)}
    assert words_from_names(["SALES", "It"])["SALES"] == ("SALES",)


def test_a_word_that_labels_share_is_of_neither_alone() -> None:
    assert words_from_names(["Business & Finance", "Finance/Politics", "News"]) == {
        "Business & Finance": ("Business & Finance",),
        "Finance/Politics": ("Finance/Politics",),
        "News": ("News",),
    }


def test_labels_that_are_one_word_are_an_error() -> None:
    with pytest.raises(UserError) as error:
        words_from_names(["lost_card", "Lost card", "lost-card", "fees"])
    assert str(error.value) == (
        "labels: 'lost_card', 'Lost card', 'lost-card' are the same label word, 'lost card'; "
        "write one name for one label in the table, or names that differ in more than case and "
        "punctuation"
    )
    with pytest.raises(UserError, match="labels: ' ' is blank"):
        words_from_names(["a", " "])


@given(st.one_of(names, likely_names))
def test_words_are_clean_and_of_one_label(labels: list[str]) -> None:
    try:
        words = words_from_names(labels)
    except UserError:
        assume(False)
    assert [*words] == labels
    every = [word for group in words.values() for word in group]
    assert len({word.casefold() for word in every}) == len(every) >= len(labels)
    assert all(word and word == word.strip() for word in every)


def test_names_that_say_nothing_are_told_apart() -> None:
    nothing = ["0", "-1", "3.5", "LABEL_1", "class 2", "c7", "A", "yes", "False", "!?", "topic-4"]
    something = ["spam", "C++", "no reply", "class action", "IT", "4 wheels", "Sport"]
    assert weak_names([*nothing, *something]) == nothing
