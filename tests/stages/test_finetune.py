"""The models of a generation: how many, on what, and by which seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_stages import run, todo

from pet_pipeline import Run, encode, finetune, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.data import read_rows
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.inference import score_rows
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.stages.results import Model

Make = Callable[..., Settings]
PATTERNS = ("it_was", "just", "mood")


def models_of(settings: Settings) -> list[Model]:
    with Run.open(settings) as opened:
        task = load_task(settings.task)
        tables = encode(opened, task, prepare(opened, task, settings), settings)
        return finetune(opened, task, tables, settings)


def weights(settings: Settings, name: str) -> bytes:
    folder = Path(settings.output) / "gen-0" / "finetune" / name
    return (folder / "model" / "model.safetensors").read_bytes()


def test_one_model_for_each_pattern_and_seed(tiny_settings: Make) -> None:
    settings = tiny_settings(finetune={"seeds": [3, 1]})
    models = models_of(settings)
    assert [(m.name, m.pattern.name, m.seed) for m in models] == [
        (f"{pattern}-{seed}", pattern, seed) for pattern in PATTERNS for seed in (3, 1)
    ]
    folder = Path(settings.output) / "gen-0" / "finetune"
    assert sorted(f.name for f in folder.iterdir()) == sorted(m.name for m in models)
    assert len({weights(settings, m.name) for m in models}) == 6
    for model in models:
        assert model.result.info["rows"] == 8
        assert model.result.info["loss"] > 0
        load_mlm(model.result.dir / "model")


@pytest.mark.parametrize("labelled", [True, False])
def test_untuned_models_if_there_is_nothing_to_tune(tiny_settings: Make, labelled: bool) -> None:
    changes: dict[str, Any] = {"finetune": {"steps": 0, "seeds": [1, 2]}}
    if not labelled:
        changes = {"data": {"labelled": ""}}
    models = models_of(tiny_settings(**changes))
    assert [model.name for model in models] == [f"{pattern}-0" for pattern in PATTERNS]
    for model in models:
        assert [file.name for file in model.result.dir.iterdir()] == ["unit.json"]
        assert ("untuned_accuracy" in model.result.info) == labelled
        assert "loss" not in model.result.info


@pytest.mark.parametrize("steps", [0, 2])
def test_the_accuracy_before_tuning_is_told(
    tiny_settings: Make, tiny_mlm: Path, steps: int
) -> None:
    settings = tiny_settings(finetune={"steps": steps})
    models = models_of(settings)
    rows = read_rows(Path(settings.output) / "prepare" / "labelled" / "table.parquet")
    for model in models:
        encoder = PatternEncoder(model.pattern, load_tokenizer(tiny_mlm), 48)
        scores = score_rows(
            load_mlm(tiny_mlm),
            encoder.encode(rows),
            encoder.layout,
            encoder.words,
            machine=settings.machine,
            what="test",
        )
        right = [
            ("sad", "happy")[n] == row["label"]
            for n, row in zip(scores.argmax(1), rows, strict=False)
        ]
        assert model.result.info["untuned_accuracy"] == pytest.approx(sum(right) / len(right))


def test_a_new_seed_trains_its_models_and_what_stands_on_them(tiny_settings: Make) -> None:
    run(tiny_settings())
    assert todo(tiny_settings(finetune={"seeds": [1, 2]})) == [
        *(f"gen-0/finetune/{pattern}-2" for pattern in PATTERNS),
        *(
            f"gen-0/annotate/{pattern}-2-{place}"
            for pattern in PATTERNS
            for place in ("00000", "test")
        ),
        "gen-0/ensemble/all",
        "distill/classifier",
        "evaluate/all",
        "report",
    ]


def test_seeds_come_from_the_name_not_from_the_order(
    tiny_settings: Make, tiny_task: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "mood"
    alone.mkdir()
    for name in ("task.toml", "just.toml"):
        (alone / name).write_text((tiny_task / name).read_text())
    settings = [
        tiny_settings(finetune={"seeds": [5, 2]}),
        tiny_settings(finetune={"seeds": [2]}, task=str(alone), output=str(tmp_path / "alone")),
    ]
    for one in settings:
        models_of(one)
    assert weights(settings[0], "just-2") == weights(settings[1], "just-2")


def test_the_mlm_loss_is_part_of_the_tuning(tiny_settings: Make, tmp_path: Path) -> None:
    settings = [
        tiny_settings(finetune={"mlm_weight": weight}, output=str(tmp_path / f"{weight}"))
        for weight in (0.0, 1e-4, 0.5)
    ]
    for one in settings:
        models_of(one)
    assert len({weights(one, "mood-1") for one in settings}) == 3
    infos = [
        json.loads((Path(s.output) / "gen-0/finetune/mood-1/unit.json").read_text())["info"]
        for s in settings
    ]
    # log(206) tokens is far more than log(2) labels
    assert infos[0]["loss"] < infos[1]["loss"] < infos[2]["loss"]


def test_settings_of_the_mlm_loss_count_only_with_it(tiny_settings: Make) -> None:
    run(tiny_settings(), until="finetune")

    def finetunes(**changes: Any) -> int:
        return sum("finetune" in name for name in todo(tiny_settings(finetune=changes)))

    assert finetunes(mlm_texts=2, mlm_masked=0.3) == 0
    assert finetunes(mlm_weight=0.1) == finetunes(steps=4) == finetunes(batch_size=2) == 3
