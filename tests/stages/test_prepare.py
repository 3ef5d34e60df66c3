"""The first stage: which rows a run works on, in which order, under which ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import Make, planned
from testing import HAPPY, SAD, todo

from pet_pipeline import Run, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.stages.results import Tables
from pet_pipeline.units import read_record

TEXTS = [f"{word} day" for word in ("bad", "awful", "sad", "good", "great", "happy")]
LABELS = ["sad"] * 3 + ["happy"] * 3


def prepared(settings: Settings) -> Tables:
    with Run.open(settings) as run:
        return prepare(run, load_task(settings.task), settings)


@pytest.fixture
def tables_of(tiny_settings: Make, tmp_path: Path) -> Callable[..., Tables]:
    """The prepared tables of given data settings; each call has a run of its own."""
    runs = iter(range(99))

    def make(**data: Any) -> Tables:
        return prepared(tiny_settings(data=data, output=str(tmp_path / f"run-{next(runs)}")))

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
    assert (tables.n_shards, tables.pool_rows) == (2, 6)


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


def test_too_few_rows_for_k(tiny_settings: Make) -> None:
    with pytest.raises(
        UserError, match=r"'sad' has 4 rows, data\.k = 9; lower data\.k or add rows"
    ):
        prepared(tiny_settings(data={"k": 9}))


def test_a_sample_of_the_pool_goes_by_the_seed(tables_of: Callable[..., Tables]) -> None:
    def ids(**data: Any) -> list[int]:
        tables = tables_of(**data)
        parts = [
            columns(tables.pool, part.name)["id"] for part in sorted(tables.pool.dir.glob("part-*"))
        ]
        assert [len(part) for part in parts[:-1]] == [data.get("shard_rows")] * (len(parts) - 1)
        found = [n for part in parts for n in part]
        assert tables.pool_rows == len(found)
        assert tables.n_shards == len(parts)
        return found

    everything = list(range(100, 124))
    assert ids() == ids(pool_rows=24) == ids(pool_rows=99) == everything
    one = ids(pool_rows=6, seed=1, shard_rows=4)
    assert one == ids(pool_rows=6, seed=1) == sorted(one)
    assert len(set(one)) == 6
    assert set(one) < set(everything)
    assert any(one != ids(pool_rows=6, seed=seed) for seed in (2, 3))


def test_the_seed_counts_only_where_something_is_drawn(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    assert todo(tiny_settings(output=output, data={"seed": 5})) == ["report"]
    drawn = todo(tiny_settings(output=output, data={"seed": 5, "k": 2}))
    assert "prepare/labelled" in drawn
    assert "prepare/pool" not in drawn
    assert "prepare/pool" in todo(tiny_settings(output=output, data={"pool_rows": 9}))


def test_without_labelled_and_test_tables(tables_of: Callable[..., Tables]) -> None:
    tables = tables_of(labelled="", test="")
    assert tables.labelled is tables.test is tables.development is None
    assert tables.measured == {}


@pytest.mark.parametrize("labels", [["sad", "sad"], ["happy", "happy"]])
def test_a_label_without_labelled_rows_is_refused(
    tiny_settings: Make, tmp_path: Path, labels: list[str]
) -> None:
    source = saved(tmp_path, "l", text=["a", "b"], label=labels)
    (missing,) = {"sad", "happy"} - set(labels)
    settings = tiny_settings(data={"labelled": source})
    with pytest.raises(UserError) as error:
        prepared(settings)
    assert str(error.value) == (
        f"{source}: no row is labelled '{missing}', and a label without rows is never predicted "
        "after tuning; label one row, or leave the label out of task.toml"
    )
    assert not (Path(settings.output) / "prepare" / "models").exists()


def test_a_test_table_may_lack_a_label(tables_of: Callable[..., Tables], tmp_path: Path) -> None:
    source = saved(tmp_path, "t", text=["a", "b"], label=["sad", "sad"])
    tables = tables_of(test=source, development=source)
    assert tables.test is not None
    assert tables.test.info["labels"] == {"sad": 2, "happy": 0}


def test_texts_shared_with_the_labelled_table_are_counted_and_said(
    tiny_settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = [SAD[0], f"  {SAD[1].upper()}\n", HAPPY[0].replace(" ", "  "), "a new text"]
    test = saved(tmp_path, "t", text=shared, label=["sad", "sad", "happy", "happy"])
    new = saved(tmp_path, "n", text=["another text", "one more"], label=["sad", "happy"])
    settings = tiny_settings(data={"test": test, "development": new})
    prepared(settings)
    said = capsys.readouterr().err
    assert (
        "data.test: 3 of 4 texts are in data.labelled too; what is measured on them is too good"
        in said
    )
    assert "data.development:" not in said
    record = read_record(Path(settings.output) / "prepare" / "overlap")
    assert record is not None
    assert record["info"] == {"test": 3, "development": 0}


def test_overlap_is_looked_for_only_between_tables_that_there_are(tiny_settings: Make) -> None:
    assert "prepare/overlap" in planned(tiny_settings())
    assert "prepare/overlap" not in planned(tiny_settings(data={"labelled": ""}))
    assert "prepare/overlap" not in planned(tiny_settings(data={"test": ""}))


def test_a_row_without_text_is_refused(tiny_settings: Make, tmp_path: Path) -> None:
    source = saved(tmp_path, "l", text=["a", " ", ""], label=["sad", "happy", "sad"])
    with pytest.raises(UserError) as error:
        prepared(tiny_settings(data={"labelled": source}))
    assert str(error.value) == f"{source}: row 1 has no text in 'text' (2 such rows); drop them"
