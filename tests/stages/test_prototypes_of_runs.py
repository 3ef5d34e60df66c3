"""Runs whose PVPs have prototypes: what is learned on which rows, kept, and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planning import QUICK, Make, planned, result
from testing import CPU, run, todo

from pet_pipeline.config import Settings
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import PROTOTYPES, PrototypeSettings
from pet_pipeline.patterns import load_task
from pet_pipeline.prototypes import Prototypes
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages.crossfit import CrossFit
from pet_pipeline.stages.finetune import FineTune
from pet_pipeline.tables import Floats, read_rows, read_scores

ON: dict[str, Any] = {"prototypes": True, "prototype_size": 8}


def settings_of(make: Make, *, finetune: dict[str, Any] | None = None, **more: Any) -> Settings:
    return make(finetune={**ON, **(finetune or {})}, **QUICK, **more)


def finetunes(settings: Settings) -> dict[str, FineTune]:
    units = {name: unit.unit for name, unit in planned(settings).items() if "finetune" in name}
    return {name: unit for name, unit in units.items() if isinstance(unit, FineTune)}


@pytest.mark.parametrize(
    ("finetune", "name", "files"),
    [
        ({}, "just-1", {"model.safetensors", "config.json"}),
        ({"method": "bitfit", "steps": 3}, "just-1", {"trained.safetensors"}),
        ({"steps": 0}, "just-0", set()),
    ],
)
def test_prototypes_are_kept_and_read(
    tiny_settings: Make, tiny_mlm: Path, finetune: dict[str, Any], name: str, files: set[str]
) -> None:
    settings = settings_of(tiny_settings, finetune=finetune)
    run(settings)
    folder = result(settings, f"gen-0/finetune/{name}").dir / "model"
    found = {file.name for file in folder.iterdir()}
    assert files | {PROTOTYPES} <= found
    assert files or found == {PROTOTYPES}
    pattern = next(p for p in load_task(settings.task).patterns if p.name == "just")
    base = folder if "config.json" in files else tiny_mlm
    lm = Pvp.load(ModelFolder(base), pattern, compute=CPU).lm
    part = folder / "trained.safetensors" if "trained.safetensors" in files else None
    plain = Pvp.of(lm, pattern, 48, part=part)
    both = Pvp.of(lm, pattern, 48, part=part, prototypes=folder / PROTOTYPES)
    rows = read_rows(Path(settings.output) / "prepare/test/table.parquet")
    scores = read_scores(result(settings, f"gen-0/annotate/{name}-test").dir / "scores.parquet")[1]
    np.testing.assert_allclose(scores, both.scores(rows), atol=1e-4)
    assert np.abs(scores - plain.scores(rows)).max() > 1e-4
    assert todo(settings) == []


def test_without_prototypes_their_size_does_not_count(tiny_settings: Make) -> None:
    plain = {**ON, "prototypes": False}
    for settings in (tiny_settings(), tiny_settings(finetune=plain)):
        for unit in finetunes(settings).values():
            assert unit.prototypes is None
    keys = [
        {name: unit.key for name, unit in planned(tiny_settings(finetune=more)).items()}
        for more in ({}, plain, ON)
    ]
    for units in keys:
        del units["report"]  # which shows all settings
    assert keys[0] == keys[1]
    changed = {name for name in keys[0] if keys[0][name] != keys[2][name]}
    assert {"gen-0/finetune/just-1", "gen-0/annotate/just-1-test", "gen-0/ensemble/all"} <= changed
    assert not [name for name in changed if "encode" in name or "baseline" in name]


def test_prototypes_added_to_a_run_make_its_models_stale(
    finished: Make, tiny_settings: Make
) -> None:
    names = todo(tiny_settings(output=finished().output, finetune=ON))
    assert {f"gen-0/finetune/{name}-1" for name in ("it_was", "just", "mood")} <= set(names)
    assert not [name for name in names if "encode" in name or "baseline" in name]


def test_there_are_none_without_labelled_rows(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, data={"labelled": ""})
    assert all(unit.prototypes is None for unit in finetunes(settings).values())
    run(settings, until="finetune")
    folder = result(settings, "gen-0/finetune/just-0").dir
    assert [file.name for file in folder.iterdir()] == ["unit.json"]


def test_rows_that_other_models_labelled_are_labelled_rows(tiny_settings: Make) -> None:
    for finetune in ({}, {"steps": 0}):
        settings = settings_of(
            tiny_settings, finetune=finetune, data={"labelled": ""}, ipet={"generations": 1}
        )
        learned = {name: unit.prototypes for name, unit in finetunes(settings).items()}
        assert {name[:5] for name, how in learned.items() if how} == {"gen-1"}
        assert {name[:5] for name, how in learned.items() if not how} == {"gen-0"}


def test_a_fold_learns_without_its_held_out_rows(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tiny_settings, ensemble={"weights": "fitted", "folds": 2})
    run(settings, until="encode")
    unit = planned(settings)["gen-0/crossfit/just-fold-0"].unit
    assert isinstance(unit, CrossFit)
    assert unit.real.prototypes == PrototypeSettings(8)
    seen: list[tuple[Floats, Sequence[int]]] = []
    learn = Prototypes.learn

    def watched(states: Floats, gold: Sequence[int], *args: Any, **options: Any) -> Prototypes:
        seen.append((states, gold))
        return learn(states, gold, *args, **options)

    monkeypatch.setattr(Prototypes, "learn", watched)
    unit = replace(unit, real=replace(unit.real, tuning=None))  # the model reads rows as the base
    unit.work(tmp_path, CPU)
    held = read_scores(tmp_path / "scores.parquet")[0].to_pylist()
    rows, gold = unit.real.training_rows()
    others = [n for n in range(len(rows)) if n not in held]
    ((states, learned_from),) = seen
    assert learned_from == [gold[n] for n in others]
    pvp = unit.real.load(CPU)
    encoded = pvp.encoder.encode([rows[n] for n in others])
    with torch.no_grad():
        _, expected = pvp.lm.label_scores_and_states(encoded, pvp.encoder.words)
    np.testing.assert_allclose(states, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("steps", [0, 3])
def test_the_temperature_counts_what_learned_prototypes(tiny_settings: Make, steps: int) -> None:
    def folds(*, prototypes: bool) -> int:
        settings = tiny_settings(
            finetune={"steps": steps, "prototypes": prototypes}, ensemble={"temperature_folds": 2}
        )
        return sum("crossfit" in name for name in planned(settings))

    assert folds(prototypes=True) == 2
    assert folds(prototypes=False) == (2 if steps else 0)


def test_learning_with_demonstrations_and_a_prior(tiny_settings: Make) -> None:
    settings = settings_of(
        tiny_settings,
        demonstrations={"enabled": True, "draws": 2, "max_tokens": 120},
        calibration={"method": "pmi"},
    )
    run(settings)
    scores = read_scores(result(settings, "gen-0/annotate/just-1-test").dir / "scores.parquet")[1]
    assert np.isfinite(scores).all()
