"""What messages have in common: one problem alone, many in a list, and the nearest name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError, at_place, listed, nearest, raise_all


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


def test_an_error_keeps_its_problems_apart() -> None:
    with pytest.raises(UserError) as error:
        raise_all(["z", "a", "z"])
    assert error.value.problems == ("z", "a")
    assert str(UserError("a: b")) == "a: b"


def test_every_problem_begins_with_its_place() -> None:
    with pytest.raises(UserError) as error, at_place("file"), at_place("line 3"):
        raise UserError("missing", "not a number")
    assert error.value.problems == ("file: line 3: missing", "file: line 3: not a number")
    assert error.value.__suppress_context__


def test_a_place_changes_no_other_error() -> None:
    with pytest.raises(ValueError, match=r"^x$"), at_place("file"):
        raise ValueError("x")
    with at_place("file"):
        pass
