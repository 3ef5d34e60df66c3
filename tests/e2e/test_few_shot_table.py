"""The program that measures on public data sets: one run per set and sample, and a table."""

from __future__ import annotations

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


def test_pairs_are_read_and_calibration_is_reported(
    datasets: Path, tmp_path: Path, tiny_mlm: Path
) -> None:
    settings = (
        f"model={tiny_mlm}",
        "finetune.steps=1",
        "distill.steps=2",
        "baseline.steps=1",
        "ensemble.temperature_folds=0",
        "machine.precision=float32",
        "machine.threads=1",
        "machine.jobs=1",
    )
    program = [sys.executable, str(ROOT / "pipelines" / "few_shot_table.py"), str(datasets)]
    options = ["--output", str(tmp_path / "runs"), "--sets", "snli", "--seeds", "13"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [*program, *options, *overrides], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "snli"
    assert "calibration error" in lines[1]
    systems = ("mean PVP", "ensemble", "classifier", "baseline")
    assert all(any(line.strip().startswith(name) for line in lines) for name in systems)
    encoded = pq.read_table(tmp_path / "runs/snli-13/prepare/test/table.parquet")
    assert encoded.column_names[:3] == ["id", "premise", "hypothesis"]
