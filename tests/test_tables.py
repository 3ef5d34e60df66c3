"""Our own tables: what is written comes back, and ids are unique."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.tables import (
    check_ids,
    labels_of,
    part_name,
    read_probs,
    read_rows,
    read_scores,
    shard_files,
    write_scores,
    write_shards,
    write_soft_labels,
)

LABELS = ("sad", "happy")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            ["a", "b", "a", "a"],
            "t: row 2 has a duplicate id (2 such rows); ids must be unique; without the column, row numbers serve",
        ),
        (
            ["a", "b", "a"],
            "t: row 2 has a duplicate id (1 such row); ids must be unique; without the column, row numbers serve",
        ),
        ([1, None], "t: 1 row has no id; fill or drop the column"),
        ([None, None], "t: 2 rows have no id; fill or drop the column"),
    ],
)
def test_bad_ids(ids: list[Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_ids(Path("t"), [pa.array(ids)])
    assert str(error.value) == message


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_unique_ids_pass(ids: list[int]) -> None:
    check_ids(Path("t"), [pa.array(ids[:10]), pa.array(ids[10:])])


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


def test_rows_that_are_not_kept_leave_gaps_in_shards_that_are_cut_as_if_they_were(
    tmp_path: Path,
) -> None:
    batch = pa.RecordBatch.from_pydict({"n": pa.array(range(10), pa.int64())})
    count = write_shards([batch], tmp_path, 4, keep=lambda t: t["n"].to_numpy() > 4)
    parts = [pq.read_table(file)["n"].to_pylist() for file in shard_files(tmp_path)]
    assert (count, parts) == (5, [[], [5, 6, 7], [8, 9]])


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


def test_the_label_numbers_of_a_prepared_table(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "label": ["happy", "sad", "happy"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert labels_of(tmp_path / "t.parquet", LABELS) == [1, 0, 1]
    assert read_rows(tmp_path / "t.parquet")[0] == {"id": 1, "label": "happy"}


def test_the_files_of_shards_are_in_order(tmp_path: Path) -> None:
    for name in ("part-100000.parquet", part_name(99999), part_name(2), "unit.json"):
        (tmp_path / name).touch()
    assert [file.name for file in shard_files(tmp_path)] == [
        "part-00002.parquet",
        "part-99999.parquet",
        "part-100000.parquet",
    ]
    assert shard_files(tmp_path / "none") == []
