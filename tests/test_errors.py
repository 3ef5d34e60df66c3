"""What messages have in common: one problem alone, many in a list, and the nearest name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError, listed, nearest, raise_all


def test_no_problem_raises_nothing() -> None:
    raise_all([])
    raise_all(iter(()))


def test_one_problem_is_the_whole_message() -> None:
    with pytest.raises(UserError) as error:
        raise_all(problem for problem in ["a: b; c", "a: b; c"])
    assert str(error.value) == "a: b; c"


def test_many_problems_are_listed_once_each_in_their_order() -> None:
    with pytest.raises(UserError) as error:
        raise_all(["z", "a", "z"])
    assert str(error.value) == "2 problems:\n  - z\n  - a"


@pytest.mark.parametrize(
    ("name", "known", "end"),
    [
        ("txet", ["label", "text"], "; did you mean 'text'?"),
        ("TEXT", ["label", "text"], "; did you mean 'text'?"),
        ("sports", ["World", "Sports"], "; did you mean 'Sports'?"),
        ("x", ["label", "text"], "; there are 'label', 'text'"),
        ("x", [], ""),
        ("", ["a"], "; there are 'a'"),
    ],
)
def test_the_nearest_name(name: str, known: list[str], end: str) -> None:
    assert nearest(name, known) == end
    assert nearest(name, iter(known)) == end


@given(st.text(), st.lists(st.text()))
def test_any_names_have_an_end(name: str, known: list[str]) -> None:
    end = nearest(name, known)
    assert end == "" if not known else any(repr(k) in end for k in known)


def test_names_are_quoted() -> None:
    assert listed([]) == ""
    assert listed(["it's", 3]) == '"it\'s", 3'
