"""A table is read with every column that it has; lines of text are a table too."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline import formats, whole_tables
from pet_pipeline.errors import UserError
from pet_pipeline.sources import find_source
from pet_pipeline.whole_tables import WholeTable, read_lines, read_whole


def whole(source: Path, names: dict[str, str] | None = None) -> WholeTable:
    return read_whole(find_source(str(source)), ["text"], names or {})


def rows(table: WholeTable) -> list[dict[str, Any]]:
    return [row for batch in table.batches for row in batch.own.to_pylist()]


def texts(table: WholeTable) -> list[dict[str, Any]]:
    return [row for batch in table.batches for row in batch.texts.to_pylist()]


def lines(file: Path, *values: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return file


def test_columns_types_and_order_are_the_tables_own(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int16()),
            "message": ["a", None],
            "tags": [["x"], []],
            "label": pa.array(["p", "q"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    read = whole(tmp_path / "t.parquet", {"text": "message"})
    assert (read.schema, read.rows, read.delimiter) == (table.schema, 2, None)
    assert rows(read) == table.to_pylist()
    assert texts(whole(tmp_path / "t.parquet", {"text": "message"})) == [
        {"text": "a"},
        {"text": ""},
    ]


def test_csv_is_text_as_it_is_written_with_its_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("code;text\n007;a, b\n1.0;\n")
    read = whole(file)
    assert read.delimiter == ";"
    assert rows(read) == [{"code": "007", "text": "a, b"}, {"code": "1.0", "text": ""}]


def test_json_lines_keep_dates_as_they_are_written(tmp_path: Path) -> None:
    row = {"text": "a", "day": "2024-02-29", "days": ["2024-02-29"], "more": {"day": "2024-02-29"}}
    assert rows(whole(lines(tmp_path / "t.jsonl", row))) == [row]


def test_files_of_a_folder_may_have_columns_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}), folder / "1.parquet")
    pq.write_table(pa.table({"n": [2**40], "text": ["b"], "m": ["x"]}), folder / "2.parquet")
    read = whole(folder)
    assert read.schema.types == [pa.string(), pa.int64(), pa.string()]
    assert rows(read) == [{"text": "a", "n": 1, "m": None}, {"text": "b", "n": 2**40, "m": "x"}]
    for name, text in {"1.csv": "text,n\na,1\n", "2.csv": "m,text\nx,b\n"}.items():
        (tmp_path / "csv").mkdir(exist_ok=True)
        (tmp_path / "csv" / name).write_text(text)
    assert rows(whole(tmp_path / "csv")) == [
        {"text": "a", "n": "1", "m": None},
        {"text": "b", "n": None, "m": "x"},
    ]


def test_a_data_set_of_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    table = pa.table({"n": [1, 2], "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    source = find_source(f"datasets:{tmp_path}/set:train")
    assert rows(read_whole(source, ["text"], {})) == table.to_pylist()


def test_a_row_group_at_a_time_is_in_memory(tmp_path: Path) -> None:
    groups, text = 20, "x" * 100
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema, compression="none") as writer:
        for n in range(groups):
            writer.write_table(pa.table([[f"{n} {m} {text}" for m in range(2000)]], schema))
    before, most = pa.total_allocated_bytes(), 0
    for _ in whole(tmp_path / "t.parquet").batches:
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < (tmp_path / "t.parquet").stat().st_size / 3


def test_files_whose_columns_differ_in_type_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(UserError) as error:
        whole(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: cannot be read: Unable to merge: Field n has incompatible types: "
        "int64 vs string"
    )


def test_a_column_that_only_late_json_lines_have_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (formats, whole_tables):
        monkeypatch.setattr(module, "BLOCK_MB", 1)
    long = "x" * 300_000
    early = [{"text": long, "n": n} for n in range(5)]
    late = [{"text": long, "n": 0.5, "day": "2024-02-29", "late": [n]} for n in range(5)]
    file = lines(tmp_path / "t.jsonl", *early, *late)
    file.write_text(file.read_text().removesuffix("\n"))
    read = rows(whole(file))
    assert [row["late"] for row in read] == [*[None] * 5, *([n] for n in range(5))]
    assert [row["day"] for row in read] == [*[None] * 5, *["2024-02-29"] * 5]
    assert [row["n"] for row in read] == [0, 1, 2, 3, 4, *[0.5] * 5]


def test_text_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [["a"]]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet: cannot be read: Unsupported cast from list"):
        rows(whole(tmp_path / "t.parquet"))


class Trickle(io.RawIOBase):
    """A pipe from which a few bytes come at a time."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    def read1(self, limit: int) -> bytes:
        size = self.sizes.pop(0) if self.sizes else limit
        part, self.data = self.data[:size], self.data[size:]
        return part


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6)),
    st.lists(st.integers(1, 9)),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_lines_are_rows_however_they_arrive(
    values: list[str], sizes: list[int], end: str, ended: bool, marked: bool
) -> None:
    if values and values[0].startswith("\ufeff"):  # a mark of its own
        values[0] = "first"
    data = end.join(values) + (end if ended and values else "")
    if values and not ended and not values[-1]:  # no line at all
        values = values[:-1]
    mark = b"\xef\xbb\xbf" if marked and data else b""
    table = read_lines(Trickle(mark + data.encode(), sizes), "text")
    assert rows(table) == [{"text": value} for value in values]


def test_a_line_is_read_before_the_next_one_comes() -> None:
    file = Trickle(b"a\nb\n", [2, 2])
    table = read_lines(file, "text")
    assert next(table.batches).own.to_pylist() == [{"text": "a"}]
    assert file.data == b"b\n"


@pytest.mark.parametrize(("data", "line"), [(b"\xff\n", 1), (b"a\n\nb\xe9\n", 3)])
def test_a_line_that_is_not_utf_8_is_named(data: bytes, line: int) -> None:
    with pytest.raises(UserError) as error:
        rows(read_lines(Trickle(data, [2]), "text"))
    assert str(error.value) == f"standard input: line {line} is not UTF-8 text"
