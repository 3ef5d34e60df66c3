"""`pet compare`: what it prints of two runs, for people and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result as Ended
from typer.testing import CliRunner

from pet_pipeline.cli import app

GOLD = ["sad"] * 4 + ["happy"] * 4


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The folders of two runs with predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pet_pipeline.run_comparison.RESAMPLES", 20)
    predicted = {"a": {"classifier": ["sad"] * 8, "baseline": GOLD}, "b": {"classifier": GOLD}}
    for name, systems in predicted.items():
        folder = tmp_path / name / "evaluate" / "all"
        folder.mkdir(parents=True)
        table = pa.table({"id": list(range(8)), "label": GOLD, **systems, "ensemble": GOLD})
        pq.write_table(table, folder / "predictions.parquet")
    return "a", "b"


def compare(*words: str, code: int = 0) -> Ended:
    """What comes of the command."""
    ended = CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": "120"})
    assert ended.exit_code == code, f"{ended.output}\n{ended.exception!r}"
    return ended


def test_two_runs_are_compared_in_figures_and_words(runs: tuple[str, str]) -> None:
    shown = compare(*runs).output
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "A a, B b: 8 test rows"
    assert re.fullmatch(
        r"classifier accuracy 0\.500 1\.000 \+0\.500 .0\.\d+ to .\d\.\d+ 4 0\.125", lines[2]
    )
    assert lines[3] == "ensemble accuracy 1.000 1.000 +0.000 +0.000 to +0.000 0 1.000"
    assert lines[-2:] == [
        "classifier: a and b do not differ in accuracy by more than chance would make: 0 rows are "
        "right in a alone and 4 in b alone (p = 0.125).",
        "ensemble: a and b predict the same label for every row.",
    ]


def test_json_has_the_same_figures(runs: tuple[str, str]) -> None:
    printed = json.loads(compare(*runs, "--json", "--system", "classifier").output)
    assert (printed["first"], printed["second"], printed["rows"]) == ("a", "b", 8)
    (system,) = printed["systems"]
    (accuracy,) = system.pop("differences")
    assert accuracy.pop("low") <= 0.5 <= accuracy.pop("high")
    assert accuracy == {"metric": "accuracy", "first": 0.5, "second": 1.0, "difference": 0.5}
    assert system.pop("sentence") in compare(*runs).output
    assert system == {
        "system": "classifier",
        "rows_that_differ": 4,
        "right_in_first_alone": 0,
        "right_in_second_alone": 4,
        "p_value": 0.125,
    }


def test_what_cannot_be_compared_is_told(runs: tuple[str, str], tmp_path: Path) -> None:
    assert compare("a", "b", "--system", "baseline", code=2).stderr == (
        "error: --system baseline: b has no such system; there are 'classifier', 'ensemble'\n"
    )
    (tmp_path / "new").mkdir()
    assert compare("a", "new", code=2).stderr == (
        "error: new: no predictions of a test table; give the folder of a run that is finished "
        "and has a test table, --test FILE\n"
    )
