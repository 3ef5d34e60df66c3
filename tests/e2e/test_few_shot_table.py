"""The program that measures on public data sets: one run per set and sample, and a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """A folder with a set of pairs, as the program reads them."""
    folder = tmp_path / "sets" / "snli"
    folder.mkdir(parents=True)

    def table(name: str, count: int) -> pa.Table:
        return pa.table(
            {
                "id": [f"{name}-{n}" for n in range(count)],
                "text_a": [f"the {name} number {n} is good" for n in range(count)],
                "text_b": [f"it is a {('good', 'bad', 'long')[n % 3]} one" for n in range(count)],
                "label": [LABELS[n % 3] for n in range(count)],
            }
        )

    samples = table("sample", 6)
    samples = samples.append_column("split", pa.array(["train"] * 6))
    pq.write_table(samples.append_column("seed", pa.array([13] * 6)), folder / "kshot.parquet")
    pq.write_table(table("pool", 12).drop_columns("label"), folder / "unlabeled.parquet")
    pq.write_table(table("test", 9), folder / "test.parquet")
    return folder.parent


QUICK = (
    "finetune.steps=1",
    "distill.steps=2",
    "baseline.steps=1",
    "ensemble.temperature_folds=0",
    "machine.precision=float32",
    "machine.threads=1",
    "machine.jobs=1",
)


def table_of(datasets: Path, tiny_mlm: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What the program prints."""
    program = [sys.executable, str(ROOT / "pipelines" / "few_shot_table.py"), str(datasets)]
    runs = ["--output", str(datasets.parent / "runs"), "--sets", "snli", "--seeds", "13"]
    settings = (f"model={tiny_mlm}", *QUICK)
    overrides = [word for setting in settings for word in ("--set", setting)]
    return subprocess.run(
        [*program, *runs, *options, *overrides], cwd=ROOT, capture_output=True, text=True
    )


def test_pairs_are_read_and_calibration_is_reported(
    datasets: Path, tmp_path: Path, tiny_mlm: Path
) -> None:
    done = table_of(datasets, tiny_mlm)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "snli"
    assert "calibration error" in lines[1]
    systems = ("mean PVP", "ensemble", "classifier", "baseline")
    assert [line.split("default")[1].strip().split("  ")[0] for line in lines[2:]] == [*systems]
    encoded = pq.read_table(tmp_path / "runs/snli-13/prepare/test/table.parquet")
    assert encoded.column_names[:3] == ["id", "premise", "hypothesis"]


def test_systems_are_compared_on_the_same_rows(
    datasets: Path, tmp_path: Path, tiny_mlm: Path
) -> None:
    systems = tmp_path / "systems.toml"
    systems.write_text('first = []\nlonger = ["distill.steps=3"]\n')
    options = ("--systems", str(systems), "--test-rows", "odd", "--per-label", "snli=1")
    done = table_of(datasets, tiny_mlm, *options)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[2:10]] == ["first"] * 4 + ["longer"] * 4
    assert lines[10] == ["mean", "over", "the", "sets"]
    means = {line[0]: line[1:] for line in lines[12:]}
    assert means["longer"][1] == means["longer"][3] == "(+0.0)"  # mean PVP, ensemble: not redone
    first, longer = (tmp_path / "runs" / name / "snli-13" for name in ("first", "longer"))
    assert len(pq.read_table(first / "prepare/labelled/table.parquet")) == 3
    assert pq.read_table(first / "prepare/test/table.parquet")["id"].to_pylist() == [
        f"test-{n}" for n in (1, 3, 5, 7)
    ]
    events = map(json.loads, (longer / "log.jsonl").read_text().splitlines())
    done_again = {event["stage"] for event in events if event["event"] == "unit"}
    assert done_again == {"distill", "evaluate", "report"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write lines such as"),
        ("a = 1", "a: a list of settings is needed"),
        ('"a/b" = []', "'a/b' cannot be the name of a folder of runs"),
        ('".." = []', "'..' cannot be the name of a folder of runs"),
        ('a = ["output=b"]', "--set output: this program sets it; use --output"),
        ('a = ["finetune.step=1"]', "finetune.step: no such setting; did you mean 'steps'?"),
        ("a", "Expected '='"),
    ],
)
def test_a_broken_file_of_systems_is_refused(
    datasets: Path, tmp_path: Path, tiny_mlm: Path, text: str, message: str
) -> None:
    systems = tmp_path / "systems.toml"
    systems.write_text(text)
    done = table_of(datasets, tiny_mlm, "--systems", str(systems))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs" / "a").exists()
