"""The models of a generation: how many, on what, and by which seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Make, inputs_of, planned, result
from testing import CPU, run, todo

from pet_pipeline import Run, finetune, load_task
from pet_pipeline.config import Settings
from pet_pipeline.encoded import Encoded, Role, write_encoded
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import MlmLoss, Optimisation, Tuning
from pet_pipeline.pretrained import load_mlm
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages.finetune import FineTune, read_texts
from pet_pipeline.stages.results import LOADING, TUNED, Model
from pet_pipeline.tables import read_rows
from pet_pipeline.units import Result

PATTERNS = ("it_was", "just", "mood")


def models_of(settings: Settings) -> list[Model]:
    with Run.open(settings) as opened:
        task, inputs = inputs_of(settings, opened)
        return finetune(opened, task, inputs, settings)


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
        load_mlm(ModelFolder(model.result.dir / "model"))


def test_the_machines_choice_of_jobs_gives_the_weights_of_one_job(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.compute.usable_cores", lambda: 2)
    chosen, one = (
        tiny_settings(output=str(tmp_path / str(jobs)), machine={"jobs": jobs, "threads": 0})
        for jobs in (0, 1)
    )
    assert Run.open(chosen, plan=True).jobs == 2
    for settings in (chosen, one):
        models_of(settings)
    for pattern in PATTERNS:
        assert weights(chosen, f"{pattern}-1") == weights(one, f"{pattern}-1")


def test_a_fine_tune_costs_by_the_rows_of_its_steps(tiny_settings: Make) -> None:
    def cost(**finetune: Any) -> float:
        units = planned(tiny_settings(finetune=finetune))
        name = "gen-0/finetune/just-1"
        return units.get(name, units.get("gen-0/finetune/just-0")).unit.cost()  # type: ignore[union-attr]

    steps = [cost(steps=n, batch_size=4) - LOADING for n in (0, 100, 300)]
    assert steps == [0, 100 * 4 * TUNED, 300 * 4 * TUNED]
    assert cost(steps=100, batch_size=8) - LOADING == 2 * steps[1]
    assert cost(steps=100, batch_size=4, mlm_weight=0.1, mlm_texts=3) - LOADING == 4 * steps[1]


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


@pytest.mark.parametrize("steps", [0, 3])
def test_the_accuracy_before_tuning_is_told(
    finished: Make, tiny_settings: Make, tiny_mlm: Path, steps: int
) -> None:
    settings = finished() if steps else tiny_settings(finetune={"steps": 0})
    if not steps:
        models_of(settings)
    rows = read_rows(Path(settings.output) / "prepare" / "labelled" / "table.parquet")
    for pattern in load_task(settings.task).patterns:
        pvp = Pvp.load(ModelFolder(tiny_mlm), pattern, max_tokens=48, compute=CPU)
        right = [
            ("sad", "happy")[n] == row["label"]
            for n, row in zip(pvp.scores(rows).argmax(1), rows, strict=True)
        ]
        info = result(settings, f"gen-0/finetune/{pattern.name}-{int(steps > 0)}").info
        assert info["untuned_accuracy"] == pytest.approx(sum(right) / len(right))


def test_a_new_seed_trains_its_models_and_what_depends_on_them(
    finished: Make, tiny_settings: Make
) -> None:
    assert todo(tiny_settings(output=finished().output, finetune={"seeds": [1, 2]})) == [
        *(f"gen-0/finetune/{pattern}-2" for pattern in PATTERNS),
        *(
            f"gen-0/annotate/{pattern}-2-{part}"
            for pattern in PATTERNS
            for part in ("00000", "test")
        ),
        "gen-0/ensemble/all",
        "distill/classifier",
        "evaluate/all",
        "report",
    ]


def test_seeds_come_from_the_name_not_from_the_order(
    finished: Make, tiny_settings: Make, tiny_task: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "mood"
    alone.mkdir()
    for name in ("task.toml", "just.toml"):
        (alone / name).write_text((tiny_task / name).read_text())
    settings = tiny_settings(finetune={"seeds": [2, 1]}, task=str(alone))
    models_of(settings)
    assert weights(settings, "just-1") == weights(finished(), "just-1")
    assert weights(settings, "just-2") != weights(settings, "just-1")


def test_a_pattern_that_is_not_chosen_may_be_the_second_view(tiny_settings: Make) -> None:
    contrast = {"contrast_weight": 1.0, "contrast_view": "pattern", "contrast_pattern": "mood"}
    chosen: dict[str, Any] = {"patterns": ["it_was", "just"]}
    names = ["it_was-1", "just-1"]
    plain = tiny_settings(**chosen)
    run(plain, until="finetune")
    before = [weights(plain, name) for name in names]
    settings = tiny_settings(**chosen, finetune=contrast)
    run(settings, until="finetune")
    folder = Path(settings.output) / "gen-0" / "finetune"
    assert sorted(unit.name for unit in folder.iterdir()) == names
    assert all(weights(settings, n) != old for n, old in zip(names, before, strict=True))
    other = tiny_settings(**chosen, finetune={**contrast, "contrast_pattern": "it_was"})
    assert {name for name in todo(other) if "finetune" in name} == {
        "gen-0/finetune/it_was-1",
        "gen-0/finetune/just-1",
    }


def test_the_mlm_loss_is_part_of_the_tuning(
    finished: Make, tiny_settings: Make, tmp_path: Path
) -> None:
    settings = [
        finished(until="finetune", finetune={"mlm_weight": weight}) for weight in (0.0, 1e-4, 0.5)
    ]
    assert len({weights(one, "mood-1") for one in settings}) == 3
    losses = [result(one, "gen-0/finetune/mood-1").info["loss"] for one in settings]
    # log(206) tokens is far more than log(2) labels
    assert losses[0] < losses[1] < losses[2]


def test_settings_of_the_mlm_loss_count_only_with_it(finished: Make, tiny_settings: Make) -> None:
    output = finished().output

    def finetunes(**changes: Any) -> int:
        names = todo(tiny_settings(output=output, finetune=changes))
        return sum("finetune" in name for name in names)

    assert finetunes(mlm_texts=2, mlm_masked=0.3) == 0
    assert finetunes(mlm_weight=0.1) == finetunes(steps=4) == finetunes(batch_size=2) == 3


def test_the_pool_is_needed_only_for_the_mlm_loss(tiny_settings: Make) -> None:
    def texts(**finetune: Any) -> int:
        settings = tiny_settings(data={"shard_rows": 5}, finetune=finetune)
        unit = planned(settings)["gen-0/finetune/just-1"].unit
        assert isinstance(unit, FineTune)
        return len(unit.texts)

    assert texts() == 0
    assert texts(mlm_weight=0.1) == 5


def test_texts_for_the_mlm_loss_are_of_random_shards_and_no_more_than_needed(
    tmp_path: Path,
) -> None:
    shards = []
    for n in range(20):
        (tmp_path / str(n)).mkdir()
        rows = [Encoded.of([n], Role.TEXT)] * 10
        write_encoded(tmp_path / str(n) / "tokens.parquet", np.arange(10), rows)
        shards.append(Result(tmp_path / str(n), str(n), {"rows": 10}))

    def read(seed: int, steps: int = 3, **mlm: Any) -> list[int]:
        tuning = Tuning(Optimisation(0.1, batch_size=4), steps, MlmLoss(0.1, **mlm))
        return [text.ids[0] for text in read_texts(shards, tuning, seed)]

    assert len(read(1)) == 40  # the shards that hold 3 * 4 * 3 texts
    assert len(read(1, texts=1)) == 20
    assert len(read(1, steps=999)) == 200
    assert read(1) == read(1)
    orders = {tuple(dict.fromkeys(read(seed))) for seed in range(6)}
    assert len(orders) > 3
    assert len({n for order in orders for n in order}) > 10
    assert read_texts(shards, Tuning(Optimisation(0.1), 3), 1) == []


def test_untuned_models_do_not_differ_by_generation(tiny_settings: Make) -> None:
    def generations(**sections: Any) -> list[int]:
        units = planned(tiny_settings(ipet={"generations": 1}, **sections))
        units = {
            n: u for n, u in units.items() if n.endswith(("finetune/just-1", "finetune/just-0"))
        }
        return [unit.unit.generation for unit in units.values()]

    assert generations() == [0, 1]
    assert generations(finetune={"steps": 0}) == [0, 0]
