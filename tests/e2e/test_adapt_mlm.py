"""The program that adapts a model without a task: what it writes, refuses and resumes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer
from filelock import FileLock
from testing import HAPPY, SAD
from typer.testing import CliRunner

from pet_pipeline.corpus import Corpus
from pet_pipeline.in_memory import save_table
from pet_pipeline.models import ModelFolder
from pet_pipeline.pretrained import load_mlm
from pet_pipeline.stages.adapt import read_adapted
from pet_pipeline.stages.adapt_texts import TableTexts
from pet_pipeline.units import Result, read_record

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "pipelines" / "adapt_mlm.py"
QUICK = [
    *("--device", "cpu", "--precision", "float32", "--threads", "1"),
    *("--sequence", "24", "--batch", "4"),
]


Run = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of texts."""
    texts = [f"{text} {n}" for n in range(10) for text in SAD + HAPPY]
    return Path(save_table([{"text": text} for text in texts], tmp_path, "texts"))


@pytest.fixture
def headless(tiny_mlm: Path, tmp_path: Path) -> Path:
    """The folder of an encoder without a masked-LM head."""
    folder = tmp_path / "encoder"
    transformers.AutoModel.from_pretrained(tiny_mlm).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_mlm).save_pretrained(folder)
    return folder


def command(model: Path, table: Path, output: Path, *more: str) -> list[str]:
    names = {"--model": model, "--text": table, "--output": output}
    given = [part for name, value in names.items() for part in (name, str(value))]
    return [sys.executable, str(PROGRAM), *given, *QUICK, *more]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the program in this process."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    app = typer.Typer()
    app.command()(importlib.import_module("adapt_mlm").main)
    return lambda *arguments: CliRunner().invoke(app, command(*arguments)[2:])


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def killed_at(name: str, rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    """A function that renames files, but none to a name."""

    def renamed(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise KeyboardInterrupt
        return rename(path, target)

    return renamed


def result_in(folder: Path) -> Result:
    record = read_record(folder)
    assert record
    return Result(folder, record["key"], record["info"])


def test_a_model_of_any_encoder(run: Run, headless: Path, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "mlm"
    done = run(headless, table, output, "--passes", "3", "--keep", "base", "--rate", "3e-3")
    assert done.exit_code == 0, done.output
    adapted = read_adapted(result_in(output))
    assert adapted.new_head
    assert adapted.adapted.after.loss < adapted.adapted.before.loss
    load_mlm(ModelFolder(output))  # has a head now
    card = (output / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n---\n")
    assert f"- starting model: {headless}, with a new masked-LM head\n" in card
    assert f"- texts: {table}\n" in card
    assert f"- teacher of the sentence embeddings: {headless}\n" in card
    assert f"- tokens: {adapted.adapted.tokens:,} in " in card
    for name, before, after in adapted.adapted.rows:
        assert f"| {name} | {before} | {after} |" in card
        assert name in done.output
    assert (
        "masked positions of held-out texts, fewer than 50,000: the table is small" in done.output
    )
    fill = transformers.pipeline("fill-mask", model=str(output))
    assert len(fill("a [MASK] day")) == 5
    assert {path.name for path in output.parent.iterdir()} == {"mlm"}

    again = run(headless, table, output, "--passes", "3", "--keep", "base", "--rate", "3e-3")
    assert again.exit_code == 0
    assert "done before, with the same options" in again.output
    other = run(headless, table, output, "--passes", "2")
    assert other.exit_code == 2
    assert "exists and was made otherwise; name a new folder" in other.output


def test_a_stopped_program_resumes(run: Run, tiny_mlm: Path, table: Path, tmp_path: Path) -> None:
    more = ["--tokens", "6000", "--keep", "base"]
    whole = run(tiny_mlm, table, tmp_path / "whole", *more)
    assert whole.exit_code == 0, whole.output
    output = tmp_path / "killed"
    stopped = tmp_path / "stopped.py"
    # The same program with a checkpoint after every step, killed in the middle.
    stopped.write_text(
        "import runpy, sys\n"
        "from pet_pipeline import compute\n"
        "plain = compute.Compute.__init__\n"
        "def init(self, *a, **k):\n"
        "    plain(self, *a, **{'checkpoint_seconds': 0.0, **k})\n"
        "compute.Compute.__init__ = init\n"
        f"sys.argv[0] = {str(PROGRAM)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    line = command(tiny_mlm, table, output, *more)
    process = subprocess.Popen([line[0], str(stopped), *line[2:]], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (files := list(tmp_path.glob(".killed.partial/.partial-*/checkpoint.safetensors"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert files
    assert not output.exists()
    resumed = run(tiny_mlm, table, output, *more)
    assert resumed.exit_code == 0, resumed.output
    one, other = (load_mlm(ModelFolder(folder)) for folder in (tmp_path / "whole", output))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert result_in(output).info == result_in(tmp_path / "whole").info
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_table_is_not_read_if_the_model_is_there(
    run: Run, tiny_mlm: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tiny_mlm, table, tmp_path / "out").exit_code == 0

    def read(*arguments: object) -> None:
        raise AssertionError("texts were read")

    monkeypatch.setattr(TableTexts, "chunks", read)
    again = run(tiny_mlm, table, tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert "done before, with the same options" in again.output


def test_work_begun_with_other_options_is_named_and_removed_at_the_end(
    run: Run, tiny_mlm: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "made", tmp_path / "made" / "mlm"
    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "read", interrupted)
        run(tiny_mlm, table, output, "--passes", "2")
    (begun,) = folder.glob(".mlm.partial/.partial-*")
    done = run(tiny_mlm, table, output)
    assert done.exit_code == 0, done.output
    assert f"unfinished work, also that with other options, is in {begun.parent}" in done.output
    assert [path.name for path in folder.iterdir()] == ["mlm"]


def test_a_finished_model_is_moved_into_place_after_a_kill(
    run: Run, tiny_mlm: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "made", tmp_path / "made" / "mlm"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed_at("mlm", Path.rename))
        run(tiny_mlm, table, output)
    assert not output.exists()
    monkeypatch.setattr(Corpus, "read", interrupted)  # nothing is trained again
    done = run(tiny_mlm, table, output)
    assert done.exit_code == 0, done.output
    load_mlm(ModelFolder(output))
    assert [path.name for path in folder.iterdir()] == ["mlm"]


def test_one_process_makes_an_output(run: Run, tiny_mlm: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    with FileLock(tmp_path / ".out.partial" / ".lock"):
        second = run(tiny_mlm, table, tmp_path / "out")
    assert second.exit_code == 2
    assert (
        f"error: --output: another process is at work on {tmp_path / 'out'}; wait for it, or name "
        "a new folder"
    ) in second.output
    assert [path.name for path in (tmp_path / ".out.partial").iterdir()] == [".lock"]
    assert run(tiny_mlm, table, tmp_path / "out").exit_code == 0
    assert run(tiny_mlm, table, table / "out").exit_code == 2  # below a file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--column", "body"],
            "--text: {table} has no column 'body'; name one with --column: 'text'",
        ),
        (["--model", "./none"], "--model: ./none: no such folder"),
        (["--sequence", "300"], "--sequence: 300 is more than {model} reads, 256"),
        (["--masked", "1"], "--masked: 1.0 is no fraction of the tokens; take 0.15, for example"),
        (["--passes", "0"], "--passes: 0 reads nothing; take 1, for example"),
        (
            ["--precision", "half"],
            "--precision: 'half' is not one of 'auto', 'float32', 'bfloat16'",
        ),
        (["--keep", "{roberta}"], "--keep: {roberta} has another vocabulary than {model}"),
    ],
)
def test_mistakes(
    run: Run, tiny_mlm: Path, mlm_of: Any, table: Path, tmp_path: Path,
    options: list[str], message: str,
) -> None:  # fmt: skip
    names = {"table": table, "model": tiny_mlm, "roberta": mlm_of("roberta")}
    done = run(tiny_mlm, table, tmp_path / "out", *(o.format(**names) for o in options))
    assert done.exit_code == 2
    assert f"error: {message.format(**names)}" in done.output
    assert not (tmp_path / "out").exists()
