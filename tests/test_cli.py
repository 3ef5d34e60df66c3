"""The command line: what its options mean, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import Result as Ended
from typer.testing import CliRunner

from pet_pipeline import cli
from pet_pipeline.cli import app, command
from pet_pipeline.commands import options
from pet_pipeline.commands import run as run_command
from pet_pipeline.commands.options import program_name, user_errors
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.run import Run
from pet_pipeline.settings import check_settings, read_settings, write_settings

Make = Callable[..., Settings]


def pet(*words: str, code: int = 0) -> Ended:
    """What comes of a command that ends with an exit code."""
    ended = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert ended.exit_code == code, f"{ended.output}\n{ended.exception!r}"
    return ended


@pytest.fixture
def my_toml(tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file in the folder that the command is run in."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my.toml"
    file.write_text(write_settings(tiny_settings()))
    return file


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    """The settings and options of runs that are opened; no pipeline does any work."""
    calls: list[tuple[Settings, dict[str, Any]]] = []
    opens = Run.open

    def open_run(settings: Settings, **options: Any) -> Run:
        calls.append((settings, options))
        return opens(settings, **options)

    monkeypatch.setattr(Run, "open", open_run)
    monkeypatch.setattr(run_command, "pet_full", lambda: lambda settings, run: None)
    monkeypatch.setattr(run_command, "_check_stages", lambda run, names: None)
    return calls


COMMANDS = ("init", "run", "status", "label-next", "patterns", "predict", "compare", "config")


@pytest.mark.parametrize("words", ["-h", *(f"{name} --help" for name in COMMANDS)])
def test_help_says_every_command_and_option_in_full(words: str) -> None:
    shown = pet(*shlex.split(words)).output
    assert "..." not in shown.replace("COMMAND [ARGS]...", "")  # nothing is cut off
    described = re.findall(rf"^  ((?:-|(?:{'|'.join(COMMANDS)}) ).*)$", shown, re.MULTILINE)
    assert described
    assert all(re.search(r"\S  +\S", line) for line in described)


def test_every_command_is_in_the_help() -> None:
    shown = pet(code=2).output
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_short_option(name: str) -> None:
    assert pet(name, "-h").output == pet(name, "--help").output


def test_the_help_says_what_exit_codes_mean() -> None:
    codes = re.findall(r"\b(\d+) [a-z]", pet("--help").output.partition("Exit codes: ")[2])
    assert codes == ["0", "1", "2", "130", "141"]


def test_versions_are_those_that_are_installed() -> None:
    versions = [metadata.version(name) for name in ("pet_pipeline", "torch", "transformers")]
    shown = re.fullmatch(
        r"pet_pipeline (\S+) \(Python \S+, torch (\S+), transformers (\S+)\)\n",
        pet("--version").output,
    )
    assert shown
    assert list(shown.groups()) == versions


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    words = {"COMP_WORDS": "pet sta", "COMP_CWORD": "1"}
    words |= {"_TYPER_COMPLETE_ARGS": "pet sta", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ended = CliRunner().invoke(
        app, [], prog_name="pet", env={"_PET_COMPLETE": f"complete_{shell}", **words}
    )
    assert "status" in ended.output
    assert "predict" not in ended.output


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ("config", "normal"),
        ("--quiet config", "quiet"),
        ("-v config", "verbose"),
        ("run my.toml --plan -q", "quiet"),
        ("--quiet run my.toml --plan --verbose", "verbose"),
    ],
)
def test_how_much_is_said(
    opened: list[Any], my_toml: Path, monkeypatch: pytest.MonkeyPatch, words: str, level: str
) -> None:
    levels: list[str] = []
    for module in (cli, options):
        monkeypatch.setattr(module, "set_verbosity", levels.append)
    pet(*shlex.split(words))
    assert levels[-1] == level


def test_a_reader_who_has_seen_enough_is_no_mistake() -> None:
    """As `head` is; nothing is said, and the exit code is that of other programs."""
    reading, writing = os.pipe()
    os.close(reading)
    start = [sys.executable, "-c", "from pet_pipeline.cli import main; main()", "config"]
    ended = subprocess.run(start, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_another_broken_pipe_is_a_defect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(BrokenPipeError), user_errors():
            raise BrokenPipeError


def test_config_prints_every_setting() -> None:
    assert check_settings(tomllib.loads(pet("config").output)) == Settings()
    assert "steps = 7 #" in pet("config", "--set", "finetune.steps=7").output


def test_printed_settings_are_a_settings_file(my_toml: Path) -> None:
    my_toml.write_text(pet("config", "--set", "data.pool=p.csv").output)
    assert read_settings(my_toml) == read_settings(None, ["data.pool=p.csv"])
    assert pet("config", "my.toml").output == my_toml.read_text()


def test_options_are_settings(opened: list[Any], my_toml: Path) -> None:
    pet(
        *("run", "my.toml", "--labelled", "l", "--pool", "p", "--test", "t", "--model", "m"),
        *("--output", "o", "--jobs", "3", "--plan"),
    )
    ((settings, _),) = opened
    data = settings.data
    assert (data.labelled, data.pool, data.test) == ("l", "p", "t")
    assert (settings.model, settings.output, settings.machine.jobs) == ("m", "o", 3)
    assert settings.finetune == read_settings(my_toml).finetune


def test_a_setting_outweighs_an_option_and_that_the_file(opened: list[Any], my_toml: Path) -> None:
    pet("run", "my.toml", "--pool", "p", "--plan")
    pet("run", "my.toml", "--pool", "p", "--set", "data.pool=q", "--plan")
    assert [settings.data.pool for settings, _ in opened] == ["p", "q"]


def test_the_folder_of_a_run_is_named_like_the_task_or_the_table(
    opened: list[Any], my_toml: Path, tiny_task: Path
) -> None:
    pet("run", "--task", f"{tiny_task}/", "--plan")
    pet("run", "--task", str(tiny_task), "--output", "elsewhere", "--plan")
    pet("run", "my.toml", "--task", str(tiny_task), "--plan")
    pet("run", "--labelled", "data/mine.csv", "--plan")
    pet("run", "--labelled", "datasets:me/mine:train", "--task", str(tiny_task), "--plan")
    assert [settings.output for settings, _ in opened] == [
        *("runs/mood", "elsewhere", read_settings(my_toml).output, "runs/mine", "runs/mood")
    ]


@pytest.mark.parametrize(
    ("words", "until", "only", "force"),
    [
        ("", None, None, ()),
        ("--until a", "a", None, ()),
        ("--force a --force b", None, None, ("a", "b")),
        ("--only a --force b", None, "a", ("b",)),
    ],
)
def test_stages_are_chosen_for_the_plan_and_for_the_run(
    opened: list[Any],
    my_toml: Path,
    words: str,
    until: str | None,
    only: str | None,
    force: tuple[str, ...],
) -> None:
    pet("run", "my.toml", *shlex.split(words))
    (_, plan), (_, real) = opened
    assert plan == {"plan": True, "only": only, "force": force}
    assert real == {"until": until, "only": only, "force": force}


def test_a_plan_runs_and_writes_nothing(my_toml: Path, tmp_path: Path) -> None:
    shown = pet("run", "my.toml", "--plan").output
    assert re.search(r"^prepare +labelled +to do", shown, re.MULTILINE)
    assert re.search(r"^distill +classifier +to do +4 steps", shown, re.MULTILINE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("place", "name"), [("first", "pet"), ("elsewhere", "bin/pet")])
def test_the_program_is_called_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pet").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin") if place == "first" else "/nowhere")
    assert program_name() == name


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("a: wrong"), 2, "error: a: wrong"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume"),
        (RuntimeError("our bug"), 1, "stopped; run the same command again to resume"),
    ],
)
def test_how_a_program_ends(
    my_toml: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    def pipeline(settings: Settings, run: Run) -> None:
        """A pipeline that fails."""
        if not run.plan:
            raise raised

    monkeypatch.setattr(sys, "argv", ["program.py", "my.toml"])
    with pytest.raises(RuntimeError if code == 1 else SystemExit) as error:
        command(pipeline)
    if isinstance(error.value, SystemExit):
        assert error.value.code == code
    assert said in capsys.readouterr().err


def test_patterns_are_shown_without_a_model_or_rows(tiny_task: Path) -> None:
    shown = pet("patterns", str(tiny_task)).output
    assert "<text> it was {mask}." in shown
    assert "terrible, bad" in shown


def test_patterns_are_shown_with_tokens_and_prior(
    tiny_task: Path, tiny_mlm: Path, tiny_tables: dict[str, str]
) -> None:
    table = ("--table", tiny_tables["pool"])
    shown = pet("patterns", str(tiny_task), "--model", str(tiny_mlm), *table, "--prior").output
    assert "terrible day and so on it was {mask}." in shown
    priors = re.findall(r"(?:sad|happy) .* (0\.\d{3})$", shown, re.MULTILINE)
    assert len(priors) == 6
    assert sum(map(float, priors)) == pytest.approx(3, abs=0.01)


def test_a_run_whose_commit_is_known_is_looked_at_without_the_hub(
    my_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, **options: asked.append(name))
    pins = {"model me/tiny": "1" * 40, "distill.model me/student": "2" * 40}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pins.json").write_text(json.dumps(pins))
    (tmp_path / "run" / "config.toml").write_text(my_toml.read_text())
    models = ("--model", "me/tiny", "--set", "distill.model=me/student")
    plan = pet("run", "my.toml", *models, "--plan").output
    (tmp_path / "run" / "config.toml").write_text(pet("config", "my.toml", *sets(models)).output)
    assert pet("status", "run").output == plan
    assert re.search(r"^distill +classifier +to do", plan, re.MULTILINE)
    assert json.loads((tmp_path / "run" / "pins.json").read_text()) == pins
    assert asked == []


def sets(models: tuple[str, ...]) -> list[str]:
    """The options of a run's models, as `pet config` takes them."""
    return ["--set", f"model={models[1]}", *models[2:]]
