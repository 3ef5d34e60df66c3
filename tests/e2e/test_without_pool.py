"""A run without a pool: it says so, trains and measures the baseline alone, and names it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result as Ended
from typer.testing import CliRunner

from pet_pipeline.cli import app


def pet(*words: str) -> Ended:
    """What comes of a command that succeeds."""
    ended = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    return ended


@pytest.fixture(scope="module")
def options(tiny_mlm: Path, tiny_task: Path, tiny_tables: dict[str, str]) -> list[str]:
    """The options of a run of seconds that asks for more than can be done without a pool."""
    return [
        *("--task", str(tiny_task), "--model", str(tiny_mlm)),
        *("--labelled", tiny_tables["labelled"]),
        *("--set", "baseline.steps=3", "--set", "ipet.generations=2"),
        *("--set", "search.templates=true", "--set", "demonstrations.enabled=true"),
        *("--set", "machine.threads=1", "--set", "machine.device=cpu"),
    ]


@pytest.fixture(scope="module")
def finished(
    options: list[str], tiny_tables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Ended]:
    """The folder of a finished run with a test table, and what it said."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, pet("run", *options, "--test", tiny_tables["test"], "--output", str(folder))


def test_it_says_so_once_and_what_to_do(finished: tuple[Path, Ended]) -> None:
    said = (
        "data.pool: not set, so there is nothing to annotate and distil: only the baseline is "
        "trained, an ordinary classifier on the labelled rows alone; patterns are not used. Give "
        "unlabelled texts of the same kind, --pool FILE, for a better one\n"
    )
    assert finished[1].stderr.count(said) == 1


def test_the_baseline_alone_is_trained_measured_and_reported(finished: tuple[Path, Ended]) -> None:
    folder, ended = finished
    stages = {file.parent.relative_to(folder).parts[0] for file in folder.rglob("unit.json")}
    assert stages == {"prepare", "distill", "evaluate", "report"}
    predictions = pq.read_table(folder / "evaluate/all/predictions.parquet")
    assert "baseline" in predictions.column_names
    assert predictions.num_rows == 8
    metrics = json.loads((folder / "evaluate/all/metrics.json").read_text())
    assert [system["kind"] for system in metrics["systems"]] == ["baseline"]
    page = (folder / "report/index.html").read_text("utf-8")
    assert "The baseline of the task mood" in page
    lines = ended.stdout.splitlines()
    assert any(
        line.split()[:1] == ["baseline"] and f"{folder}/distill/baseline" in line for line in lines
    )
    assert lines[-1].startswith("try it ")
    assert lines[-1].endswith(f'predict {folder}/distill/baseline --text "..."')


def test_what_was_trained_predicts_and_can_be_compared(finished: tuple[Path, Ended]) -> None:
    folder = str(finished[0])
    assert "happy" in pet("predict", f"{folder}/distill/baseline", "--text", "a day").output
    assert "predict the same label for every row" in pet("compare", folder, folder).output
    assert re.fullmatch(r"\d+ done", pet("status", folder).stdout.splitlines()[-1])


def test_without_a_test_table_there_is_a_report(options: list[str], tmp_path: Path) -> None:
    planned = pet("run", *options, "--output", str(tmp_path / "run"), "--plan")
    assert "data.pool: not set" in planned.stderr
    units = [line.split()[:2] for line in planned.stdout.splitlines()[1:-1]]
    assert [unit for unit in units if unit[0] == "distill"] == [["distill", "baseline"]]
    assert "evaluate" not in planned.stdout
    pet("run", *options, "--output", str(tmp_path / "run"))
    page = (tmp_path / "run" / "report" / "index.html").read_text("utf-8")
    assert f"pet predict {tmp_path}/run/distill/baseline" in page
    assert "Made with python" in page
