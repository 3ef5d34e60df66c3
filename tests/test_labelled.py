"""What a labelled table says of a task: text columns, labels, metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.labelled import (
    column_problems,
    first_values,
    fitting_metric,
    labels_of_table,
    likely_label,
    likely_text,
    task_columns,
    text_columns,
)

MOODS = ["sad", "happy", "sad", "happy", "sad"]


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """A function that writes columns to a file, and returns its path."""

    def write(name: str = "t.parquet", **columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write


def problem(call: Any, *arguments: Any) -> str:
    """The message of a call, with the table's name for its path."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value).replace(f"{arguments[0]}", "t")


def test_labels_are_counted_in_a_fixed_order(table: Any) -> None:
    counts = labels_of_table(table(label=MOODS), "label")
    assert [*counts.items()] == [("happy", 2), ("sad", 3)]
    assert [*labels_of_table(table(grade=[5, 1, 3, 2, 4] * 2), "grade")] == [*"12345"]
    assert labels_of_table(table(x=pa.array(MOODS).dictionary_encode()), "x") == counts


def test_labels_of_several_files_are_counted_together(table: Any, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    table("many/a.parquet", label=["b", "b"])
    table("many/b.parquet", label=["a"])
    assert labels_of_table(tmp_path / "many", "label") == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a", None, "b", ""], "t: column 'kind': 2 rows have no label; the pool is for those"),
        (["a", "", "b"], "t: column 'kind': 1 row has no label; the pool is for those"),
        (["a", "a"], "t: column 'kind' has one label, 'a'; a classifier needs two labels or more"),
        (
            pa.array([], pa.string()),
            "t: column 'kind' has no rows; a classifier needs two labels or more",
        ),
        (
            [f"text {n}" for n in range(21)],
            "t: column 'kind' has 21 different values in 21 rows, too many for labels; "
            "name the column of the labels, --label-column NAME",
        ),
        (
            ["a short one", "and one that is much longer than the name of any label would ever be"],
            "t: column 'kind' has 2 different values in 2 rows, too many for labels; "
            "name the column of the labels, --label-column NAME",
        ),
        (
            [f"text {n // 2}" for n in range(402)],
            "t: column 'kind' has 201 different values in 402 rows, too many for labels; "
            "name the column of the labels, --label-column NAME",
        ),
    ],
)
def test_a_column_without_labels_is_an_error(table: Any, values: Any, said: str) -> None:
    assert problem(labels_of_table, table(kind=values), "kind") == said


def test_as_many_labels_as_there_may_be(table: Any) -> None:
    assert len(labels_of_table(table(kind=[f"text {n // 2}" for n in range(400)]), "kind")) == 200
    assert len(labels_of_table(table(kind=[f"text {n}" for n in range(20)]), "kind")) == 20


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 50), min_size=2))
def test_the_metric_is_of_all_labels_where_some_are_rare(counts: dict[str, int]) -> None:
    rare = max(counts.values()) / min(counts.values()) > 3
    assert fitting_metric(counts) == ("f1_macro" if rare else "accuracy")


TEXTS = ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize(
    ("columns", "names", "texts"),
    [
        ({"text": TEXTS, "other": TEXTS, "label": MOODS}, {}, ("text",)),
        ({"message": TEXTS, "label": MOODS, "id": TEXTS, "n": [1] * 5}, {}, ("message",)),
        ({"message": TEXTS, "category": MOODS}, {}, ("message",)),
        ({"message": TEXTS, "kind": MOODS}, {"label": "kind"}, ("message",)),
        (
            {"message": TEXTS, "kind": MOODS, "key": TEXTS},
            {"label": "kind", "id": "key"},
            ("message",),
        ),
        ({"a": TEXTS, "b": TEXTS}, {"body": "b", "head": "a", "label": "x"}, ("body", "head")),
    ],
)
def test_text_columns_are_those_that_can_be_meant(
    table: Any, columns: Any, names: dict[str, str], texts: tuple[str, ...]
) -> None:
    assert text_columns(table(**columns), names) == texts


def test_text_columns_that_cannot_be_known_are_asked_for(table: Any) -> None:
    several = table(message=TEXTS, subject=TEXTS, label=MOODS)
    assert problem(text_columns, several, {}) == (
        "t has no column 'text'; one of 'message', 'subject' may be it: add "
        '--text-column message (data.columns = {text = "message"})'
    )
    assert problem(text_columns, table(n=[1] * 5, label=MOODS), {}) == (
        "t has no column of texts; it has 'n', 'label'"
    )
    assert problem(text_columns, table(**{"a:b": TEXTS, "label": MOODS}), {}) == (
        "columns: 'a:b' cannot stand in a pattern; "
        'add --text-column a:b (data.columns = {text = "a:b"})'
    )


@given(
    st.lists(
        st.sampled_from(["text", "text_2", "mask", "label", "a:b", "{", " ", "ok"]),
        min_size=1,
        unique=True,
    )
)
def test_task_columns_can_stand_in_patterns(names: list[str]) -> None:
    columns = task_columns(names)
    assert [*columns.values()] == names
    assert not [*column_problems(columns)]
    assert all(column == own for column, own in columns.items() if not [*column_problems([own])])


def test_the_first_values_are_strings_of_every_column_that_can_be_shown(table: Any) -> None:
    path = table(
        text=["a", None], n=[1, 2], vectors=[[1], [2]], raw=[b"x", b"y"], sure=[True, False]
    )
    assert first_values(path) == {"text": ["a", ""], "n": ["1", "2"], "sure": ["true", "false"]}
    assert first_values(table(text=TEXTS), rows=2) == {"text": ["one", "two"]}


def test_likely_columns_are_those_that_look_like_it() -> None:
    values = {
        "id": ["a long name 1", "a long name 2", "a long name 3"],
        "date": ["2024-01-01", "2024-01-01", "2024-01-02"],
        "message": ["where is it now", "it is all very good", "no"],
        "kind": ["x", "y", "x"],
    }
    assert (likely_text(values, []), likely_label(values, ["message"])) == ("message", "date")
    assert likely_label({**values, "Sentiment": ["1", "2", "2"]}, []) == "Sentiment"
    assert likely_text({**values, "text": ["a", "b", "c"]}, []) == "text"
    assert likely_text(values, ["message"]) == "date"
    assert (likely_text({}, []), likely_label({"a": ["x", "x"]}, [])) == ("", "")
