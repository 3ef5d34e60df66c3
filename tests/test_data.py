"""Tables in and out: every source gives the same rows, every mistake its message."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

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


def test_other_objects_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pool: a int is no table; give an Arrow table"):
        save_table(3, tmp_path, "pool")
