"""Fixtures: tiny random models and small tables, made once; no test reaches the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from testing import HAPPY, SAD, save_mlm

from pet_pipeline.config import Settings
from pet_pipeline.settings import check_settings

torch.set_num_threads(1)
# A slow moment of the machine is not a failure, and two runs test the same examples.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def mlm_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an architecture's name to the folder of a tiny masked LM of it."""
    folder = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        made = folder / name
        return made if made.exists() else save_mlm(name, made)

    return make


@pytest.fixture(scope="session")
def tiny_mlm(mlm_of: Callable[[str], Path]) -> Path:
    """The folder of a tiny random masked LM."""
    return mlm_of("bert")


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task with two labels and three patterns."""
    folder = tmp_path_factory.mktemp("patterns") / "mood"
    folder.mkdir()
    (folder / "task.toml").write_text(
        'columns = ["text"]\nlabels = ["sad", "happy"]\nmetric = "accuracy"\n\n'
        '[verbalizer]\nsad = ["terrible", "bad"]\nhappy = ["great", "good"]\n'
    )
    (folder / "it_was.toml").write_text('template = "{text} it was {mask}."\n')
    (folder / "just.toml").write_text('template = "just {mask}! {sep} {text}"\n')
    (folder / "mood.toml").write_text('template = "[ mood: {mask} ] {text}"\n')
    return folder


@pytest.fixture(scope="session")
def tiny_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of a labelled, a development, a test and a pool table."""
    folder = tmp_path_factory.mktemp("tables")
    labelled = {"text": SAD + HAPPY, "label": ["sad"] * 4 + ["happy"] * 4}
    swapped = {"text": [f"{text} again" for text in SAD + HAPPY], "label": labelled["label"]}
    pool = [
        f"{text} {more}"
        for more in ("and so on", "in the night", "of my team")
        for text in SAD + HAPPY
    ]
    tables = {
        "labelled": labelled,
        "development": swapped,
        "test": {"id": [f"t{n}" for n in range(8)], **swapped},
        "pool": {"id": list(range(100, 124)), "text": pool},
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in tables}


@pytest.fixture
def tiny_settings(
    tmp_path: Path, tiny_mlm: Path, tiny_task: Path, tiny_tables: dict[str, str]
) -> Callable[..., Settings]:
    """Settings of a run of seconds; keyword arguments replace sections' values."""

    def make(**sections: Any) -> Settings:
        raw: dict[str, Any] = {
            "task": str(tiny_task),
            "model": str(tiny_mlm),
            "learning_rate": 3e-4,
            "output": str(tmp_path / "run"),
            "data": {name: tiny_tables[name] for name in ("labelled", "pool", "test")},
            "finetune": {"steps": 3, "batch_size": 4, "max_tokens": 48},
            "ensemble": {"temperature_folds": 0},
            "distill": {"steps": 4, "batch_size": 4, "max_tokens": 48},
            "baseline": {"steps": 3, "batch_size": 4, "max_tokens": 48},
            "machine": {"threads": 1, "jobs": 1, "precision": "float32", "device": "cpu"},
        }
        for name, value in sections.items():
            raw[name] = {**raw.get(name, {}), **value} if isinstance(value, dict) else value
        return check_settings(raw)

    return make
