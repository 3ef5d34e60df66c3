"""Tables in and out: every source gives the same rows, every mistake its message."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.data import (
    check_ids,
    check_source,
    count_rows,
    find_source,
    part_name,
    read_batches,
    read_probs,
    read_scores,
    save_table,
    write_scores,
    write_shards,
    write_soft_labels,
)
from pet_pipeline.errors import UserError

LABELS = ("sad", "happy")
ROWS = {
    "text": ["007", "1.0", "two\nlines", 'a "quoted", comma', "", "é 中 😀"],
    "label": ["sad", "happy", "sad", "happy", "sad", "happy"],
}


def rows(
    source: str, names: dict[str, str] | None = None, labels: Any = LABELS
) -> list[dict[str, Any]]:
    batches = read_batches(find_source(source), ("text",), names or {}, labels)
    return [row for batch in batches for row in batch.to_pylist()]


def written(folder: Path, kind: str) -> str:
    table, file = pa.table(ROWS), folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        delimiter = "\t" if kind == "tsv" else ","
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(delimiter=delimiter))
    return str(file)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind)
    assert count_rows(find_source(source)) == 6
    assert rows(source) == [
        {"id": n, "text": text, "label": label}
        for n, (text, label) in enumerate(zip(ROWS["text"], ROWS["label"], strict=True))
    ]


def test_quoted_lines_may_lie_across_the_blocks_of_a_file(tmp_path: Path) -> None:
    texts = [f"line {n}\nand {'x' * 500}, so" for n in range(3000)]  # more than a block of 1 MB
    pa_csv.write_csv(pa.table({"text": texts}), tmp_path / "t.csv")
    assert [row["text"] for row in rows(str(tmp_path / "t.csv"), labels=None)] == texts


def test_ids_of_a_csv_file_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n007,NA\n7,null\n1.0,\n")
    assert rows(str(tmp_path / "t.csv"), labels=None) == [
        {"id": "007", "text": "NA"},
        {"id": "7", "text": "null"},
        {"id": "1.0", "text": ""},
    ]


COLUMNS = {
    "integers": pa.array([7, 8]),
    "categories": pa.array(["7", "8"]).dictionary_encode(),
    "large": pa.array(["7", "8"], pa.large_string()),
    "bytes": pa.array([b"7", b"8"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_other_types_are_read_as_text(tmp_path: Path, kind: str) -> None:
    column = COLUMNS[kind]
    pq.write_table(pa.table({"text": column, "label": column}), tmp_path / "t.parquet")
    assert rows(str(tmp_path / "t.parquet"), labels=("7", "8")) == [
        {"id": 0, "text": "7", "label": "7"},
        {"id": 1, "text": "8", "label": "8"},
    ]


def test_shards_of_csv_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,sad\n")
    (tmp_path / "b.csv").write_text("label,text\nhappy,b\n")
    assert [(row["text"], row["label"]) for row in rows(str(tmp_path))] == [
        ("a", "sad"),
        ("b", "happy"),
    ]


def test_ids_are_made_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pet_pipeline.data.BATCH_ROWS", 2)
    pq.write_table(pa.table({"text": list("abcde")}), tmp_path / "t.parquet")
    assert [row["id"] for row in rows(str(tmp_path / "t.parquet"), labels=None)] == [0, 1, 2, 3, 4]


def test_a_folder_of_shards_is_one_table_in_order(tmp_path: Path) -> None:
    for n in range(3):
        pq.write_table(pa.table({"text": [f"{n}"]}), tmp_path / part_name(n))
    (tmp_path / "README.md").write_text("no table")
    assert [row["text"] for row in rows(str(tmp_path), labels=None)] == ["0", "1", "2"]


def test_a_table_behind_a_url() -> None:
    with fsspec.open("memory://shop/pool.csv", "w") as file:
        file.write("text\nhello\n")
    source = find_source("memory://shop/pool.csv")
    assert rows("memory://shop/pool.csv", labels=None) == [{"id": 0, "text": "hello"}]
    with fsspec.open("memory://shop/pool.csv", "w") as file:
        file.write("text\nhello again\n")
    assert find_source("memory://shop/pool.csv") != source


def test_a_data_set_of_the_datasets_library(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["hello", "bye"]}), tmp_path / "train.parquet")
    source = f"datasets:{tmp_path}:train"
    assert [row["text"] for row in rows(source, labels=None)] == ["hello", "bye"]
    (problem,) = check_source(
        f"datasets:{tmp_path}", ("text",), {}, labelled=False, place="data.pool"
    )
    assert problem.endswith("write datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT")


def test_numbered_labels_with_names_in_the_metadata(tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["sad", "happy"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert [row["label"] for row in rows(str(tmp_path / "t.parquet"))] == ["happy", "sad"]


def test_numbered_labels_of_the_datasets_library(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["happy", "sad"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    source = f"datasets:{tmp_path / 'set'}:train"
    assert [row["label"] for row in rows(source)] == ["sad", "happy"]
    (problem,) = check_source(f"{source}s", ("text",), {}, labelled=True, place="p")
    assert problem.startswith(f"p: {source}s: Unknown split")
    before = find_source(source)
    assert before == find_source(source)
    made.select([0]).to_parquet(tmp_path / "set" / "train.parquet")
    assert before != find_source(source)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (-1, "1 row without a label; the pool is for those"),
        (None, "1 row without a label; the pool is for those"),
        (2, "cannot be read: Index 2 out of bounds"),
    ],
)
def test_numbers_that_are_no_label(tmp_path: Path, number: int | None, message: str) -> None:
    features = {"info": {"features": {"label": {"names": ["sad", "happy"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [number, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert str(error.value) == f"{tmp_path}/t.parquet: {message}"


@pytest.mark.parametrize("ids", [["x", "y"], [7, 3]])
def test_ids_and_mapped_columns_are_kept(tmp_path: Path, ids: list[Any]) -> None:
    table = pa.table({"key": ids, "message": ["a", None], "class": ["sad", "happy"]})
    pq.write_table(table, tmp_path / "t.parquet")
    names = {"id": "key", "text": "message", "label": "class"}
    assert rows(str(tmp_path / "t.parquet"), names) == [
        {"id": ids[0], "text": "a", "label": "sad"},
        {"id": ids[1], "text": "", "label": "happy"},
    ]


def test_unknown_labels_are_counted_and_named(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "label": ["hapy", "hapy", None]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert str(error.value).splitlines() == [
        f"{tmp_path}/t.parquet: 'hapy' (2 rows) is no label of the task; did you mean 'happy'?",
        f"{tmp_path}/t.parquet: 1 row without a label; the pool is for those",
    ]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            ["a", "b", "a", "a"],
            "t: row 2 has an id that stands there before (2 such rows); ids must be unique; without the column, row numbers serve",
        ),
        ([1, None], "t: 1 rows have no id; fill or drop the column"),
    ],
)
def test_bad_ids(ids: list[Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_ids(Path("t"), [pa.array(ids)])
    assert str(error.value) == message


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_unique_ids_pass(ids: list[int]) -> None:
    check_ids(Path("t"), [pa.array(ids[:10]), pa.array(ids[10:])])


def test_what_keeps_a_source_from_being_read(tmp_path: Path) -> None:
    source = written(tmp_path, "csv")
    for broken, message in {
        str(tmp_path / "rows.cvs"): f"no such file or folder; did you mean '{source}'?",
        str(tmp_path / "empty"): "no table found; one of ",
        str(tmp_path / "broken.parquet"): "cannot be read: ",
        "nowhere://x/y.csv": "Protocol not known: nowhere",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
        (problem,) = check_source(broken, ("text",), {}, labelled=False, place="data.pool")
        assert problem.startswith(f"data.pool: {broken}: ")
        assert message in problem
    problems = check_source(source, ("txt", "text"), {"text": "label"}, labelled=True, place="p")
    assert problems == [f"p: {source} has no column 'txt'; did you mean 'text'?"]
    (problem,) = check_source(source, ("txt",), {}, labelled=True, place="p")
    assert problem.endswith("did you mean 'text'?; or map it: data.columns = {text = \"...\"}")


LONG = "text\n" + "a text of the table\n" * 100_000  # more than a block of 1 MB
UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "CSV parse error: Empty CSV file or block: cannot infer number of columns"),
    "ragged.csv": ("text\na\nb,c\n", "CSV parse error: Row #3: Expected 1 columns, got 2: b,c"),
    "late.csv": (
        f"{LONG}b,c\n",
        "CSV parse error: Row #100002: Expected 1 columns, got 2: b,c",
    ),
    "latin.csv": (
        "text\né\n".encode("latin-1"),
        "In CSV column #0: Row #2: CSV conversion error to string: invalid UTF8 data",
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


@pytest.mark.parametrize(
    "column", [[["a"]], [{"a": 1}], [b"\xff"]], ids=["list", "struct", "bytes"]
)
@pytest.mark.parametrize("name", ["id", "text", "label"])
def test_columns_that_are_no_text(tmp_path: Path, name: str, column: list[Any]) -> None:
    table = {"id": ["1"], "text": ["a"], "label": ["sad"], name: column}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read: "):
        rows(str(tmp_path / "t.parquet"))


def test_a_damaged_page(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), file)
    content = bytearray(file.read_bytes())
    content[10:60] = bytes(50)
    file.write_bytes(content)
    assert count_rows(find_source(str(file))) == 1000  # by the metadata at the file's end
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read: "):
        rows(str(file), labels=None)


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n")
    assert count_rows(find_source(str(tmp_path / "t.csv"))) == 0
    assert rows(str(tmp_path / "t.csv")) == []


def test_labels_that_are_missing_or_unknown_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.data.BATCH_ROWS", 2)
    labels = ["sad", "odd", "happy", "odd", "", None]
    pq.write_table(pa.table({"text": ["a"] * 6, "label": labels}), tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert sorted(str(error.value).splitlines()) == [
        f"{tmp_path}/t.parquet: 'odd' (2 rows) is no label of the task; there are 'sad', 'happy'",
        f"{tmp_path}/t.parquet: 2 rows without a label; the pool is for those",
    ]


def test_mixed_formats_in_a_folder(tmp_path: Path) -> None:
    written(tmp_path, "csv")
    written(tmp_path, "parquet")
    (problem,) = check_source(str(tmp_path), ("text",), {}, labelled=False, place="p")
    assert "'csv', 'parquet' found; one of" in problem


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_shards_hold_every_row_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], size: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    ends = np.cumsum([0, *sizes])
    batches = [
        pa.RecordBatch.from_pydict({"n": pa.array(range(a, b), pa.int64())})
        for a, b in itertools.pairwise(ends)
    ]
    assert write_shards(batches, folder, size) == sum(sizes)
    parts = [pq.read_table(file)["n"].to_pylist() for file in sorted(folder.iterdir())]
    assert [n for part in parts for n in part] == list(range(sum(sizes)))
    assert all(len(part) == size for part in parts[:-1])


def test_scores_and_soft_labels_come_back(tmp_path: Path) -> None:
    scores = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    write_scores(tmp_path / "s.parquet", pa.array([5, 6]), scores, LABELS)
    ids, found = read_scores(tmp_path / "s.parquet")
    assert ids.to_pylist() == [5, 6]
    assert (found == scores).all()
    write_soft_labels(tmp_path / "p.parquet", pa.array([5, 6]), scores, LABELS)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["id", "label", "confidence", "entropy", "probs"]
    assert table["label"].to_pylist() == ["happy", "sad"]
    assert table["confidence"].to_pylist() == [0.75, 1.0]
    assert table["entropy"].to_pylist() == pytest.approx([0.5623, 0.0], abs=1e-4)
    assert table.schema.field("probs").type == pa.list_(pa.float32(), 2)
    assert json.loads(table.schema.metadata[b"labels"]) == list(LABELS)
    assert (read_probs(tmp_path / "p.parquet") == scores).all()


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"text": ["a", "b"]}),
        pd.DataFrame({"text": ["a", "b"]}),
        {"text": ["a", "b"]},
        [{"text": "a"}, {"text": "b"}],
        ["a", "b"],
    ],
    ids=["arrow", "pandas", "mapping", "rows", "texts"],
)
def test_tables_in_memory_become_sources(tmp_path: Path, table: Any) -> None:
    source = save_table(table, tmp_path / "new", "pool")
    assert [row["text"] for row in rows(source, labels=None)] == ["a", "b"]


def test_texts_in_memory_become_the_column_asked_for(tmp_path: Path) -> None:
    source = save_table(["a"], tmp_path, "pool", column="message")
    assert pq.read_table(source).to_pylist() == [{"message": "a"}]
    assert save_table(["b"], tmp_path, "pool") == source  # replaced
    assert [file.name for file in tmp_path.iterdir()] == ["pool.parquet"]
    frame = pd.DataFrame({"text": ["x", None]}, index=[5, 6])
    assert pq.read_table(save_table(frame, tmp_path, "frame")).column_names == ["text"]


@given(
    st.integers(2, 5).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(0, 1, width=32), min_size=width, max_size=width),
            min_size=1,
            max_size=9,
        )
    )
)
def test_any_probabilities_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]]
) -> None:
    file = tmp_path_factory.mktemp("soft") / "p.parquet"
    probs = np.array(values, np.float32)
    labels = [f"label {n}" for n in range(probs.shape[1])]
    ids = pa.array([f"id {n}" for n in range(len(probs))])
    write_soft_labels(file, ids, probs, labels)
    assert (read_probs(file) == probs).all()
    table = pq.read_table(file)
    assert table["id"].to_pylist() == ids.to_pylist()
    assert table["label"].to_pylist() == [labels[n] for n in probs.argmax(1)]
    assert json.loads(table.schema.metadata[b"labels"]) == labels


def test_other_objects_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pool: a int is no table; give an Arrow table"):
        save_table(3, tmp_path, "pool")
