"""The programs as a user types them, on the tiny model."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.config import Settings, check_settings

ROOT = Path(__file__).parents[2]
PET_FULL = ROOT / "pipelines" / "pet_full.py"
QUICK = [
    *("--set", "finetune.steps=3", "--set", "distill.steps=12", "--set", "baseline.steps=3"),
    *("--set", "machine.threads=1", "--set", "machine.precision=float32"),
    *("--set", "machine.checkpoint_seconds=0", "--set", "data.shard_rows=10"),
]


@pytest.fixture
def options(
    tmp_path: Path, tiny_mlm: Path, tiny_task: Path, tiny_tables: dict[str, str]
) -> list[str]:
    tables = [
        word for name in ("labelled", "pool", "test") for word in (f"--{name}", tiny_tables[name])
    ]
    return [
        *("--task", str(tiny_task), "--model", str(tiny_mlm), "--output", str(tmp_path / "run")),
        *tables,
        *QUICK,
    ]


def program(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, str(PET_FULL), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stderr
    return done


def pet(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"{result.output}\n{result.exception}"
    return result.output


def test_end_to_end_and_again(options: list[str], tmp_path: Path) -> None:
    done = program(*options)
    shown = done.stdout
    for name in (
        "it_was-1",
        "mean of the PVPs",
        "ensemble",
        "classifier",
        "baseline",
        "95 % interval",
    ):
        assert name in shown
    folder = re.search(r"^classifier +(\S+/distill/classifier)$", shown, re.MULTILINE)
    page = re.search(r"^report +(\S+index.html)$", shown, re.MULTILINE)
    assert folder
    assert page
    assert Path(page[1]).exists()
    assert f'pet predict {folder[1]} --text "..."' in shown.replace("\n", " ")
    assert "finetune mood-1" in done.stderr
    again = program(*options)
    assert "0 to do" in again.stderr
    assert again.stdout == shown
    # `pet run` is the same pipeline: it finds everything done.
    plan = pet("run", *options, "--plan")
    assert "to do" not in plan
    assert "stale" not in plan
    forced = pet("run", *options, "--plan", "--force", "distill")
    assert "1 to do" in forced


def test_plan_until_only_and_jobs(options: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "to do" in pet("run", *options, "--plan")
    assert not run.exists()
    pet("run", *options, "--until", "encode")
    assert (run / "encode").exists()
    assert not (run / "gen-0").exists()
    pet("run", *options, "--until", "gen-0/finetune", "--jobs", "2")
    first = (run / "gen-0/finetune/mood-1/unit.json").stat().st_mtime_ns
    pet("run", *options, "--only", "finetune")
    assert (run / "gen-0/finetune/mood-1/unit.json").stat().st_mtime_ns > first
    assert not (run / "gen-0/annotate").exists()


def test_status_says_what_is_done_stale_and_to_do(
    options: list[str], tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    table = tmp_path / "mine.parquet"
    table.write_bytes(Path(tiny_tables["labelled"]).read_bytes())
    options = [*options, "--labelled", str(table)]
    pet("run", *options, "--until", "finetune")
    status = pet("status", str(tmp_path / "run"))
    assert re.search(r"prepare +labelled +done +\d", status)
    assert re.search(r"distill +classifier +to do", status)
    rows = pq.read_table(table).slice(1)
    pq.write_table(rows, table)
    status = pet("status", str(tmp_path / "run"))
    assert re.search(r"prepare +labelled +stale +source: its content has changed", status)
    assert re.search(r"finetune +mood-1 +stale +labelled: made by a unit that has changed", status)
    assert re.search(r"prepare +pool +done", status)


def test_config_prints_every_setting() -> None:
    assert check_settings(tomllib.loads(pet("config"))) == Settings()
    assert "steps = 7 #" in pet("config", "--set", "finetune.steps=7")


def test_patterns_are_shown_with_tokens_and_prior(
    tiny_task: Path, tiny_mlm: Path, tiny_tables: dict[str, str]
) -> None:
    assert "<text> it was {mask}." in pet("patterns", str(tiny_task))
    shown = pet(
        "patterns",
        str(tiny_task),
        "--model",
        str(tiny_mlm),
        "--table",
        tiny_tables["pool"],
        "--prior",
    )
    assert "terrible day and so on it was {mask}." in shown
    priors = [
        float(value) for value in re.findall(r"(?:sad|happy) .* (0\.\d{3})$", shown, re.MULTILINE)
    ]
    assert len(priors) == 6
    assert sum(priors) == pytest.approx(3, abs=0.01)


def test_predict(options: list[str], tmp_path: Path) -> None:
    pet("run", *options)
    classifier = str(tmp_path / "run/distill/classifier")
    shown = pet("predict", classifier, "--text", "a great day", "--text", "bad <b>food</b>")
    assert shown.count("sad") == shown.count("happy") == 2
    table = pa.table({"key": [7, 5, 9], "message": ["great", "", "awful " * 300]})
    pa_csv.write_csv(table, tmp_path / "in.csv")
    pq.write_table(table, tmp_path / "in.parquet")
    outputs = []
    for name in ("in.csv", "in.parquet"):
        output = tmp_path / f"{name}.out.parquet"
        pet(
            *("predict", classifier, "--table", str(tmp_path / name), "--output", str(output)),
            *("--column", "text=message", "--column", "id=key"),
        )
        outputs.append(pq.read_table(output))
    assert outputs[0].drop_columns("id").equals(outputs[1].drop_columns("id"))
    assert outputs[0].column_names == ["id", "label", "confidence", "entropy", "probs"]
    assert outputs[0]["id"].to_pylist() == ["7", "5", "9"]  # as it stands in a CSV file
    assert outputs[1]["id"].to_pylist() == [7, 5, 9]
    assert json.loads(outputs[0].schema.metadata[b"labels"]) == ["sad", "happy"]


def test_a_killed_run_ends_like_an_undisturbed_one(options: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    program(*options, "--output", str(whole))
    moments, kills = random.Random(3), 0
    while True:
        process = subprocess.Popen(
            [sys.executable, str(PET_FULL), *options, "--output", str(killed)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=moments.uniform(2.5, 5.5) if kills < 5 else 200)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    files = [*whole.glob("evaluate/all/*"), *whole.glob("gen-0/ensemble/all/*")]
    files = [
        *(f for f in files if f.name != "unit.json"),
        whole / "distill/classifier/model.safetensors",
    ]
    assert len(files) >= 6
    for file in files:
        assert (killed / file.relative_to(whole)).read_bytes() == file.read_bytes(), file.name


def test_a_bug_of_ours_keeps_its_traceback(options: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from pet_pipeline import command\n"
        "def pipeline(settings, run):\n"
        '    """A pipeline with a bug."""\n'
        "    if not run.plan:\n"
        "        raise RuntimeError('our bug')\n"
        "if __name__ == '__main__':\n"
        "    command(pipeline)\n"
    )
    command = [sys.executable, str(broken), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: our bug" in done.stderr
    assert "to go on from here, type the same command again" in done.stderr
    shown = subprocess.run([*command[:2], "--help"], capture_output=True, text=True)
    assert "A pipeline with a bug." in shown.stdout


def test_the_wheel_works_outside_of_a_checkout(options: list[str], tmp_path: Path) -> None:
    dist, site = tmp_path / "dist", tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(dist), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    start = [sys.executable, "-c", "from pet_pipeline.cli import main; main()", "run", *options]
    done = subprocess.run(
        [*start, "--until", "finetune"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/gen-0/finetune/mood-1/model/model.safetensors").exists()
    start[start.index("--model") + 1] = "data/models/minilm-mlm"
    done = subprocess.run(start, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "comes with a checkout of pet_pipeline and is not here" in done.stderr


def test_the_real_demo_model_learns(tmp_path: Path) -> None:
    """The embedded model on the demo task, in one pattern: far above chance after a few steps."""
    task = tmp_path / "support"
    task.mkdir()
    for name in ("task", "colon"):
        text = (ROOT / "patterns" / "support" / f"{name}.toml").read_text("utf-8")
        (task / f"{name}.toml").write_text(text, "utf-8")
    support, run = ROOT / "data" / "support", tmp_path / "run"
    pet(
        *(
            "run",
            "--task",
            str(task),
            "--output",
            str(run),
            "--pool",
            str(support / "pool.parquet"),
        ),
        *("--labelled", str(support / "labelled.parquet"), "--test", str(support / "test.parquet")),
        *("--model", str(ROOT / "data/models/minilm-mlm"), "--set", "data.pool_rows=60"),
        *("--set", "finetune.steps=12", "--set", "distill.enabled=false"),
        *("--set", "baseline.enabled=false"),
    )
    metrics = json.loads((run / "evaluate/all/metrics.json").read_text())
    assert metrics["systems"][-1]["value"] > 0.35
