"""`pet run`: what its options for columns mean, also for programs of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pet_pipeline.cli import app, command
from pet_pipeline.commands import run as run_command
from pet_pipeline.config import Settings
from pet_pipeline.run import Run

PAIR = 'columns = ["premise", "hypothesis"]\nlabels = ["yes", "no"]\n[verbalizer]\n'


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the runs that are started; none does any work."""
    calls: list[Settings] = []
    monkeypatch.setattr(
        run_command, "run_pipeline", lambda pipeline, settings, **options: calls.append(settings)
    )
    return calls


@pytest.fixture
def pair(tmp_path: Path) -> str:
    """The folder of a task with two text columns."""
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "task.toml").write_text(PAIR + 'yes = ["Yes"]\nno = ["No"]\n')
    (tmp_path / "pair" / "a.toml").write_text('template = "{premise} {mask} {hypothesis}"')
    return str(tmp_path / "pair")


def pet_run(*words: str, code: int = 0) -> str:
    """What is said by a command that ends with an exit code."""
    ended = CliRunner().invoke(app, ["run", *words])
    assert ended.exit_code == code, f"{ended.output}\n{ended.exception!r}"
    return ended.stderr


def test_columns_are_named_by_options(started: list[Settings], tiny_task: Path, pair: str) -> None:
    mood = ("--task", str(tiny_task))
    pet_run(*mood, "--text-column", "message")
    pet_run(*mood, "--label-column", "the class", "--text-column", "message")
    pet_run("--task", pair, "--text-column", "b", "--text-column", "a", "--label-column", "c")
    pet_run("--task", pair, "--label-column", "c")
    assert [settings.data.columns for settings in started] == [
        {"text": "message"},
        {"text": "message", "label": "the class"},
        {"premise": "b", "hypothesis": "a", "label": "c"},
        {"label": "c"},
    ]


def test_options_for_columns_join_the_settings(
    started: list[Settings], tiny_task: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f'task = "{tiny_task}"\ndata.columns = {{id = "n", text = "a"}}\n')
    pet_run(str(file), "--text-column", "b")
    pet_run(str(file), "--text-column", "b", "--set", "data.columns.text=c")
    pet_run(str(file), "--label-column", "b", "--set", 'data.columns={text = "d"}')
    assert [settings.data.columns for settings in started] == [
        {"id": "n", "text": "b"},
        {"id": "n", "text": "c"},
        {"text": "d"},
    ]


def test_without_a_task_texts_are_named_for_the_one_that_will_be_made(
    started: list[Settings],
) -> None:
    words = ("--labelled", "l.csv", "--set", "task=", "--output", "run")
    pet_run(*words, "--text-column", "message", "--label-column", "class")
    pet_run(*words, "--text-column", "a:b", "--text-column", "c")  # no template can have {a:b}
    assert [settings.data.columns for settings in started] == [
        {"message": "message", "label": "class"},
        {"text": "a:b", "c": "c"},
    ]


def test_texts_are_named_for_every_text_column(tiny_task: Path, pair: str) -> None:
    mood = ("--task", str(tiny_task))
    assert pet_run(*mood, "--text-column", "a", "--text-column", "b", code=2) == (
        "error: --text-column: 2 given, 'a', 'b'; the task has 'text': give one for each, in this "
        "order\n"
    )
    assert pet_run("--task", pair, "--text-column", "a", code=2) == (
        "error: --text-column: 1 given, 'a'; the task has 'premise', 'hypothesis': give one for "
        "each, in this order\n"
    )
    assert pet_run(*mood, "--text-column", "a", "--label-column", "a", code=2) == (
        "error: --text-column, --label-column: 'a' is given for two columns; name different ones\n"
    )


def test_a_program_has_the_same_options(
    started: list[Settings], tiny_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipeline(settings: Settings, run: Run) -> None:
        """A pipeline of one's own."""

    words = ["--task", str(tiny_task), "--text-column", "a", "--label-column", "b"]
    monkeypatch.setattr(sys, "argv", ["program.py", *words])
    with pytest.raises(SystemExit) as ended:
        command(pipeline)
    assert not ended.value.code
    assert [settings.data.columns for settings in started] == [{"text": "a", "label": "b"}]
