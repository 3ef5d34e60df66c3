"""Files of every format: what is read from them, and what is said of files that cannot be."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.formats import (
    DELIMITERS,
    FORMATS,
    SAMPLE_BYTES,
    delimiter_of,
    find_delimiter,
    first_line,
    list_files,
    open_file,
    reading,
)
from pet_pipeline.sources import count_rows, find_source, read_batches


def rows(source: str, labels: Any = None) -> list[dict[str, Any]]:
    batches = read_batches(find_source(source), ("text",), {}, labels)
    return [row for batch in batches for row in batch.to_pylist()]


def test_quoted_lines_may_lie_across_the_blocks_of_a_file(tmp_path: Path) -> None:
    texts = [f"line {n}\nand {'x' * 5000}, so" for n in range(4000)]  # more than a block
    pa_csv.write_csv(pa.table({"text": texts}), tmp_path / "t.csv")
    assert [row["text"] for row in rows(str(tmp_path / "t.csv"), labels=None)] == texts


def test_ids_of_a_csv_file_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n007,NA\n7,null\n1.0,\n")
    assert rows(str(tmp_path / "t.csv"), labels=None) == [
        {"id": "007", "text": "NA"},
        {"id": "7", "text": "null"},
        {"id": "1.0", "text": ""},
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ["2024-01-01"],
        ["2024-01-01T10:00:00", "2024-01-01 10:00:00Z", "2024-01-01"],
        [*["2024-01-01"] * 1_000_000, "hello"],  # more than a block
        [*[None] * 1_500_000, "hello"],
    ],
    ids=["date", "times", "late text", "late value"],
)
def test_json_texts_stay_as_they_are_written(tmp_path: Path, texts: list[str | None]) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("".join(f'{{"text": {json.dumps(text)}}}\n' for text in texts))
    batches = read_batches(find_source(str(file)), ("text",), {}, None)
    read = [text for batch in batches for text in batch["text"].to_pylist()]
    assert read == [text or "" for text in texts]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("text\na\n\nb\n", ["a", "", "b"]),
        ("text\r\na\r\n\r\nb\r\n", ["a", "", "b"]),
        ("text\na\n\nb", ["a", "", "b"]),
        ("text\n\na\n\n", ["", "a", ""]),
        ('text\na\n"b\n\nc"\n""\n', ["a", "b\n\nc", ""]),
        ("\n\ntext\na\n\nb\n", ["a", "b"]),  # what is empty before the header is not counted
        ("\ufefftext\na\n\nb\n", ["a", "", "b"]),
    ],
)
def test_an_empty_row_of_a_one_column_csv_keeps_its_number(
    tmp_path: Path, content: str, texts: list[str]
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content.encode())
    assert count_rows(find_source(str(file))) == len(texts)
    assert rows(str(file), labels=None) == [{"id": n, "text": t} for n, t in enumerate(texts)]


def test_empty_lines_between_rows_of_several_columns_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,sad\n\nb,happy\n\n")
    assert [row["text"] for row in rows(str(tmp_path / "t.csv"))] == ["a", "b"]


def in_csv(text: str) -> str:
    return f"text\na\n{text}\nb\n"


def in_json(text: str) -> str:
    return "".join(json.dumps({"text": value}) + "\n" for value in ("a", text, "b"))


@pytest.mark.parametrize(("kind", "write"), [("csv", in_csv), ("jsonl", in_json)])
def test_a_row_of_megabytes_is_read(tmp_path: Path, kind: str, write: Callable[[str], str]) -> None:
    long = "x" * 5_000_000
    (tmp_path / f"t.{kind}").write_text(write(long))
    read = [row["text"] for row in rows(str(tmp_path / f"t.{kind}"), labels=None)]
    assert read == ["a", long, "b"]
    (tmp_path / f"t.{kind}").write_text(write("x" * 40_000_000))
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / f"t.{kind}"), labels=None)
    assert str(error.value) == f"{tmp_path}/t.{kind}: cannot be read: a row is longer than 16 MB"


LONG = "text\n" + "a text of the table\n" * 900_000  # more than a block


UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "CSV parse error: Empty CSV file or block: cannot infer number of columns"),
    "ragged.csv": (
        "text\na\nb,c\n",
        "CSV parse error: Row #3: Expected 1 columns, got 2: b,c; put texts that contain the delimiter in double quotes",
    ),
    "late.csv": (
        f"{LONG}b,c\n",
        "CSV parse error: Row #900002: Expected 1 columns, got 2: b,c; put texts that contain the delimiter in double quotes",
    ),
    "latin.csv": (
        "text\né\n".encode("latin-1"),
        "is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
    ),
    "latin.jsonl": (
        '{"text": "é"}\n'.encode("latin-1"),
        "In column 1: Invalid: Invalid UTF8 sequence at string index 0",
    ),
    "broken.jsonl": ('{"text": "a"}\n{"text":\n', "JSON parse error: Invalid value. in row 1"),
    "array.json": (
        '[{"text": "a"}]',
        "JSON parse error: Column() changed from object to array in row 0",
    ),
}


def counted_rows(source: str) -> list[dict[str, Any]]:
    assert count_rows(find_source(source)) > 0
    return rows(source, labels=None)


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    content, message = UNREADABLE[name]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        counted_rows(str(file))
    assert str(error.value) == f"{file}: cannot be read: {message}"


def test_a_damaged_page(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), file)
    content = bytearray(file.read_bytes())
    content[10:60] = bytes(50)
    file.write_bytes(content)
    assert count_rows(find_source(str(file))) == 1000  # by the metadata at the file's end
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read: "):
        rows(str(file), labels=None)


def test_files_are_listed_by_their_names_below_the_source(tmp_path: Path) -> None:
    for name in ("b.csv", "a/c.jsonl", "a/notes.txt", "_log/d.csv", "a/.e.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\na\n")
    listing = list_files(str(tmp_path))
    assert listing.paths == {"a/c.jsonl": f"{tmp_path}/a/c.jsonl", "b.csv": f"{tmp_path}/b.csv"}
    assert list_files(f"{tmp_path}/b.csv").paths == {"": f"{tmp_path}/b.csv"}
    assert list_files(f"{tmp_path}/a/notes.txt").paths == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("t.cvs", "t.cvs: no such file or folder; did you mean 't.csv'?"),
        ("memory://nowhere/t.csv", "memory://nowhere/t.csv: no such file or folder"),
        ("s4://b/t.csv", "s4://b/t.csv: cannot be read: Protocol not known: s4"),
    ],
)
def test_a_source_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").touch()
    with pytest.raises(UserError) as error:
        list_files(source)
    assert str(error.value) == message


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_suffix_is_opened_as_its_format(tmp_path: Path, suffix: str) -> None:
    file, table = tmp_path / f"t{suffix}", pa.table({"text": ["a", "b"], "other": ["c", "d"]})
    if suffix == ".parquet":
        pq.write_table(table, file)
    elif FORMATS[suffix] == "json":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(delimiter=delimiter))
    opened = open_file(str(file), fsspec.filesystem("file"))
    assert opened.to_table().to_pylist() == table.to_pylist()


def in_memory(name: str, content: bytes) -> str:
    """The path of a file on fsspec's memory filesystem."""
    fsspec.filesystem("memory").pipe_file(name, content)
    return name


def as_csv(table: list[list[str]], delimiter: str, quoting: int) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(table)  # type: ignore[arg-type]
    return text.getvalue()


VALUES = st.text(st.one_of(st.sampled_from(',;\t|"\n\r a'), st.characters(codec="utf-8")))
NAMES = st.text(st.sampled_from(',;\t|" ab'), min_size=1, max_size=5)


@given(
    delimiter=st.sampled_from(DELIMITERS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    suffix=st.sampled_from([".csv", ".tsv"]),
    others=st.lists(NAMES, max_size=2, unique=True),
    data=st.data(),
)
def test_a_table_is_read_whatever_its_delimiter_and_quotes(
    delimiter: str, quoting: int, suffix: str, others: list[str], data: st.DataObject
) -> None:
    header = data.draw(st.permutations(["text", "label", *others]))
    cells = st.lists(VALUES, min_size=len(header), max_size=len(header))
    table = data.draw(st.lists(cells, max_size=5))
    content = as_csv([header, *table], delimiter, quoting).encode()
    path = in_memory(f"/random/t{suffix}", content)
    opened = open_file(path, fsspec.filesystem("memory"), ["text", "label"])
    assert delimiter_of(opened) == delimiter
    read = [list(row.values()) for row in opened.to_table().select(header).to_pylist()]
    assert read == table


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        ("message;category\nyes, and no;good\nno;bad\n", ";"),  # without a wanted column
        ("a,b;c\n1,2;3\n", ","),  # as even and as wide: the usual one
        ("a, you say;b;c\n1;2;3\n4;5;6\n", ";"),  # not even by commas
        ("a|b;c\n1;2\n3;4|\n", ";"),
        ('"a;b",c\n1,2\n', ","),  # in quotes it is text
        ('"a,b";c\n"1, 2";3\n', ";"),
        ("text\nyes, no\nyes; no\n", ","),  # one column, whatever is in the rows
        ("\n\na\tb\n\n1\t2\n", "\t"),
        ("a;b;c\n1;2;3\n4;", ";"),  # the last row is not whole
        ("a;b,c,d\n1;2\n", ";"),
        ("a;b,c,d\n1;2", ","),
        ("", ","),
    ],
)
def test_the_delimiter_is_told_by_the_first_lines(sample: str, delimiter: str) -> None:
    assert find_delimiter(sample) == delimiter


def test_the_delimiter_that_shows_the_wanted_columns_outweighs_what_is_more_even() -> None:
    uneven = "text;label\nyes;good\nno;bad;more\n"
    assert find_delimiter(uneven, ["text", "label"]) == ";"
    both = "text,a;label,b;c\n1,2;3,4;5\n"
    assert [find_delimiter(both, [name]) for name in ("text", "c", "a;label")] == [",", ";", ","]


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_long_file_is_told_by_its_beginning(tmp_path: Path, delimiter: str) -> None:
    texts = [f'{n} is, "so" to; say|é\n' * 99 for n in range(99)]  # cut in the middle of one
    content = as_csv([["text", "n"], *([t, "1"] for t in texts)], delimiter, csv.QUOTE_ALL)
    (tmp_path / "t.csv").write_text(content, newline="")
    assert len(content) > SAMPLE_BYTES
    assert find_delimiter(content[:SAMPLE_BYTES]) == delimiter
    assert [row["text"] for row in rows(f"{tmp_path}/t.csv")] == texts


def test_the_usual_delimiter_is_that_of_the_suffix(tmp_path: Path) -> None:
    for name, delimiter in {"t.csv": ",", "t.tsv": "\t"}.items():
        (tmp_path / name).write_text("a,b\tc,d\n1,2\t3,4\n")  # three columns, or two
        opened = open_file(f"{tmp_path}/{name}", fsspec.filesystem("file"))
        assert delimiter_of(opened) == ","
        (tmp_path / name).write_text("a,b\tc\n1,2\t3\n")
        opened = open_file(f"{tmp_path}/{name}", fsspec.filesystem("file"))
        assert delimiter_of(opened) == delimiter
    (tmp_path / "t.jsonl").write_text('{"a;b": 1}')
    assert delimiter_of(open_file(f"{tmp_path}/t.jsonl", fsspec.filesystem("file"))) is None


@pytest.mark.parametrize(
    "raised", [pa.ArrowInvalid("bad\nand more"), PermissionError("bad"), UnicodeError("bad")]
)
def test_what_a_reader_raises_is_a_problem_of_the_place(raised: Exception) -> None:
    with pytest.raises(UserError) as error, reading("a.csv"):
        raise raised
    assert str(error.value) == "a.csv: cannot be read: bad"
    with pytest.raises(KeyError), reading("a.csv"):
        raise KeyError("a bug")


def test_an_error_without_words_is_named() -> None:
    assert first_line(OSError()) == "OSError"
    assert first_line(OSError(" first\nsecond")) == "first"
    assert first_line(ValueError("straddling object straddles two blocks")) == (
        "a row is longer than 16 MB"
    )
