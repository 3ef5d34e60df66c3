"""A data set with few-shot samples, as the programs that compare on several of them read it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from testing import HAPPY, SAD


@pytest.fixture
def datasets(tmp_path: Path, tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one set, and its task with a null prompt where a program looks for it."""
    monkeypatch.chdir(tmp_path)
    task = tmp_path / "patterns" / "mood"
    shutil.copytree(tiny_task, task)
    (task / "null_end.toml").write_text('template = "{text} {mask}"\ndefault = false\n')
    folder = tmp_path / "sets" / "mood"
    folder.mkdir(parents=True)
    labels = ["sad"] * 4 + ["happy"] * 4
    shots: dict[str, list[Any]] = {"text_a": [], "label": [], "split": [], "seed": []}
    for seed in (13, 21):
        shots["text_a"] += [f"{text} {seed}" for text in SAD + HAPPY]
        shots["label"] += labels
        shots["split"] += ["train"] * 8
        shots["seed"] += [seed] * 8
    pq.write_table(pa.table(shots), folder / "kshot.parquet")
    pool = [f"{text} too" for text in SAD + HAPPY]
    pq.write_table(pa.table({"text_a": pool}), folder / "unlabeled.parquet")
    test = {"text_a": [f"{text} then" for text in SAD + HAPPY], "label": labels}
    pq.write_table(pa.table(test), folder / "test.parquet")
    return folder.parent
