"""Tables in memory become files that runs read, and what is not a table is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from testing import rows

from pet_pipeline.errors import UserError
from pet_pipeline.in_memory import arrow_table, save_table
from pet_pipeline.sources import Folder, read_batches

TABLE = {"n": [1, 2], "text": ["a", None], "label": ["x", "y"]}
TABLES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "Arrow": pa.table,
    "batch": pa.RecordBatch.from_pydict,
    "mapping": dict,
    "mapping of arrays": lambda table: {name: pa.array(v) for name, v in table.items()},
    "list of dicts": lambda table: pa.table(table).to_pylist(),
    "frame": lambda table: pd.DataFrame(table, index=[5, 5]),
    "records": lambda table: pd.DataFrame(table).to_dict("records"),
    "data set": datasets.Dataset.from_dict,
}
TEXTS: dict[str, Callable[[list[str | None]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": lambda texts: np.array(texts, dtype=object),
    "Arrow": pa.array,
    "series": pd.Series,
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_becomes_a_file(tmp_path: Path, kind: str) -> None:
    source = save_table(TABLES[kind](TABLE), tmp_path / "new", "pool")
    assert source == str(tmp_path / "new" / "pool.parquet")
    assert pq.read_table(source).to_pydict() == TABLE
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["pool.parquet"]


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_become_the_column_asked_for(tmp_path: Path, kind: str) -> None:
    source = save_table(TEXTS[kind](["a", None]), tmp_path, "pool", column="message")
    assert rows(Path(source)) == [{"message": "a"}, {"message": ""}]


def test_a_file_is_written_again_only_if_the_table_is_another(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": pd.Categorical(["x", "y"])})
    file = Path(save_table(frame, tmp_path, "t"))
    file.write_bytes(file.read_bytes())
    before = file.stat().st_mtime_ns
    for same in (frame, frame.set_index(pd.Index([4, 5]))):
        save_table(same, tmp_path, "t")
        assert file.stat().st_mtime_ns == before
    save_table(frame.iloc[:1], tmp_path, "t")
    assert pq.read_table(file).num_rows == 1
    file.write_bytes(b"not a table")
    save_table(frame, tmp_path, "t")
    assert pq.read_table(file).num_rows == 2


def test_labels_of_a_data_set_keep_their_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])}
    )
    table = {"text": ["a", "b", "c"], "label": [1, 0, 0]}
    chosen = datasets.Dataset.from_dict(table, features=features).select([1, 0])
    source = Path(save_table(chosen, tmp_path, "t"))
    (batch,) = read_batches(Folder(tmp_path, (source,)), ["text"], {}, ["x", "y"])
    assert batch.select(["text", "label"]).to_pylist() == [
        {"text": "b", "label": "x"},
        {"text": "a", "label": "y"},
    ]


def test_rows_may_lack_columns() -> None:
    table = arrow_table([{"a": "x"}, {"b": 1.5}, {"a": float("nan")}], "pool")
    assert table.to_pydict() == {"a": ["x", None, None], "b": [None, 1.5, None]}
    assert arrow_table([], "pool").to_pydict() == {"text": []}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        *[
            (
                other,
                f"pool: an object of type {kind} is not a table; give an Arrow or pandas table, "
                "a list of dicts or a list of texts",
            )
            for other, kind in ((3, "int"), ("texts", "str"), (None, "NoneType"))
        ],
        (["a", 3], "pool[1]: found 3 (int); a text is needed"),
        ([{"text": "a"}, "b"], "pool[1]: found 'b', where other rows are dicts"),
        (
            {"a": ["x"], "b": []},
            "pool: the columns have different numbers of rows, {'a': 1, 'b': 0}",
        ),
        (
            pd.DataFrame({"text": ["a", 3]}),
            "pool['text']: not a column of a table: Expected bytes, got a 'int' object",
        ),
        ({"text": "a"}, "pool['text']: found 'a'; a list is needed"),
        (
            {"text": 3},
            "pool['text']: not a column of a table: 'int' object is not iterable",
        ),
    ],
)
def test_what_is_not_a_table(table: Any, problem: str) -> None:
    with pytest.raises(UserError) as error:
        arrow_table(table, "pool")
    assert str(error.value) == problem
