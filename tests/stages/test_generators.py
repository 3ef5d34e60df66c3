"""Where candidate templates come from, and which rows they are written for and mined from."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import Make, planned
from testing import CPU, save_t5

from pet_pipeline.search.templates import Candidate
from pet_pipeline.stages import generators
from pet_pipeline.stages.generators import (
    GENERATORS,
    ListConnectors,
    Mine,
    SearchTask,
    read_candidates,
    sample_pool,
    some_rows,
    written_for,
)
from pet_pipeline.tables import part_name
from pet_pipeline.units import Result

TASK = SearchTask(("text",), ("sad", "happy"), (("bad",), ("good",)))


def pool_of(folder: Path, texts: list[list[str]]) -> Result:
    """A pool in shards."""
    folder.mkdir(parents=True)
    start = 0
    for n, shard in enumerate(texts):
        ids = pa.array(range(start, start + len(shard)), pa.int64())
        pq.write_table(pa.table({"id": ids, "text": shard}), folder / part_name(n))
        start += len(shard)
    return Result(folder, "pool", {"rows": start})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Result:
    texts = [[f"text {n} of shard {shard}" for n in range(9)] for shard in range(12)]
    return pool_of(tmp_path_factory.mktemp("mined") / "pool", texts)


def test_the_pool_is_sampled_across_all_shards(pool: Result) -> None:
    ids = [row["id"] for row in sample_pool(pool, 50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert ids == [row["id"] for row in sample_pool(pool, 50)]
    assert {n // 9 for n in ids} == set(range(12))
    assert len(list(sample_pool(pool, 999))) == 12 * 9


def test_templates_are_mined_from_a_sample_and_not_from_the_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [a + b for a in "bcdfghklm" for b in ("elo", "ina", "oru", "usi")]
    shards = [[f"{name} was bad. {name} was good."] * 4 for name in names]
    pool = pool_of(tmp_path / "pool", shards)
    monkeypatch.setattr(generators, "MINED_ROWS", 36)  # a quarter of the rows
    out = tmp_path / "out"
    out.mkdir()
    Mine(TASK, pool).work(out, CPU)
    templates = " ".join(
        c.template for group in read_candidates(Result(out, "", {})) for c in group
    )
    mined = [n for n, name in enumerate(names) if re.search(rf"\b{name} was", templates)]
    assert 15 < len(mined) < 36
    assert max(mined) > 27  # the first 36 rows are those of the first 9 shards


@given(st.lists(st.sampled_from(["sad", "happy"]), max_size=20), st.integers(1, 20))
def test_as_many_rows_of_each_label_as_there_is_room_for(labels: list[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ids, texts = range(len(labels)), [f"text {n}" for n in range(len(labels))]
        strings = pa.array(labels, pa.string())
        table = pa.table({"id": pa.array(ids, pa.int64()), "text": pa.array(texts, pa.string())})
        table = table.append_column("label", strings)
        pq.write_table(table, Path(folder) / "table.parquet")
        rows, gold = some_rows(Result(Path(folder), "", {}), TASK.labels, count)
    numbers = [row["id"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert len(rows) == min(count, len(labels))
    assert [TASK.labels[n] for n in gold] == [labels[n] for n in numbers]
    taken, all_rows = Counter(gold), Counter(map(TASK.labels.index, labels))
    for label, other in ((0, 1), (1, 0)):  # a label has fewer only if it has no more
        assert taken[label] >= taken[other] - 1 or taken[label] == all_rows[label]
    for label, name in enumerate(TASK.labels):  # the first ones
        first = [n for n, own in enumerate(labels) if own == name][: taken[label]]
        assert [n for n in numbers if labels[n] == name] == first


def test_templates_are_written_for_labelled_rows(finished: Make) -> None:
    labelled = Result(Path(finished().output) / "prepare" / "labelled", "", {})
    texts = written_for(TASK, labelled)
    assert list(texts.gold) == [0] * 4 + [1] * 4
    assert (texts.columns, texts.words) == (TASK.columns, TASK.words)


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_t5(tmp_path_factory.mktemp("t5") / "t5")


def test_every_generator_has_a_unit_that_depends_on_what_it_reads(
    tiny_settings: Make, tiny_t5: Path
) -> None:
    def keys(**sections: Any) -> dict[str, str]:
        search = {
            "templates": True,
            "generators": list(GENERATORS),
            "t5": str(tiny_t5),
            **sections.pop("search", {}),
        }
        units = planned(tiny_settings(search=search, **sections))
        return {name: units[f"search/generate-{name}"].key for name in GENERATORS}

    def changed(**sections: Any) -> set[str]:
        after = keys(**sections)
        return {name for name, key in keys().items() if after[name] != key}

    with_model = {"mlm", "t5", "autoprompt"}
    assert changed(search={"beam": 3}) == {"mlm", "t5"}
    assert changed(finetune={"max_tokens": 40}) == with_model
    assert changed(machine={"precision": "bfloat16"}) == with_model
    assert changed(data={"shard_rows": 7}) == {"mine"}
    assert changed(data={"k": 2}) == with_model
    assert changed(search={"candidates": 9, "keep": 1}, finetune={"steps": 9}) == set()


def test_candidates_are_read_as_they_were_written_by_location(tmp_path: Path) -> None:
    info = ListConnectors(TASK).work(tmp_path, CPU)
    groups = read_candidates(Result(tmp_path, "", {}))
    assert len(groups) == 2  # after the text, and before it
    assert info == {"candidates": sum(map(len, groups))}
    for group in groups:
        assert all(isinstance(c, Candidate) and c.generator == "connectors" for c in group)
        assert [c.score for c in group] == sorted((c.score for c in group), reverse=True)
    assert {c.template.startswith("{text}") for c in groups[0]} == {True}
    assert {c.template.endswith("{text}") for c in groups[1]} == {True}
