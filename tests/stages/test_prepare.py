"""The first stage: which rows a run works on, in which order, under which ids."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import Make, planned, result
from testing import CPU, SAD, run, todo

from pet_pipeline import Run, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.stages.check_data import CheckData
from pet_pipeline.stages.check_patterns import read_checked
from pet_pipeline.stages.prepare import PreparePool
from pet_pipeline.stages.results import Tables
from pet_pipeline.tables import part_name
from pet_pipeline.units import Result

TEXTS = [f"{word} day" for word in ("bad", "awful", "sad", "good", "great", "happy")]
UNLABELLED = [f"{text} again" for text in TEXTS]
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
    pool = saved(tmp_path, "p", id=ids, text=UNLABELLED)
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
    pool = saved(tmp_path, "p", **{**table, "message": UNLABELLED})
    mapping = {"text": "message", "label": "mood", "id": "key"}
    tables = tables_of(labelled=source, pool=pool, test=source, columns=mapping)
    for found in (tables.labelled, tables.test):
        assert found is not None
        assert columns(found) == {"id": list("abcdef"), "text": TEXTS, "label": LABELS}
    assert columns(tables.pool, "part-00000.parquet") == {"id": list("abcdef"), "text": UNLABELLED}


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


def test_the_pools_copies_of_test_texts_are_left_out(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    texts = ["a", "  C\n", "b c", "d", "A", "e", "f"]
    pool = saved(tmp_path, "p", id=list("stuvwxy"), text=texts)
    test = saved(tmp_path, "t", text=["a", "c", "B  C", "other"], label=["sad"] * 4)
    tables = tables_of(labelled="", test=test, development=test, pool=pool, shard_rows=3)
    assert tables.pool.info == {"rows": 3, "left_out": 4}
    # Cut as if all rows were there: a plan, which reads no text, knows the number of shards.
    assert (tables.pool_rows, tables.n_shards) == (7, 3)
    found = [columns(tables.pool, part_name(n)) for n in range(3)]
    assert found == [
        {"id": [], "text": []},
        {"id": ["v", "x"], "text": ["d", "e"]},
        {"id": ["y"], "text": ["f"]},
    ]


def test_texts_are_left_out_of_a_sample_after_it_is_drawn(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    texts = [f"text {n}" for n in range(40)]
    pool = saved(tmp_path, "p", text=texts)
    test = saved(tmp_path, "t", text=texts[::2], label=["sad"] * 20)
    draw = {"labelled": "", "pool": pool, "pool_rows": 12, "seed": 3}
    drawn = columns(tables_of(**draw, test="").pool, part_name(0))["id"]
    tables = tables_of(**draw, test=test)
    assert columns(tables.pool, part_name(0))["id"] == [n for n in drawn if n % 2]
    assert tables.pool.info == {
        "rows": sum(n % 2 for n in drawn),
        "left_out": 12 - sum(n % 2 for n in drawn),
    }


def test_copies_in_other_tables_stay_in_the_pool(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    source = saved(tmp_path, "l", text=TEXTS, label=LABELS)
    tables = tables_of(labelled=source, development=source, test="", pool=source)
    assert tables.pool.info == {"rows": 6, "left_out": 0}
    assert columns(tables.pool, part_name(0))["text"] == TEXTS


def test_a_pool_of_test_texts_alone_is_refused(tiny_settings: Make, tmp_path: Path) -> None:
    source = saved(tmp_path, "s", text=TEXTS, label=LABELS)
    with pytest.raises(UserError) as error:
        prepared(tiny_settings(data={"test": source, "pool": source}))
    assert str(error.value) == (
        f"data.pool: all 6 texts of {source} are in data.test too, and copies of test texts are "
        "left out of the pool; give other texts"
    )


def test_the_pool_is_made_again_for_other_test_texts(
    finished: Make, tiny_settings: Make, tmp_path: Path
) -> None:
    output = finished().output
    test = saved(tmp_path, "t", text=["a", "b"], label=["sad", "happy"])
    names = todo(tiny_settings(output=output, data={"test": test}))
    assert {"prepare/test", "prepare/pool", "encode/just-00000"} <= set(names)
    assert not {"prepare/labelled", "gen-0/finetune/just-1"} & set(names)


def test_without_a_pool_there_are_labelled_tables_and_no_patterns_are_checked(
    tables_of: Callable[..., Tables], capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tables_of(pool="")
    assert (tables.pool, tables.pool_rows, tables.n_shards, tables.checked) == (None, 0, 0, ())
    assert tables.labelled is not None
    assert tables.test is not None
    assert tables.data_checks is not None
    assert "only the baseline is trained" in capsys.readouterr().err


def test_what_the_label_is_called_does_not_concern_the_pool(
    tiny_settings: Make, tmp_path: Path
) -> None:
    labelled = saved(tmp_path, "l", text=TEXTS, label=LABELS, mood=LABELS)
    settings = tiny_settings(data={"labelled": labelled, "test": ""})
    prepared(settings)
    again = tiny_settings(data={"labelled": labelled, "test": "", "columns": {"label": "mood"}})
    undone = [name for name in todo(again) if name.startswith("prepare")]
    assert undone == ["prepare/labelled", "prepare/data"]


def test_a_csv_is_counted_and_read_with_the_same_delimiter(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    rows = "".join(f'"{n};\n {n}",{n};{n},{n}\n' for n in range(9))
    (tmp_path / "p.csv").write_text(f"text,a;b,c\n{rows}")
    tables = tables_of(pool=str(tmp_path / "p.csv"), pool_rows=5, shard_rows=2)
    assert (tables.pool_rows, tables.n_shards) == (5, 3)
    assert sum(len(columns(tables.pool, part_name(n))["text"]) for n in range(3)) == 5


def test_memory_does_not_grow_with_the_texts_of_the_pool(tmp_path: Path) -> None:
    def peak(words: int) -> int:
        folder = tmp_path / str(words)
        folder.mkdir()
        texts = [f"{n} " + "word " * words for n in range(20_000)]
        source = Path(saved(folder, "p", text=texts))
        del texts
        unit = PreparePool(source, ("text",), {}, shard_rows=100)
        tracemalloc.start()
        unit.work(folder, CPU)
        pool = Result(folder, "", {"rows": 20_000, "left_out": 0})
        CheckData(("text",), {}, pool, True, (), None, 0).work(folder, CPU)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    short, long = peak(2), peak(40)
    assert long - short < 8192 * 200  # a batch of 8192 longer texts, not 20,000 of them


def test_a_shard_that_is_left_out_as_a_whole_does_no_harm(
    tiny_settings: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    test = pq.read_table(tiny_tables["test"])["text"].to_pylist()
    pool = saved(tmp_path, "p", text=[*test[:4], *TEXTS, test[4], "a film"])
    sections: dict[str, Any] = {
        "data": {"pool": pool, "shard_rows": 4},
        "ipet": {"generations": 1, "scale": 1.5},
        "finetune": {"mlm_weight": 0.1, "steps": 2},
        "demonstrations": {"enabled": True, "draws": 1, "max_tokens": 120},
        "calibration": {"method": "pmi", "prior": "pool"},
    }
    settings = tiny_settings(**sections)
    run(settings)
    assert todo(settings) == []
    for name in ("gen-0/annotate/just-1-00000/scores", "gen-1/ensemble/all/part-00000"):
        assert pq.read_metadata(Path(settings.output) / f"{name}.parquet").num_rows == 0
    soft = result(settings, "gen-1/ensemble/all")
    parts = [columns(soft, part_name(n))["id"] for n in range(3)]
    assert parts == [[], [4, 5, 6, 7], [8, 9, 11]]
    shown = read_checked(result(settings, "prepare/patterns"))[0]
    assert (shown.rendered[0], shown.checked) == ("bad day it was {mask}.", 7)


def test_the_warnings_are_shown_in_every_run_and_in_no_plan(
    tiny_settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = saved(tmp_path, "t", text=[SAD[0], "new"], label=["sad", "happy"])
    pool = saved(tmp_path, "p", text=[f"{text} now" for text in [*TEXTS, "new", "b", *TEXTS]])
    settings = tiny_settings(data={"test": test, "pool": pool}, finetune={"max_tokens": 9})
    expected = [
        "Data checks: 4 warnings",
        "  - data.labelled: fewer than 8 rows of 'sad' (4), 'happy' (4); what is learned of such a label depends on which rows these are; label more of them first",
        "  - data.test: 1 of 2 texts is in data.labelled too; figures measured on such texts are too good; remove the copies from one of the tables",
        "  - data.pool: 6 of 14 rows repeat the text of an earlier row; such texts count several times in the classifier's training; keep one row of each, unless texts to be classified repeat as often",
        "  - finetune.max_tokens: texts of the pool are cut to inputs of 9 tokens, by pattern ('it_was' 13 of 14, 93%; 'just' 13 of 14, 93%; 'mood' 14 of 14, 100%); the models do not see what is cut; raise it where labels depend on that, at the cost of time",
    ]
    for _ in range(2):
        tables = prepared(settings)
        assert tables.data_checks is not None
        assert tables.data_checks.info == {"warnings": [line[4:] for line in expected[1:]]}
        said = capsys.readouterr().err.splitlines()
        assert said[said.index(expected[0]) :][: len(expected)] == expected
    planned(settings)
    assert "Data checks" not in capsys.readouterr().err


def test_texts_with_several_labels_are_refused(tiny_settings: Make, tmp_path: Path) -> None:
    both = saved(tmp_path, "l", text=["a", "b", " a"], label=["sad", "sad", "happy"])
    other = saved(tmp_path, "t", text=["c", "c"], label=["sad", "happy"])
    with pytest.raises(UserError) as error:
        prepared(tiny_settings(data={"labelled": both, "test": other}))
    assert error.value.problems == (
        f"{both}: 'a' is labelled 'sad' (row 0) and 'happy' (row 2); keep one label",
        f"{other}: 'c' is labelled 'sad' (row 0) and 'happy' (row 1); keep one label",
    )


def test_labels_conflict_only_among_the_rows_that_are_drawn(
    tables_of: Callable[..., Tables], tmp_path: Path
) -> None:
    def drawn(name: str, texts: list[str]) -> list[int]:
        source = saved(tmp_path, name, text=texts, label=LABELS)
        found: list[int] = columns(tables_of(labelled=source, k=1).labelled)["id"]
        return found

    chosen = drawn("without", TEXTS)
    texts = [f"text {n}" for n in range(6)]
    undrawn = [n for n in range(6) if n not in chosen]
    (sad, _), (happy, _) = undrawn[:2], undrawn[2:]
    texts[sad] = texts[happy] = "twice"
    assert drawn("not drawn", texts) == chosen
    texts[chosen[0]] = texts[chosen[1]] = "both"
    source = saved(tmp_path, "o", text=texts, label=LABELS)
    with pytest.raises(UserError) as error:
        tables_of(labelled=source, k=1)
    assert str(error.value) == (
        f"{source}: 'both' is labelled 'sad' (row {chosen[0]}) and 'happy' (row {chosen[1]}); "
        "keep one label"
    )


def test_a_row_without_text_is_refused(tiny_settings: Make, tmp_path: Path) -> None:
    source = saved(tmp_path, "l", text=["a", " ", ""], label=["sad", "happy", "sad"])
    with pytest.raises(UserError) as error:
        prepared(tiny_settings(data={"labelled": source}))
    assert str(error.value) == f"{source}: row 1 has no text in 'text' (2 such rows); drop them"
