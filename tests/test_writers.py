"""What is written is read back as it was, in every format."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.writers import check_columns, output_format, write_batches

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


def written(form: str, table: pa.Table, delimiter: str | None = None) -> bytes:
    file = io.BytesIO()
    write_batches(file, form, table.schema, table.to_batches(max_chunksize=2), delimiter)
    return file.getvalue()


def csv_rows(data: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5), st.sampled_from(",;\t|"), TEXTS)
def test_csv_is_read_back_by_any_reader(
    rows: list[tuple[str, str]], delimiter: str, name: str
) -> None:
    columns = [[row[n] for row in rows] for n in (0, 1)]
    table = pa.table(dict(zip(("a", f"{name} b"), map(pa.array, columns), strict=True)))
    table = table.cast(pa.schema([(column, pa.string()) for column in table.column_names]))
    data = written("csv", table, delimiter)
    assert csv_rows(data, delimiter) == [["a", f"{name} b"], *map(list, rows)]


def test_csv_quotes_only_what_needs_it() -> None:
    table = pa.table({"a": ["plain text", 'a "b"', "c,d", "e\rf", None, ""], "n": range(6)})
    assert written("csv", table) == (b'a,n\nplain text,0\n"a ""b""",1\n"c,d",2\n"e\rf",3\n,4\n,5\n')
    assert written("tsv", table.slice(2, 1)) == b"a\tn\nc,d\t2\n"


VALUES: dict[str, tuple[pa.Array, list[str], list[Any]]] = {  # type: the text in CSV, the JSON
    "bool": (pa.array([True, None]), ["true", ""], [True, None]),
    "int": (pa.array([2**60, None]), [str(2**60), ""], [2**60, None]),
    "float": (pa.array([0.1, float("nan")]), ["0.1", "nan"], [0.1, None]),
    "float32": (pa.array([0.1, float("-inf")], pa.float32()), ["0.1", "-inf"], [0.1, None]),
    "decimal": (pa.array([Decimal("1.10"), None]), ["1.10", ""], ["1.10", None]),
    "date": (pa.array([dt.date(2024, 2, 29), None]), ["2024-02-29", ""], ["2024-02-29", None]),
    "timestamp": (
        pa.array([dt.datetime(2024, 2, 29, 12, 30), None], pa.timestamp("ns")),
        ["2024-02-29 12:30:00.000000000", ""],
        ["2024-02-29 12:30:00.000000000", None],
    ),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), ["x", ""], ["x", None]),
    "list": (pa.array([["é", None], None]), ['["é", null]', ""], [["é", None], None]),
    "struct": (
        pa.array([{"a": dt.date(2024, 1, 1), "b": float("inf")}, None]),
        ['{"a": "2024-01-01", "b": null}', ""],
        [{"a": "2024-01-01", "b": None}, None],
    ),
    "null": (pa.nulls(2), ["", ""], [None, None]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_type(kind: str) -> None:
    array, in_csv, in_json = VALUES[kind]
    table = pa.table({"a": ["1", "2"], "b": array})
    for form in ("csv", "json", "parquet"):
        check_columns(table.schema, form)
    assert [row[1] for row in csv_rows(written("csv", table))[1:]] == in_csv
    lines = written("json", table).decode().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"a": "1", "b": in_json[0]},
        {"a": "2", "b": in_json[1]},
    ]
    read = pq.read_table(io.BytesIO(written("parquet", table)))
    assert read.schema.equals(table.schema)
    assert str(read.to_pylist()) == str(table.to_pylist())  # NaN is not itself


def test_text_is_written_as_it_comes() -> None:
    file = io.BytesIO()
    schema = pa.schema([("a", pa.string())])
    seen = []

    def batches() -> Any:
        for text in "xy":
            seen.append(file.getvalue())
            yield pa.record_batch([[text]], schema)

    write_batches(file, "csv", schema, batches())
    assert seen == [b"a\n", b"a\nx\n"]


def test_small_batches_make_one_row_group() -> None:
    table = pa.table({"a": range(100)})
    read = pq.ParquetFile(io.BytesIO(written("parquet", table)))
    assert (read.num_row_groups, read.metadata.num_rows) == (1, 100)


@pytest.mark.parametrize("kind", [pa.binary(), pa.list_(pa.large_binary()), pa.uuid()])
def test_binary_data_is_for_parquet(kind: pa.DataType) -> None:
    schema = pa.schema([("image", kind), ("text", pa.string())])
    check_columns(schema, "parquet")
    with pytest.raises(UserError) as error:
        check_columns(schema, "csv")
    assert str(error.value) == (
        "binary data, in 'image', cannot be written as text; name a .parquet file, or leave it "
        "out of the table"
    )


def test_what_parquet_does_not_have() -> None:
    with pytest.raises(UserError, match=r"^cannot be written as Parquet: "):
        check_columns(pa.schema([("a", pa.month_day_nano_interval())]), "parquet")


def test_the_format_is_the_suffix() -> None:
    assert output_format("a.b/c.ndjson") == "json"
    for name, found in {
        "o.xlsx": "'.xlsx' is not a suffix of tables",
        "o": "it has no suffix",
    }.items():
        with pytest.raises(UserError) as error:
            output_format(name)
        assert str(error.value) == (
            f"--output: {name}: {found}; name a file that ends in '.parquet', '.csv', '.tsv', "
            "'.jsonl', '.ndjson', '.json'"
        )
