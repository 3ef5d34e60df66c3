"""Candidates: readable, new, and without label words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.patterns import Field, parse_template, pattern_of, template_of
from pet_pipeline.search.templates import (
    Candidate,
    LabelledTexts,
    Location,
    choose,
    locations,
    normal,
    readable,
    usable,
    verbalizer_of,
)

WORDS = (("bad", "not good"), ("great",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was", True),
        ("all in all, it's", True),
        ("", True),
        (".", True),
        ("It was great", False),  # a label word
        ("this is Not Good for", False),  # a label word of two words, in another case
        ("not so good", True),
        ("greatly", True),
        ("the the", False),
        (". ,", False),
        ("it s", False),
        ("##ly it", False),
        ("5 stars", False),
        ("[unused3]", False),
        ("a {b}", False),
        ("one two three four five six seven eight nine ten eleven twelve thirteen", False),
    ],
)
def test_readable(text: str, expected: bool) -> None:
    assert readable(text, [word for group in WORDS for word in group]) == expected


def test_locations_of_one_text_and_of_pairs() -> None:
    assert [p.template("A", "B") for p in locations(["x"])] == ["{x} A {mask} B", "A {mask} B {x}"]
    assert [p.template("A", ".") for p in locations(["x", "y"])] == [
        "{x} {sep} {y} A {mask}.",
        "A {mask}. {x} {sep} {y}",
        "{x:strip_punct} A {mask}. {y:lower_first}",
    ]
    assert [p.begins for p in locations(["x", "y"])] == [False, True, False]


@pytest.mark.parametrize(
    ("left", "right", "template"),
    [
        ("It was", ".", "{x} It was {mask}."),
        (", so", "", "{x}, so {mask}"),
        ("(", ")", "{x} ({mask})"),
        ("a {b}", "", "{x} a {{b}} {mask}"),
    ],
)
def test_spaces_are_where_they_belong(left: str, right: str, template: str) -> None:
    assert Location("{x}", "").template(left, right) == template
    parse_template(template)


def test_usable_templates_have_a_word_and_begin_with_none_of_the_marks() -> None:
    last, first = locations(["x"])
    assert usable(last, ", it is", ".", WORDS)
    assert not usable(first, ", it is", ".", WORDS)
    assert usable(first, "", "is this:", WORDS)
    assert not usable(last, ":", ".", WORDS)
    assert not usable(last, "It is", "great", WORDS)


def test_the_best_of_each_group_in_turn_without_duplicates() -> None:
    found = [
        [Candidate("{x} b {mask}", "mlm", -2.0), Candidate("{x} a {mask}.", "mlm", -1.0)],
        [
            Candidate("{x} A {mask} .", "connectors", 0.0),
            Candidate("{x} c {mask}", "connectors", -9.0),
        ],
        [],
    ]
    chosen = choose(found, 10, known=["{x} C {mask}"])
    assert [c.template for c in chosen] == ["{x} a {mask}.", "{x} b {mask}"]
    assert choose(found, 1, known=[]) == [found[0][1]]


TEXT = st.text(string.ascii_letters + " .,{}[]()\"'", max_size=20)


@given(TEXT, TEXT)
def test_templates_of_any_text_are_read_as_they_were_written(left: str, right: str) -> None:
    parts = parse_template(Location("{x}", "").template(left, right))
    assert [p.name for p in parts if isinstance(p, Field)] == ["x", "mask"]
    literal = "".join(p for p in parts if isinstance(p, str))
    assert literal.replace(" ", "") == (left + right).replace(" ", "")
    pattern = pattern_of("p", Location("{x}", "").template(left, right), ("a", "b"), WORDS)
    assert parse_template(template_of(pattern)) == pattern.parts
    assert normal(template_of(pattern)) == normal(Location("{x}", "").template(left, right))


def test_the_words_most_patterns_have() -> None:
    other = (("x",), ("y",))
    patterns = [
        pattern_of(str(n), "{x} {mask}", ("a", "b"), w) for n, w in enumerate((other, WORDS, WORDS))
    ]
    assert verbalizer_of(patterns) == WORDS
    assert verbalizer_of(patterns[:2]) == other


def test_labelled_texts_name_their_labels() -> None:
    texts = LabelledTexts([{"x": "a"}], [1], ["x"], WORDS)
    assert texts.labels == ("0", "1")
