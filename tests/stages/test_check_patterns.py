"""Patterns as the model's tokenizer reads them, and what is kept of that for the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import Make, planned, result
from testing import CPU

from pet_pipeline import load_task
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import pattern_of
from pet_pipeline.stages.check_patterns import (
    SHOWN_ROWS,
    CheckedPattern,
    CheckPatterns,
    first_rows,
    read_checked,
    truncation_warnings,
)
from pet_pipeline.tables import part_name, read_rows
from pet_pipeline.units import Result


def test_what_is_kept_of_each_pattern(finished: Make) -> None:
    settings = finished()
    patterns = load_task(settings.task).patterns
    checked = read_checked(result(settings, "prepare/patterns"))
    assert [pattern.name for pattern in checked] == [pattern.name for pattern in patterns]
    rows = read_rows(Path(settings.output) / "prepare/pool/part-00000.parquet")
    for found, pattern in zip(checked, patterns, strict=True):
        assert found.rendered == [pattern.render(row) for row in rows[:SHOWN_ROWS]]
        assert found.words == {"sad": [["terrible"], ["bad"]], "happy": [["great"], ["good"]]}
        assert (found.masks, found.truncated, found.checked) == (1, 0, 24)


@pytest.fixture
def unit(finished: Make) -> CheckPatterns:
    """The check of a finished run, to be changed."""
    found = planned(finished())["prepare/patterns"].unit
    assert isinstance(found, CheckPatterns)
    return found


def test_truncated_texts_are_counted_and_warned_about(unit: CheckPatterns, tmp_path: Path) -> None:
    info = replace(unit, max_tokens=10).work(tmp_path, CPU)
    counts = {p.name: p.truncated for p in read_checked(Result(tmp_path, "", {}))}
    assert 0 < counts["it_was"] <= 24
    named = "; ".join(f"'{name}' {n} of 24, {n / 24:.0%}" for name, n in counts.items())
    assert info == {
        "patterns": 3,
        "warnings": [
            "finetune.max_tokens: texts of the pool are cut to inputs of 10 tokens, by pattern "
            f"({named}); the models do not see what is cut; raise it where labels depend on that, "
            "at the cost of time"
        ],
    }


def test_patterns_that_cut_no_text_are_not_named() -> None:
    checked = [CheckedPattern(name, [], {}, 1, cut, 200) for name, cut in (("a", 0), ("b", 3))]
    (warning,) = truncation_warnings(checked, 128)
    assert " by pattern ('b' 3 of 200, 2%); " in warning
    assert list(truncation_warnings(checked[:1], 128)) == []


def test_the_first_rows_are_those_of_the_first_shards_that_have_some(tmp_path: Path) -> None:
    for n, texts in enumerate(([], ["a", "b"], [], ["c", "d"])):
        table = pa.table({"text": pa.array(texts, pa.string())})
        pq.write_table(table, tmp_path / part_name(n))
    pool = Result(tmp_path, "", {})
    found = {count: [row["text"] for row in first_rows(pool, count)] for count in (0, 1, 3, 9)}
    assert found == {0: [], 1: ["a"], 3: ["a", "b", "c"], 9: ["a", "b", "c", "d"]}


def test_inputs_longer_than_the_model_reads(unit: CheckPatterns, tmp_path: Path) -> None:
    longest = {"finetune.max_tokens": 256, "distill.max_tokens": 999, "baseline.max_tokens": 300}
    with pytest.raises(UserError) as error:
        replace(unit, longest=longest).work(tmp_path, CPU)
    assert error.value.problems == (
        "distill.max_tokens: 999 is more than the model reads, 256",
        "baseline.max_tokens: 300 is more than the model reads, 256",
    )


def test_problems_of_all_patterns_are_raised_together(unit: CheckPatterns, tmp_path: Path) -> None:
    def pattern(name: str, **words: Any) -> Any:
        labels = ("sad", "happy")
        return pattern_of(name, "{text} it was {mask}.", labels, tuple(words.values()))

    broken = (
        pattern("one", sad=("bad",), happy=("\u4e16",)),
        pattern("two", sad=("\u754c",), happy=("good",)),
    )
    with pytest.raises(UserError) as error:
        replace(unit, patterns=broken).work(tmp_path, CPU)
    assert error.value.problems == (
        "pattern 'one': label word '\u4e16' has tokens that the model does not know",
        "pattern 'two': label word '\u754c' has tokens that the model does not know",
    )
