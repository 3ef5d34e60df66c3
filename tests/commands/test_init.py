"""`pet init`: from a labelled table to a task that can be run, with and without a terminal."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from click.testing import Result as Ended
from testing import HAPPY, SAD
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.commands import init as init_command
from pet_pipeline.patterns import load_task

TEXTS = SAD + HAPPY
MOODS = ["sad"] * 4 + ["happy"] * 4


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with a labelled table of the usual columns, and one of others."""
    monkeypatch.chdir(tmp_path)
    pa_csv.write_csv(pa.table({"text": TEXTS, "label": MOODS}), "labelled.csv")
    others = {"date": ["2024"] * 8, "message": TEXTS, "category": MOODS}
    pa_csv.write_csv(pa.table(others), "others.csv")


def pet_init(*words: str, code: int = 0, typed: str | None = None) -> Ended:
    """What comes of a command that ends with an exit code."""
    ended = CliRunner().invoke(app, ["init", *words], input=typed, env={"COLUMNS": "120"})
    assert ended.exit_code == code, f"{ended.output}\n{ended.exception!r}"
    return ended


@pytest.mark.usefixtures("tables")
def test_a_task_is_written_and_shown(tiny_mlm: Path) -> None:
    shown = pet_init("labelled.csv", "--name", "mood", "--model", str(tiny_mlm)).stdout
    task = load_task("patterns/mood")
    assert (task.columns, task.labels, task.metric) == (("text",), ("happy", "sad"), "accuracy")
    assert shown.startswith(
        "wrote patterns/mood: task.toml, category.toml, colon.toml, brackets.toml, question.toml\n"
    )
    for pattern in task.patterns:
        assert pattern.render({"text": TEXTS[0]}) in shown
    assert re.search(r"^happy +happy +happy *$", shown, re.MULTILINE)
    *_, hint, _, command = shown.splitlines()
    assert hint == "Better the label words in patterns/mood/task.toml if you can. Then:"
    assert re.fullmatch(
        r"  \S*pet run --task patterns/mood --labelled labelled.csv --pool POOL", command
    )
    assert "note:" not in shown


@pytest.mark.usefixtures("tables")
def test_other_columns_are_named_and_the_command_names_them(tiny_task: Path) -> None:
    columns = ("--text-column", "message", "--label-column", "category")
    shown = pet_init("others.csv", *columns, "--name", "my mood", "--folder", "tasks").stdout
    assert load_task("tasks/my mood").columns == ("message",)
    assert "[ Category: {mask} ] terrible day" in shown
    assert "tokens" not in shown  # there is no model to ask
    command = shlex.split(shown.splitlines()[-1])
    assert command[1:] == shlex.split(
        "run --task 'tasks/my mood' --labelled others.csv --pool POOL --label-column category"
    )


def test_columns_that_templates_cannot_name_get_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pa_csv.write_csv(pa.table({"a:b": TEXTS, "id": TEXTS, "label": ["0", "1"] * 4}), "t.csv")
    shown = pet_init("t.csv", *shlex.split("--text-column id --text-column a:b --name n")).stdout
    assert load_task("patterns/n").columns == ("text", "text_2")
    assert "[ Category: {mask} ] terrible day terrible day" in shown
    note = "note: '0', '1' do not say what is meant; write better label words into patterns/n/task.toml"
    assert note in shown.splitlines()
    assert shown.endswith("--pool POOL --text-column id --text-column a:b\n")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("labelled.csv", "--name: not given; name the task, as in --name labelled"),
        (
            "others.csv",
            "3 problems:\n"
            "  - --text-column: not given, and others.csv has no column 'text'; "
            "--text-column message may be it\n"
            "  - --label-column: not given, and others.csv has no column 'label'; "
            "--label-column category may be it\n"
            "  - --name: not given; name the task, as in --name others",
        ),
        (
            "others.csv --text-column massage --label-column category --name x",
            "--text-column: others.csv has no column 'massage'; did you mean 'message'?",
        ),
        (
            "labelled.csv --label-column lable --name x",
            "--label-column: labelled.csv has no column 'lable'; did you mean 'label'?",
        ),
        (
            "labelled.csv --text-column label --label-column label --name x",
            "--text-column: 'label' is named for two columns",
        ),
        (
            "labelled.csv --name a/b",
            "--name: 'a/b' is not a folder's name; --folder says where to put it",
        ),
        (
            "labelled.csv --name ..",
            "--name: '..' is not a folder's name; --folder says where to put it",
        ),
        (
            "others.csv --text-column message --label-column date --name x",
            "others.csv: column 'date' has one label, '2024'; a classifier needs two labels or more",
        ),
        ("label.csv --name x", "label.csv: no such file or folder; did you mean 'labelled.csv'?"),
        (
            "labelled.csv --name x --model ./labeled",
            "model: ./labeled: no such folder, and not a hub name; did you mean 'labelled.csv'?",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(words: str, problem: str) -> None:
    assert pet_init(*shlex.split(words), code=2).stderr == f"error: {problem}\n"
    assert not Path("patterns").exists()


@pytest.mark.usefixtures("tables")
def test_a_task_is_not_written_over() -> None:
    pet_init("labelled.csv", "--name", "mood")
    file = Path("patterns/mood/task.toml")
    file.write_text("mine")
    assert pet_init("labelled.csv", "--name", "mood", code=2).stderr == (
        "error: patterns/mood: there is a folder with files in it, which is left as it is; "
        "name another folder\n"
    )
    assert file.read_text() == "mine"


@pytest.mark.usefixtures("tables")
def test_on_a_terminal_it_asks_with_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_command, "_on_a_terminal", lambda: True)
    shown = pet_init("others.csv", typed="\n\n\n").stdout
    assert "Column of the texts (date, message, category) [message]: " in shown
    assert "Column of the labels (date, category) [category]: " in shown
    assert "Name of the task [others]: " in shown
    assert load_task("patterns/others").columns == ("message",)
    asked = pet_init("labelled.csv", "--name", "mood", typed="txt\ntext\nlabel\n")
    assert asked.stderr == "'txt' is not one of them; did you mean 'text'?\n"
    shown = asked.stdout
    assert shown.count("Column of the texts (text, label) [text]: ") == 2
    assert "Name" not in shown.partition("wrote")[0]
    assert load_task("patterns/mood").columns == ("text",)


@pytest.mark.usefixtures("tables")
def test_what_is_given_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_command, "_on_a_terminal", lambda: True)
    given = "others.csv --text-column message --label-column category --name x"
    assert pet_init(*shlex.split(given)).stdout.startswith("wrote patterns/x: ")
    assert pet_init("labelled.csv", code=2, typed="\n\na/b\n").stderr == (
        "error: --name: 'a/b' is not a folder's name; --folder says where to put it\n"
    )


@pytest.mark.usefixtures("tables")
def test_a_made_task_passes_the_checks_of_patterns(tiny_mlm: Path) -> None:
    pet_init("labelled.csv", "--name", "mood")
    words = ["patterns", "patterns/mood", "--model", str(tiny_mlm), "--table", "labelled.csv"]
    assert CliRunner().invoke(app, words).exit_code == 0
