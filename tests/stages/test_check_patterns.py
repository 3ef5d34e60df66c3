"""Patterns as the model's tokenizer reads them, and what is kept of that for the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planning import Make, planned, result
from testing import CPU

from pet_pipeline import load_task
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import pattern_of
from pet_pipeline.stages.check_patterns import SHOWN_ROWS, CheckPatterns, read_checked
from pet_pipeline.tables import read_rows
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


def test_truncated_texts_are_counted_and_said(
    unit: CheckPatterns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(unit, max_tokens=10).work(tmp_path, CPU)
    checked = read_checked(Result(tmp_path, "", {}))
    said = capsys.readouterr().err
    assert 0 < checked[0].truncated <= 24
    for pattern in checked:
        line = f"{pattern.name}: {pattern.truncated} of 24 texts cut to 10 tokens"
        assert (line in said) == bool(pattern.truncated)


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
