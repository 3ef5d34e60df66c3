"""What stages hand to each other, and samples across shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.keys import fingerprint
from pet_pipeline.models import ModelFolder
from pet_pipeline.stages.results import (
    MODEL,
    TABLE,
    FoundPattern,
    Inputs,
    Part,
    Tables,
    need_inputs,
    rows_of,
    sample_shards,
    training_rows,
    weights_of,
)
from pet_pipeline.units import RECORD, Result


def test_rows_are_those_of_the_info_or_of_the_record_that_was_made_since(tmp_path: Path) -> None:
    planned = Result(tmp_path, "key", {})
    assert rows_of(planned, 7) == 7
    (tmp_path / RECORD).write_text('{"info": {"rows": 12}}')
    assert rows_of(planned, 7) == 12
    assert rows_of(Result(tmp_path, "key", {"rows": 3})) == 3


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 0)


def made(name: str) -> Result:
    return Result(Path(name), f"key of {name}", {})


@given(SIZES, st.integers(0, 300), st.integers(0, 99))
def test_a_sample_takes_each_row_at_most_once_in_the_order_of_the_shards(
    sizes: list[int], count: int, seed: int
) -> None:
    sample = list(sample_shards(sizes, count, "test", seed))
    assert len(sample) == len(sizes)
    assert sum(map(len, sample)) == min(count, sum(sizes))
    for inside, size in zip(sample, sizes, strict=True):
        assert inside == sorted(set(inside))
        assert set(inside) <= set(range(size))
    assert sample == list(sample_shards(sizes, count, "test", seed))


@given(SIZES)
def test_every_row_of_every_shard_is_reached(sizes: list[int]) -> None:
    half = -(-sum(sizes) // 2)
    reached: list[set[int]] = [set() for _ in sizes]
    for seed in range(60):
        for n, inside in enumerate(sample_shards(sizes, half, "test", seed)):
            reached[n] |= set(inside)
    assert reached == [set(range(size)) for size in sizes]


def test_how_rows_are_cut_into_shards_does_not_change_a_sample() -> None:
    def rows(sizes: list[int]) -> list[int]:
        sample = sample_shards(sizes, 20, "test")
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        return [start + row for start, inside in zip(starts, sample, strict=True) for row in inside]

    assert rows([100]) == rows([7] * 14 + [2]) == rows([1, 99])
    assert rows([100]) != list(range(20))  # not the first ones


def test_samples_differ_by_what_they_are_for() -> None:
    samples = {tuple(map(tuple, sample_shards([50, 50], 9, "a", n))) for n in range(9)}
    assert len(samples) == 9


@pytest.mark.parametrize("given", [Tables(made("pool"), 1, 1), None, {}])
def test_what_encode_returns_is_needed(given: object) -> None:
    with pytest.raises(UserError) as error:
        need_inputs(given, "annotate")
    assert str(error.value) == (
        f"annotate: needs what encode returns, got {type(given).__name__}; "
        "call encode(run, task, tables, settings) first"
    )


def test_inputs_are_taken_as_they_are() -> None:
    parts = {"p": (Part("00000", made("a"), 0), Part("00001", made("b"), 1), Part("t", made("c")))}
    inputs = Inputs(Tables(made("pool"), 2, 2), parts)
    assert need_inputs(inputs, "annotate") is inputs
    assert inputs.pool("p") == (made("a"), made("b"))
    assert inputs.of("p") == parts["p"]


def test_a_pattern_that_was_not_encoded() -> None:
    inputs = Inputs(Tables(made("pool"), 2, 2), {"p": ()})
    for ask in (inputs.of, inputs.pool):
        with pytest.raises(UserError) as error:
            ask("q")
        assert str(error.value) == (
            "pattern 'q' was not encoded; call encode with the task that has it"
        )


def test_a_verb_that_needs_a_pool() -> None:
    assert Tables(made("pool"), 2, 2).need_pool("grow") == made("pool")
    inputs = Inputs(Tables(None, 0, 0), {})
    for verb, ask in (("grow", inputs.tables.need_pool), ("encode", lambda _: inputs.of("p"))):
        with pytest.raises(UserError) as error:
            ask(verb)
        assert str(error.value) == (
            f"{verb}: needs a pool of unlabelled texts; set data.pool, --pool FILE"
        )


def test_tables_that_are_measured() -> None:
    pool, test, development = made("pool"), made("test"), made("development")
    assert Tables(pool, 1, 1, labelled=made("labelled")).measured == {}
    both = Tables(pool, 1, 1, test=test, development=development)
    assert both.measured == {"test": test, "development": development}


def test_a_found_pattern_counts_by_its_search() -> None:
    search, other = made("search"), made("other")
    before = FoundPattern("found-1", (), ("a", "b"), ((), ()), search)  # as a plan knows it
    after = FoundPattern("found-1", ("It was",), ("a", "b"), (("x",), ("y",)), search)
    assert fingerprint(before) == fingerprint(after)
    again = FoundPattern("found-1", (), ("a", "b"), ((), ()), other)
    assert fingerprint(again) != fingerprint(before)
    second = FoundPattern("found-2", (), ("a", "b"), ((), ()), search)
    assert fingerprint(second) != fingerprint(before)


def test_an_untuned_model_has_the_weights_of_its_base(tmp_path: Path) -> None:
    base, result = ModelFolder(Path("base")), Result(tmp_path, "", {})
    assert weights_of(result, base) is base
    (tmp_path / MODEL).mkdir()
    assert weights_of(result, base) is base  # of which a part was trained
    (tmp_path / MODEL / "config.json").write_text("{}")
    assert weights_of(result, base) == ModelFolder(tmp_path / MODEL)


def test_training_rows_are_those_of_all_tables_one_after_the_other(tmp_path: Path) -> None:
    tables = []
    for name, labels in (("one", ["b", "a"]), ("two", ["b"])):
        (tmp_path / name).mkdir()
        table = pa.table({"id": range(len(labels)), "text": [name] * len(labels), "label": labels})
        pq.write_table(table, tmp_path / name / TABLE)
        tables.append(Result(tmp_path / name, "", {}))
    rows, gold = training_rows(tables, ("a", "b"))
    assert [row["text"] for row in rows] == ["one", "one", "two"]
    assert gold == [1, 0, 1]
    assert training_rows([], ("a", "b")) == ([], [])
