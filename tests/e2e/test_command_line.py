"""The programs as a user types them, on the tiny model."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pet_pipeline.cli import app

ROOT = Path(__file__).parents[2]
PET_FULL = ROOT / "pipelines" / "pet_full.py"
PET = ("-c", "from pet_pipeline.cli import main; main()")
QUICK = [
    *("--set", "finetune.steps=3", "--set", "distill.steps=12", "--set", "baseline.steps=3"),
    *("--set", "machine.threads=1", "--set", "machine.jobs=1"),
    *("--set", "machine.precision=float32"),
    *("--set", "machine.checkpoint_seconds=0", "--set", "data.shard_rows=10"),
]


@pytest.fixture(scope="module")
def inputs(tiny_mlm: Path, tiny_task: Path, tiny_tables: dict[str, str]) -> list[str]:
    """The options of a run of seconds, but for its folder."""
    tables = [
        word for name in ("labelled", "pool", "test") for word in (f"--{name}", tiny_tables[name])
    ]
    return ["--task", str(tiny_task), "--model", str(tiny_mlm), *tables, *QUICK]


@pytest.fixture
def options(inputs: list[str], tmp_path: Path) -> list[str]:
    """The options of a run in tmp_path/run."""
    return [*inputs, "--output", str(tmp_path / "run")]


@pytest.fixture(scope="module")
def trained(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    pet("run", *inputs, "--output", str(folder))
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A finished run in tmp_path/run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def program(
    *words: str, start: Sequence[str] = (str(PET_FULL),), environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A process of a program with these words as its options."""
    command = [sys.executable, *start, *words]
    changed = {**os.environ, "COLUMNS": "200", **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=changed)
    assert done.returncode == 0, done.stderr
    return done


def pet(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"{result.output}\n{result.exception}"
    return result.output


def not_done(plan: str) -> dict[str, str]:
    """The units of a plan that are not done, and their states."""
    rows = [re.split(r"  +", line) for line in plan.splitlines()]
    return {
        f"{row[0]} {row[1]}": row[2] for row in rows if row[2:] and row[2] in ("to do", "stale")
    }


def test_end_to_end_and_again(options: list[str]) -> None:
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
    assert not_done(forced) == {
        "distill classifier": "to do",
        "distill baseline": "to do",
        "evaluate all": "stale",
        "report report": "stale",
    }


def test_plan_until_only_and_jobs(options: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "to do" in pet("run", *options, "--plan")
    assert not run.exists()
    pet("run", *options, "--until", "encode")
    assert (run / "encode").exists()
    assert not (run / "gen-0").exists()
    pet("run", *options, "--until", "gen-0/finetune", "--jobs", "2")
    first = (run / "gen-0/finetune/mood-1/unit.json").stat().st_mtime_ns
    pet("run", *options, "--only", "finetune")  # is done
    assert (run / "gen-0/finetune/mood-1/unit.json").stat().st_mtime_ns == first
    pet("run", *options, "--only", "finetune", "--force", "finetune")
    assert (run / "gen-0/finetune/mood-1/unit.json").stat().st_mtime_ns > first
    refused = CliRunner().invoke(app, ["run", *options, "--only", "ensemble"])
    assert refused.exit_code == 2
    assert "error: --only ensemble: " in refused.stderr
    assert "to run first: gen-0/annotate/" in refused.stderr
    assert not (run / "gen-0/annotate").exists()
    pet("run", *options, "--only", "annotate")
    assert (run / "gen-0/annotate").exists()
    assert not (run / "gen-0/ensemble").exists()


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
    assert re.search(r"prepare +labelled +stale +source changed", status)
    assert re.search(r"finetune +mood-1 +stale +prepare/labelled is redone first", status)
    assert re.search(r"prepare +pool +done", status)


def units_run(run: Path) -> list[str]:
    """What was executed in a run folder since it was begun, as stage/unit, in order."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [f"{e['stage']}/{e['unit']}" for e in events if e["event"] == "unit"]


def test_force_reruns_a_stage_and_what_depends_on_it(options: list[str], finished: Path) -> None:
    before = units_run(finished)
    pet("run", *options, "--force", "finetune")
    again = units_run(finished)[len(before) :]
    stages = list(dict.fromkeys(unit.rpartition("/")[0] for unit in again))
    assert stages == [
        *("gen-0/finetune", "gen-0/annotate", "gen-0/ensemble", "distill", "evaluate", "report")
    ]
    depends = [unit for unit in before if unit.rpartition("/")[0] in stages]
    depends.remove("distill/baseline")  # which needs no model
    assert sorted(again) == sorted(depends)
    assert "finished" not in pet("run", *options)
    assert units_run(finished) == before + again  # nothing is left to be done
    assert not not_done(pet("status", str(finished)))


def test_the_model_card_is_beside_the_classifier_whatever_happens(
    options: list[str], finished: Path
) -> None:
    card, report = finished / "distill/classifier/README.md", finished / "report/README.md"

    def is_there() -> bool:
        return card.read_text("utf-8") == report.read_text("utf-8")

    assert "pipeline_tag: text-classification" in card.read_text("utf-8")
    assert is_there()
    pet("run", *options, "--force", "finetune")
    assert is_there()
    pet("run", *options, "--force", "distill")
    assert is_there()
    card.unlink()
    before = units_run(finished)
    pet("run", *options)
    assert is_there()
    assert units_run(finished) == before


def test_how_fast_it_is_computed_changes_nothing(options: list[str], finished: Path) -> None:
    faster = [*options, "--set", "machine.batch_tokens=64", "--set", "machine.jobs=2"]
    assert not not_done(pet("run", *faster, "--plan"))
    before = units_run(finished)
    pet("run", *faster)
    assert units_run(finished) == before
    assert "batch_tokens = 64" in (finished / "config.toml").read_text("utf-8")
    status = pet("status", str(finished))
    assert re.fullmatch(r"\d+ done", status.splitlines()[-1])


def test_a_run_of_a_hub_model_is_done_and_looked_at_offline(
    options: list[str], tmp_path: Path, tiny_mlm: Path
) -> None:
    """With the model in the hub's cache; the commit is the run's, whatever main is later."""
    commit, later = "1" * 40, "2" * 40
    cached = tmp_path / "cache" / "models--me--tiny"
    shutil.copytree(tiny_mlm, cached / "snapshots" / commit)
    shutil.copytree(tiny_mlm, cached / "snapshots" / later)
    main = cached / "refs" / "main"
    main.parent.mkdir()
    main.write_text(commit)
    options = [*options, "--model", "me/tiny", "--until", "encode"]
    environment = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    first = program(*options, environment=environment)
    assert f"me/tiny: the hub cannot be reached; taking commit {commit[:12]}" in first.stderr
    assert json.loads((tmp_path / "run/pins.json").read_text())["model me/tiny"] == commit
    main.write_text(later)
    again = program(*options, environment=environment)
    assert "the hub cannot be reached" not in again.stderr
    assert "[1/" not in again.stderr  # nothing was done again
    plan = program(*options, "--plan", environment=environment)
    status = program("status", str(tmp_path / "run"), start=PET, environment=environment)
    assert status.stdout == plan.stdout
    assert len(not_done(plan.stdout)) > 10
    assert not [unit for unit in not_done(plan.stdout) if re.match("prepare|encode", unit)]
    renewed = program(*options, "--model", "me/tiny@main", "--plan", environment=environment)
    assert not_done(renewed.stdout)["prepare models"] == "stale"
    assert "model me/tiny changed" in renewed.stdout


def test_predict_in_a_pipe(finished: Path, tmp_path: Path) -> None:
    """As a person types it: a table in, the reader of its labels stops early."""
    table = pa.table({"key": range(2000), "message": ["a great day"] * 2000})
    pa_csv.write_csv(table, tmp_path / "in.csv")
    words = ["predict", str(finished), "--column", "text=message", "--table", "-"]
    with (tmp_path / "in.csv").open() as given:
        process = subprocess.Popen(
            [sys.executable, *PET, *words, "--format", "csv", "--threshold", "0.1"],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stderr
        header, row = process.stdout.readline(), process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 141
    assert header == "key,message,label,confidence,why_empty,prob_sad,prob_happy\n"
    assert re.fullmatch(r"0,a great day,(sad|happy),0\.\d+,,0\.\d+,0\.\d+\n", row)
    assert process.stderr.read() == ""
    process.stderr.close()


def test_status_for_programs(finished: Path) -> None:
    found = json.loads(pet("status", str(finished), "--json"))
    assert found["counts"] == {"done": len(found["units"]), "stale": 0, "to do": 0}
    assert all(unit["seconds"] >= 0 for unit in found["units"])
    metrics = json.loads((finished / "evaluate/all/metrics.json").read_text("utf-8"))
    assert found["metrics"]["systems"][-1]["value"] == metrics["systems"][-1]["value"]


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
    assert "stopped; run the same command again to resume" in done.stderr
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
    start = [sys.executable, *PET, "run", *options]
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
