"""Keys are equal when contents are, and two identities say how they differ."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pet_pipeline.keys import IF_SET, changes, fingerprint, key_of, results_in

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def key(value: Any) -> str:
    return key_of({"value": fingerprint(value)})


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@given(PLAIN, PLAIN)
@example(1, True)
@example(1, 1.0)
@example({"a": None}, {})
def test_keys_are_equal_when_values_are(one: Any, other: Any) -> None:
    assert key(one) == key(json.loads(json.dumps(one)))
    assert (key(one) == key(other)) == (written(one) == written(other))


@given(PLAIN, PLAIN)
@example(1, True)
@example(1, 1.0)
@example({"a": None}, {})
@example({"sha256": "1", "b": 1}, {"sha256": "1", "b": 2})
@example([{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}])
@example([{"name": "a", "b": 1}], [{"name": "a", "b": 2}])
@example({"a": {"sha256": "1"}}, {"b": {"sha256": "1"}})
@example({"name": "a", "b": 1}, {"name": "a", "b": 2})
@example({"name": "a"}, {"name": "b"})
def test_identities_differ_somewhere_when_their_keys_do(one: Any, other: Any) -> None:
    old, new = {"params": {"value": one}}, {"params": {"value": other}}
    assert (changes(old, new) == []) == (key_of(old) == key_of(new))
    assert changes(old, json.loads(json.dumps(old))) == []


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_a_dict_does_not_matter(values: dict[str, int]) -> None:
    turned = dict(reversed(values.items()))
    assert key(values) == key(turned)


def test_a_key_never_changes() -> None:
    # Written in the records of finished runs: with another form, all of them would run again.
    identity = {"stage": "one", "version": 1, "params": {"a": 1, "é": [None, True, 0.5]}}
    assert key_of(identity) == "76068fd5480c594f"


def test_tuples_are_lists_and_keys_of_dicts_are_text() -> None:
    assert fingerprint({1: (1, "a", (True,))}) == {"1": [1, "a", [True]]}


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any = 0


@dataclass(frozen=True)
class Named:
    """A value of which only a part counts."""

    name: str
    folder: str

    def in_key(self) -> object:
        return Pair(self.name)


def test_a_dataclass_counts_by_its_fields_unless_it_says_what_counts(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("1")
    pair = fingerprint(Pair(Pair(1), (tmp_path / "table",)))
    content = fingerprint(tmp_path / "table")
    assert set(content) == {"sha256"}
    assert pair == {"left": {"left": 1, "right": 0}, "right": [content]}
    assert fingerprint([Named("a", "here")]) == [{"left": "a", "right": 0}]
    assert key(Named("a", "here")) == key(Named("a", "there")) != key(Named("b", "here"))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"a", 1j, len])
def test_other_objects_cannot_be_parameters(value: object) -> None:
    with pytest.raises(TypeError) as error:
        fingerprint({"a": [value]})
    assert str(error.value) == (
        f"a {type(value).__name__} cannot be a parameter of a unit; use None, bool, int, float, "
        "str, Path, Result, and lists, dicts and dataclasses of these"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_without_a_value_have_no_key(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        key(value)


def test_content_decides_not_names_or_times(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for parent in (folder, other):
        (parent / "inner").mkdir(parents=True)
        (parent / "inner" / "weights").write_text("1")
    first = key(folder)
    assert key(other) == first
    (other / ".hidden").write_text("")
    (other / ".git").mkdir()
    (other / ".git" / "config").write_text("")
    os.utime(other / "inner" / "weights", (0, 0))
    assert key(other) == first
    (tmp_path / "link").symlink_to(other)
    assert key(tmp_path / "link") == first


EDITS: dict[str, Callable[[Path], object]] = {
    "changed": lambda folder: (folder / "weights").write_text("2!"),
    "changed to the same size": lambda folder: (folder / "weights").write_text("2"),
    "renamed": lambda folder: (folder / "weights").rename(folder / "w"),
    "removed": lambda folder: (folder / "weights").unlink(),
    "added": lambda folder: (folder / "empty").touch(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_folder_counts_by_the_names_and_contents_of_its_files(tmp_path: Path, edit: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights").write_text("1")
    os.utime(folder / "weights", (0, 0))  # so that an edit has another time in any case
    before = key(folder)
    EDITS[edit](folder)
    assert key(folder) != before


def test_a_changed_file_behind_a_link_is_read_again(tmp_path: Path) -> None:
    for n in "12":
        (tmp_path / n).write_text(n)
        os.utime(tmp_path / n, (0, 0))  # same size, same time: only the target tells them apart
    link = tmp_path / "link"
    link.symlink_to("1")
    before = key(link)
    link.unlink()
    link.symlink_to("2")
    assert key(link) != before == key(tmp_path / "1")


def listed(old: dict[str, Any], new: dict[str, Any]) -> list[Any]:
    """Path, kind and values of each change."""
    return [(".".join(c.path), c.kind, c.old, c.new) for c in changes(old, new)]


def test_changes_name_the_place_and_both_values() -> None:
    def identity(**params: Any) -> dict[str, Any]:
        return {"stage": "one", "version": 1, "params": params}

    old = identity(a={"b": 1}, rows=[1, 2], up={"result": "key-1"}, table={"sha256": "1"})
    new = identity(a={"b": 2}, rows=[1, 3], up={"result": "key-2"}, table={"sha256": "2"})
    assert listed(old, new) == [
        ("params.a.b", "value", 1, 2),
        ("params.rows.1", "value", 2, 3),
        ("params.up", "result", {"result": "key-1"}, {"result": "key-2"}),
        ("params.table", "content", {"sha256": "1"}, {"sha256": "2"}),
    ]
    assert changes(old, old) == []
    more = identity(a={"b": 1, "c": "x" * 99}, rows=[1], up=None, table={"sha256": "1"})
    assert [
        (path, kind, str(before), after) for path, kind, before, after in listed(old, more)
    ] == [
        ("params.a.c", "value", "absent", "x" * 99),
        ("params.rows", "value", "[1, 2]", [1]),
        ("params.up", "removed", "{'result': 'key-1'}", None),
    ]
    assert listed(more, {**more, "version": 2}) == [("version", "value", 1, 2)]


def test_items_with_names_are_compared_by_name() -> None:
    one, other, edited = ({"name": n, "a": a} for n, a in (("one", 1), ("other", 1), ("one", 2)))
    for old, new, path, kind in (
        ([one], [one, other], "items.other", "added"),
        ([one, other], [other], "items.one", "removed"),
        ([one, other], [other, edited], "items.one.a", "value"),
    ):
        first, *_ = changes({"items": old}, {"items": new})
        assert (".".join(first.path), first.kind) == (path, kind)
        assert first.thing == ("item", path.split(".")[1])
    turned = changes({"items": [one, other]}, {"items": [other, one]})
    assert [(change.path, change.kind) for change in turned] == [(("items",), "order")]


def test_shards_that_are_more_count_as_results() -> None:
    old, new = ([{"result": str(n)} for n in range(count)] for count in (2, 3))
    (change,) = changes({"shards": old}, {"shards": new})
    assert change.kind == "result"
    assert sorted(results_in(change.new)) == ["0", "1", "2"]


def test_results_are_found_wherever_they_are() -> None:
    identity = {"a": {"result": "1"}, "b": [{"c": {"result": "2"}}, "3", {"result": 4}], "d": None}
    assert list(results_in(identity)) == ["1", "2"]


def test_a_parameter_may_be_called_result() -> None:
    old = {"params": {"result": {"result": "key-1"}, "steps": 1}}
    new = {"params": {"result": {"result": "key-1"}, "steps": 2}}
    assert listed(old, new) == [("params.steps", "value", 1, 2)]


def test_changes_say_that_a_unit_was_forced() -> None:
    plain: dict[str, Any] = {"stage": "one", "params": {}}
    (change,) = changes(plain, {**plain, "attempt": 1})
    assert change.path == ("attempt",)
    assert changes({**plain, "attempt": 1}, {**plain, "attempt": 1}) == []


@dataclass(frozen=True)
class Before:
    a: int | None


@dataclass(frozen=True)
class After:
    """The same with a field that was added later."""

    a: int | None
    b: int | None = field(default=None, metadata=IF_SET)


def test_a_later_field_counts_only_where_it_is_set() -> None:
    assert key(After(1)) == key(Before(1))
    assert key(After(None)) == key(Before(None))
    assert fingerprint(After(None)) == {"a": None}
    assert key(After(1, 2)) != key(After(1))
    assert key([After(1, 0)]) != key([After(1)])
