"""The first stage: which rows a run works on, in which order, under which ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pet_pipeline import Run, encode, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.encoding import PatternEncoder, read_encoded
from pet_pipeline.pretrained import load_tokenizer
from pet_pipeline.stages.results import ENCODED, Tables

Make = Callable[..., Settings]
TEXTS = [f"{word} day" for word in ("bad", "awful", "sad", "good", "great", "happy")]
LABELS = ["sad"] * 3 + ["happy"] * 3


@pytest.fixture
def tables_of(tiny_settings: Make, tmp_path: Path) -> Callable[..., Tables]:
    """The prepared tables of given data settings; each call has a run of its own."""
    runs = iter(range(99))

    def make(**data: Any) -> Tables:
        settings = tiny_settings(data=data, output=str(tmp_path / f"run-{next(runs)}"))
        with Run.open(settings) as run:
            task = load_task(settings.task)
            return encode(run, task, prepare(run, task, settings), settings)

    return make


def saved(folder: Path, name: str, **columns: Any) -> str:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


def columns(result: Any, file: str = "table.parquet") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(result.dir / file).to_pydict()
    return found


def test_a_table_is_taken_as_it_is(tables_of: Callable[..., Tables], tmp_path: Path) -> None:
    source = saved(tmp_path, "l", label=LABELS, text=TEXTS, more=range(6))
    tables = tables_of(labelled=source)
    assert tables.labelled is not None
    assert columns(tables.labelled) == {"id": list(range(6)), "text": TEXTS, "label": LABELS}
    assert tables.labelled.info == {"rows": 6, "labels": {"sad": 3, "happy": 3}}


@pytest.mark.parametrize("ids", [[7, 3, 9, -1, 0, 2**40], ["b", "a", "7", "é", "x y", ""]])
def test_ids_are_kept(
    tables_of: Callable[..., Tables], tmp_path: Path, ids: list[int] | list[str]
) -> None:
    labelled = saved(tmp_path, "l", id=ids, text=TEXTS, label=LABELS)
    pool = saved(tmp_path, "p", id=ids, text=TEXTS)
    tables = tables_of(labelled=labelled, test=labelled, pool=pool, shard_rows=4)
    assert tables.labelled is not None
    assert tables.test is not None
    assert columns(tables.labelled)["id"] == columns(tables.test)["id"] == ids
    parts = [columns(tables.pool, f"part-0000{n}.parquet")["id"] for n in range(2)]
    assert parts == [ids[:4], ids[4:]]


def test_columns_of_other_names(tables_of: Callable[..., Tables], tmp_path: Path) -> None:
    table = {"message": TEXTS, "mood": LABELS, "key": list("abcdef"), "text": ["not this"] * 6}
    source = saved(tmp_path, "t", **table)
    mapping = {"text": "message", "label": "mood", "id": "key"}
    tables = tables_of(labelled=source, pool=source, test=source, columns=mapping)
    for found in (tables.labelled, tables.test):
        assert found is not None
        assert columns(found) == {"id": list("abcdef"), "text": TEXTS, "label": LABELS}
    assert columns(tables.pool, "part-00000.parquet") == {"id": list("abcdef"), "text": TEXTS}


def test_k_rows_of_each_label_in_the_tables_order(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    texts = [f"day {n}" for n in range(40)]
    source = saved(tmp_path, "l", text=texts, label=["sad"] * 10 + ["happy"] * 30)

    def drawn(**data: Any) -> list[int]:
        found = columns(tables_of(labelled=source, **data).labelled)
        assert found["text"] == [texts[n] for n in found["id"]]
        assert Counter(found["label"]) == {"sad": data["k"], "happy": data["k"]}
        return found["id"]

    assert drawn(k=4, seed=1) == drawn(k=4, seed=1) == sorted(drawn(k=4, seed=1))
    draws = {tuple(drawn(k=4, seed=seed)) for seed in range(5)}
    assert len(draws) == 5
    assert drawn(k=10, seed=1)[:10] == list(range(10))


def test_a_sample_of_the_pool_goes_by_the_seed(tables_of: Callable[..., Tables]) -> None:
    def ids(**data: Any) -> list[int]:
        pool = tables_of(**data).pool
        return [
            n for part in sorted(pool.dir.glob("part-*")) for n in columns(pool, part.name)["id"]
        ]

    everything = list(range(100, 124))
    assert ids() == ids(pool_rows=24) == ids(pool_rows=99) == everything
    one = ids(pool_rows=6, seed=1, shard_rows=4)
    assert one == ids(pool_rows=6, seed=1) == sorted(one)
    assert len(set(one)) == 6
    assert set(one) < set(everything)
    assert any(one != ids(pool_rows=6, seed=seed) for seed in (2, 3))


def test_rows_stand_in_every_pattern(
    tables_of: Callable[..., Tables], tiny_task: Path, tiny_mlm: Path
) -> None:
    tables = tables_of(shard_rows=10)
    assert tables.n_shards == 3
    for pattern in load_task(tiny_task).patterns:
        encoder = PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)
        for n, part in enumerate(tables.encoded[pattern.name]):
            texts = columns(tables.pool, f"part-0000{n}.parquet")["text"]
            expected = encoder.encode([{"text": text} for text in texts])
            found = read_encoded(part.dir / ENCODED)
            assert [list(row.ids) for row in found] == [list(row.ids) for row in expected]
        assert tables.encoded_extra[pattern.name, "test"].info["rows"] == 8


def test_without_labelled_and_test_tables(tables_of: Callable[..., Tables]) -> None:
    tables = tables_of(labelled="", test="")
    assert tables.labelled is tables.test is tables.development is None
    assert tables.encoded_extra == {}
