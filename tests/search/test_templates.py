"""Candidates: readable, new, and without label words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.patterns import Field, parse_template
from pet_pipeline.search.templates import (
    Candidate,
    Place,
    choose,
    normal,
    pattern_of,
    places,
    readable,
    template_of,
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


def test_places_of_one_text_and_of_pairs() -> None:
    assert [p.template("A", "B") for p in places(["x"])] == ["{x} A {mask} B", "A {mask} B {x}"]
    assert [p.template("A", ".") for p in places(["x", "y"])] == [
        "{x} {sep} {y} A {mask}.",
        "A {mask}. {x} {sep} {y}",
        "{x:strip_punct} A {mask}. {y:lower_first}",
    ]


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
    assert Place("{x}", "").template(left, right) == template
    parse_template(template)


def test_usable_templates_have_a_word_and_begin_with_none_of_the_marks() -> None:
    last, first = places(["x"])
    assert usable(last, ", it is", ".", WORDS)
    assert not usable(first, ", it is", ".", WORDS)
    assert usable(first, "", "is this:", WORDS)
    assert not usable(last, ":", ".", WORDS)
    assert not usable(last, "It is", "great", WORDS)


def test_the_best_of_each_group_in_turn_nothing_twice() -> None:
    found = [
        [Candidate("{x} b {mask}", "mlm", -2.0), Candidate("{x} a {mask}.", "mlm", -1.0)],
        [Candidate("{x} A {mask} .", "seed", 0.0), Candidate("{x} c {mask}", "seed", -9.0)],
        [],
    ]
    chosen = choose(found, 10, known=["{x} C {mask}"])
    assert [c.template for c in chosen] == ["{x} a {mask}.", "{x} b {mask}"]
    assert choose(found, 1, known=[]) == [found[0][1]]


TEXT = st.text(string.ascii_letters + " .,{}[]()\"'", max_size=20)


@given(TEXT, TEXT)
def test_templates_of_any_text_are_read_as_they_were_written(left: str, right: str) -> None:
    parts = parse_template(Place("{x}", "").template(left, right))
    assert [p.name for p in parts if isinstance(p, Field)] == ["x", "mask"]
    literal = "".join(p for p in parts if isinstance(p, str))
    assert literal.replace(" ", "") == (left + right).replace(" ", "")
    pattern = pattern_of("p", Place("{x}", "").template(left, right), ("a", "b"), WORDS)
    assert parse_template(template_of(pattern)) == pattern.parts
    assert normal(template_of(pattern)) == normal(Place("{x}", "").template(left, right))


def test_the_words_most_patterns_have() -> None:
    other = (("x",), ("y",))
    patterns = [
        pattern_of(str(n), "{x} {mask}", ("a", "b"), w) for n, w in enumerate((other, WORDS, WORDS))
    ]
    assert verbalizer_of(patterns) == WORDS
    assert verbalizer_of(patterns[:2]) == other
