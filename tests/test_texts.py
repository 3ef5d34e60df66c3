"""Whatever a user has texts in becomes rows, and what is not a text is named by its position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.texts import is_empty, text_rows

TEXTS = ["a day", None, ""]
ROWS = [{"text": "a day"}, {"text": ""}, {"text": ""}]
COLUMNS: dict[str, Callable[[list[str | None]], Any]] = {
    "list": lambda texts: texts,
    "tuple": tuple,
    "generator": iter,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "Arrow array": pa.array,
    "Arrow chunks": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "Arrow dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "series": pd.Series,
    "series of objects": lambda texts: pd.Series(texts, dtype=object),
    "categories": lambda texts: pd.Series(texts, dtype="category"),
    "nullable strings": lambda texts: pd.Series(texts, dtype="string"),
    "index of its own": lambda texts: pd.Series(texts, index=[7, 7, 7]),
    "column of a data set": lambda texts: datasets.Dataset.from_dict({"t": texts})["t"],
}
TABLES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "mapping": dict,
    "list of dicts": lambda table: pa.table(table).to_pylist(),
    "Arrow table": pa.table,
    "Arrow batch": pa.RecordBatch.from_pydict,
    "Arrow structs": lambda table: pa.array(pa.table(table).to_pylist()),
    "frame": pd.DataFrame,
    "records": lambda table: pd.DataFrame(table).to_dict("records"),
    "data set": datasets.Dataset.from_dict,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_texts(kind: str) -> None:
    rows = text_rows(COLUMNS[kind](TEXTS), ["text"])
    assert rows == ROWS
    assert {type(text) for row in rows for text in row.values()} == {str}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_with_more_than_the_columns(kind: str) -> None:
    table = {"n": [1, 2], "title": ["a", None], "body": ["b", "c"]}
    found = text_rows(TABLES[kind](table), ["body", "title"])
    assert found == [{"body": "b", "title": "a"}, {"body": "c", "title": ""}]


def test_one_text() -> None:
    assert text_rows("a day", ["text"]) == [{"text": "a day"}]
    assert text_rows({"a": "x", "b": None, "n": "3"}, ["b", "a"]) == [{"b": "", "a": "x"}]
    assert text_rows(np.array(["a day"]), ["text"]) == [{"text": "a day"}]


@pytest.mark.parametrize(
    "nothing", [[], (), np.array([]), pa.array([]), pd.Series([], dtype=object)]
)
def test_no_texts(nothing: Any) -> None:
    assert text_rows(nothing, ["text"]) == []
    assert text_rows(pa.table({"text": pa.array([], pa.string())}), ["text"]) == []


FRAME = pd.DataFrame({"txt": ["a"], "label": ["b"]})


@pytest.mark.parametrize(
    ("texts", "columns", "problem"),
    [
        (["a", 3], ["text"], "texts[1]: found 3 (int); a text is needed"),
        (["a", ["b"]], ["text"], "texts[1]: found ['b'] (list); a text is needed"),
        (np.array([["a"]]), ["text"], "texts[0]: found ['a'] (list); a text is needed"),
        (pd.Series([0.5]), ["text"], "texts[0]: found 0.5 (float); a text is needed"),
        (
            [{"text": "a"}, {"text": 3}],
            ["text"],
            "texts[1]['text']: found 3 (int); a text is needed",
        ),
        (
            pa.table({"text": [1, 2]}),
            ["text"],
            "texts['text'][0]: found 1 (int); a text is needed",
        ),
        ([b"a"], ["text"], "texts[0]: found b'a' (bytes); a text is needed"),
        (FRAME, ["text"], "texts: no column 'text'; did you mean 'txt'?"),
        (pa.table({"x": ["a"]}), ["text"], "texts: no column 'text'; there are 'x'"),
        ([{"txt": "a"}], ["text"], "texts[0]: no column 'text'; did you mean 'txt'?"),
        (
            {"a": ["x", "y"], "b": ["x"]},
            ["a", "b"],
            "texts: the columns have different numbers of rows, {'a': 2, 'b': 1}",
        ),
        (
            ["a"],
            ["premise", "hypothesis"],
            "texts[0]: one text; the classifier reads 'premise', 'hypothesis': give dicts, or a "
            "table with these columns",
        ),
        *[
            (
                texts,
                ["text"],
                f"texts: an object of type {kind} has no texts; give a string, a list of strings "
                "or of dicts, or an Arrow or pandas column or table",
            )
            for texts, kind in ((3, "int"), (b"a", "bytes"), (None, "NoneType"))
        ],
    ],
)
def test_what_is_not_a_text_is_named(texts: Any, columns: list[str], problem: str) -> None:
    with pytest.raises(UserError) as error:
        text_rows(texts, columns)
    assert str(error.value) == problem


def test_rows_without_text() -> None:
    row = {"title": " \n", "body": "a"}
    assert is_empty(row, ["title"])
    assert not is_empty(row, ["title", "body"])


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_every_form_gives_the_same_rows(texts: list[str | None]) -> None:
    rows = [{"text": text or ""} for text in texts]
    column = pa.array(texts, pa.string())
    forms: list[Any] = [texts, column, pa.table({"text": column}), pd.Series(texts, dtype=object)]
    assert all(text_rows(form, ["text"]) == rows for form in forms)
