"""Records are written as JSON and read as what they were."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pet_pipeline.records import read_record, read_records, write_record, write_records


@dataclass(frozen=True)
class Inner:
    """A record in a record."""

    rows: tuple[int, ...]
    by_name: dict[str, float]


@dataclass(frozen=True)
class Outer:
    """Every kind of value that records have."""

    name: str
    id: str | int
    inner: Inner
    several: list[Inner] = field(default_factory=list)
    maybe: float | None = None


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INNER = st.builds(
    Inner,
    rows=st.lists(st.integers()).map(tuple),
    by_name=st.dictionaries(st.text(), FLOATS, max_size=3),
)
OUTER = st.builds(
    Outer,
    name=st.text(),
    id=st.integers() | st.text(),
    inner=INNER,
    several=st.lists(INNER, max_size=2),
    maybe=st.none() | FLOATS,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "record.json"


@given(OUTER)
def test_a_record_is_read_as_it_was_written(file: Path, record: Outer) -> None:
    write_record(file, record)
    assert read_record(file, Outer) == record


@given(st.lists(OUTER, max_size=3))
def test_several_records_keep_their_order(file: Path, records: list[Outer]) -> None:
    write_records(file, records)
    assert read_records(file, Outer) == records


def test_a_record_is_json_with_the_names_of_the_fields(file: Path) -> None:
    write_record(file, Outer("a", 1, Inner((1, 2), {"é": 0.5})))
    assert json.loads(file.read_text("utf-8")) == {
        "name": "a",
        "id": 1,
        "inner": {"rows": [1, 2], "by_name": {"é": 0.5}},
        "several": [],
        "maybe": None,
    }


def test_ids_stay_numbers_or_texts(file: Path) -> None:
    for value in (7, "7"):
        write_record(file, Outer("a", value, Inner((), {})))
        found = read_record(file, Outer).id
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ['{"rows": [1]}', '{"rows": ["x"], "by_name": {}}', "[]"])
def test_another_kind_of_record_is_not_read(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ValidationError):
        read_record(file, Inner)
