"""`pet export`: a tuned PVP as a plain masked language model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pet_pipeline import Run, Settings, encode, finetune, load_task, prepare
from pet_pipeline.cli import app
from pet_pipeline.compute import Compute
from pet_pipeline.models import ModelFolder
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages.from_settings import soft_tokens

Make = Callable[..., Settings]
ROWS = [{"text": "a good day"}, {"text": "what a bad book this is"}]
CPU = Compute(device="cpu", precision="float32", threads=1)


def tuned(settings: Settings) -> Path:
    """The folder of a fine-tune."""
    with Run.open(settings) as run:
        task = load_task(settings.task)
        inputs = encode(run, task, prepare(run, task, settings), settings)
        return finetune(run, task, inputs, settings)[0].result.dir


def export(*arguments: str, code: int = 0) -> str:
    """What `pet export` says."""
    done = CliRunner().invoke(app, ["export", *arguments])
    assert done.exit_code == code, done.output
    return done.stderr


@pytest.mark.parametrize("method", ["full", "bitfit", "layernorm", "head", "lora", "ia3"])
def test_a_plain_model_scores_as_the_pvp_does(
    tiny_settings: Make, tmp_path: Path, tiny_mlm: Path, method: str
) -> None:
    settings = tiny_settings(finetune={"method": method, "learning_rate": 0.1})
    folder, plain = tuned(settings), tmp_path / "made" / "plain"
    assert export(str(folder), "--merge", str(plain)) == f"written: {plain}\n"
    pattern = load_task(settings.task).patterns[0]
    scores = Pvp.load(ModelFolder(plain), pattern, compute=CPU).scores(ROWS)
    part = folder / "model" / "trained.safetensors"
    assert part.exists() == (method != "full")
    base = Pvp.load(ModelFolder(tiny_mlm), pattern, compute=CPU)
    if method == "full":
        expected = Pvp.load(ModelFolder(folder / "model"), pattern, compute=CPU)
    else:
        expected = Pvp.of(base.lm, pattern, 128, part=part)
    np.testing.assert_allclose(scores, expected.scores(ROWS), atol=1e-4)
    assert np.abs(scores - base.scores(ROWS)).max() > 1e-4


def test_a_prompt_cannot_be_merged(tiny_settings: Make, tmp_path: Path) -> None:
    settings = tiny_settings(finetune={"method": "p_tuning_v2", "prompt_length": 2})
    assert soft_tokens(settings)
    said = export(str(tuned(settings)), "--merge", str(tmp_path / "plain"), code=2)
    assert "a prompt of p_tuning_v2 is not a part of the model" in said
    assert not list(tmp_path.glob("*plain*"))


def test_a_base_that_moved_or_changed(
    tiny_settings: Make, tmp_path: Path, tiny_mlm: Path, mlm_of: Callable[[str], Any]
) -> None:
    base = shutil.copytree(tiny_mlm, tmp_path / "base")
    folder = str(tuned(tiny_settings(model=str(base), finetune={"method": "bitfit"})))
    moved = base.rename(tmp_path / "moved")
    plain = ("--merge", str(tmp_path / "plain"))
    missing = export(folder, *plain, code=2)
    assert missing == (
        f"error: {folder}/model: the model that it was tuned from, {base}, is not there; name it "
        "with --base\n"
    )
    other = export(folder, *plain, "--base", str(mlm_of("roberta")), code=2)
    assert "is not the model that it was tuned from, or has changed since" in other
    export(folder, *plain, "--base", str(moved))
    assert (tmp_path / "plain" / "config.json").exists()
    existing = export(folder, *plain, code=2)
    assert existing == f"error: --merge: {tmp_path / 'plain'} exists; name a new folder\n"


def test_other_folders_are_not_pvps(tmp_path: Path) -> None:
    said = export(str(tmp_path / "no"), "--merge", str(tmp_path / "plain"), code=2)
    assert said == (
        f"error: {tmp_path / 'no'}: not a tuned PVP; name a folder such as "
        "RUN/gen-0/finetune/NAME\n"
    )


def test_prototypes_are_left_out(tiny_settings: Make, tmp_path: Path) -> None:
    folder, plain = tuned(tiny_settings(finetune={"prototypes": True})), tmp_path / "plain"
    said = export(str(folder), "--merge", str(plain))
    assert said.splitlines()[0] == (
        f"{folder}: its prototypes are left out; the plain model scores label words alone"
    )
    assert (folder / "model" / "prototypes.safetensors").exists()
    assert not (plain / "prototypes.safetensors").exists()
    pattern = load_task(tiny_settings().task).patterns[0]
    assert Pvp.load(ModelFolder(plain), pattern, compute=CPU).scores(ROWS).shape == (2, 2)


def test_prototypes_alone_are_not_a_model(tiny_settings: Make, tmp_path: Path) -> None:
    folder = tuned(tiny_settings(finetune={"prototypes": True, "steps": 0}))
    said = export(str(folder), "--merge", str(tmp_path / "plain"), code=2)
    assert "only prototypes were learned, which are not a part of a model" in said
