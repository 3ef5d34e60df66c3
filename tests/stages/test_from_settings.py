"""What units take from the settings: models, the precision, rates, loops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planning import Make, planned
from testing import run, todo

from pet_pipeline import hub_datasets
from pet_pipeline.compute import Compute
from pet_pipeline.config import Finetune
from pet_pipeline.errors import UserError
from pet_pipeline.inference import resolve_precision
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import MlmLoss, Optimisation
from pet_pipeline.run import PINS, Run
from pet_pipeline.sources import Remote, count_rows
from pet_pipeline.stages import from_settings
from pet_pipeline.stages.from_settings import (
    optimisation,
    pinned_model,
    pinned_source,
    precision,
    tuning,
)

PATTERNS = ("it_was", "just", "mood")


@pytest.fixture
def wide(tmp_path: Path) -> Callable[[int], str]:
    """A function from a hidden size to the folder of a model that has it, as far as plans see."""

    def make(hidden_size: int) -> str:
        folder = tmp_path / f"wide-{hidden_size}"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"hidden_size": hidden_size}))
        return str(folder)

    return make


def rates(make: Make, **sections: Any) -> dict[str, float]:
    """The learning rates of a plan, by stage."""
    units = planned(make(**sections))
    return {
        "finetune": units["gen-0/finetune/just-1"].unit.tuning.optimisation.learning_rate,
        "distill": units["distill/classifier"].unit.distillation.optimisation.learning_rate,
        "baseline": units["distill/baseline"].unit.optimisation.learning_rate,
    }


def test_every_stage_takes_the_learning_rate_of_all(tiny_settings: Make) -> None:
    assert rates(tiny_settings, learning_rate=0.004) == dict.fromkeys(
        ("finetune", "distill", "baseline"), 0.004
    )


@pytest.mark.parametrize("section", ["finetune", "distill", "baseline"])
def test_a_section_may_have_a_rate_of_its_own(tiny_settings: Make, section: str) -> None:
    found = rates(tiny_settings, learning_rate=0.004, **{section: {"learning_rate": 0.5}})
    assert found.pop(section) == 0.5
    assert set(found.values()) == {0.004}


@pytest.mark.parametrize(
    ("base", "student", "expected"),
    [
        (32, None, (3e-4, 3e-4, 3e-4)),
        (768, None, (3e-5, 3e-5, 3e-5)),
        (1024, 384, (1e-5, 3e-4, 3e-4)),
        (384, 768, (3e-4, 3e-5, 3e-5)),
        (768, 1024, (3e-5, 1e-5, 1e-5)),
    ],
)
def test_a_rate_of_0_follows_the_size_of_the_model_that_is_trained(
    tiny_settings: Make,
    wide: Callable[[int], str],
    base: int,
    student: int | None,
    expected: tuple[float, ...],
) -> None:
    distill = {"model": wide(student)} if student else {}
    found = rates(tiny_settings, learning_rate=0.0, model=wide(base), distill=distill)
    assert tuple(found.values()) == expected


def test_a_rate_of_its_own_is_taken_whatever_the_model(
    tiny_settings: Make, wide: Callable[[int], str]
) -> None:
    found = rates(
        tiny_settings, learning_rate=0.0, model=wide(1024), distill={"learning_rate": 0.25}
    )
    assert found == {"finetune": 1e-5, "distill": 0.25, "baseline": 1e-5}


def test_an_optimisation_is_what_its_section_says(tiny_settings: Make, tiny_mlm: Path) -> None:
    section = Finetune(
        learning_rate=0.5,
        batch_size=3,
        batch_tokens=77,
        warmup=0.25,
        weight_decay=0.75,
        clip=2.0,
        frozen_embeddings=False,
    )
    assert optimisation(tiny_settings(), section, ModelFolder(tiny_mlm)) == Optimisation(
        learning_rate=0.5,
        batch_size=3,
        batch_tokens=77,
        warmup=0.25,
        weight_decay=0.75,
        clip=2.0,
        frozen_embeddings=False,
    )


def test_the_mlm_loss_is_there_only_with_a_weight(tiny_settings: Make, tiny_mlm: Path) -> None:
    def loss(**finetune: Any) -> MlmLoss | None:
        return tuning(tiny_settings(finetune=finetune), ModelFolder(tiny_mlm)).mlm

    assert loss(mlm_texts=2, mlm_masked=0.3) is None
    assert loss(mlm_weight=0.1, mlm_texts=2, mlm_masked=0.3) == MlmLoss(0.1, 2, 0.3)


# Where and how fast.


@pytest.mark.parametrize(
    "machine",
    [{"batch_tokens": 77}, {"jobs": 2}, {"threads": 2}, {"checkpoint_seconds": 0.0}],
)
def test_where_and_how_fast_is_in_no_key(
    finished: Make, tiny_settings: Make, machine: dict[str, Any]
) -> None:
    output = finished().output
    assert todo(tiny_settings(output=output, machine=machine)) == ["report"]  # was not asked for


@pytest.mark.parametrize(
    ("section", "first"),
    [
        ("finetune", "gen-0/finetune/it_was-1"),
        ("distill", "distill/classifier"),
        ("baseline", "distill/baseline"),
    ],
)
def test_how_a_training_step_is_cut_is_in_the_key(
    finished: Make, tiny_settings: Make, section: str, first: str
) -> None:
    output = finished().output
    assert todo(tiny_settings(output=output, **{section: {"batch_tokens": 60}}))[0] == first


def test_the_precision_is_in_the_key(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    other = todo(tiny_settings(output=output, machine={"precision": "bfloat16"}))
    assert [name for name in other if "finetune" in name] == [
        f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS
    ]
    assert {"distill/classifier", "distill/baseline", "evaluate/all"} < set(other)
    assert not [name for name in other if name.startswith(("prepare/", "encode/"))]


def test_a_precision_is_resolved_by_the_first_run_and_kept(tiny_settings: Make) -> None:
    settings = tiny_settings(machine={"precision": "auto"})
    pins = Path(settings.output) / PINS
    todo(settings)
    assert not pins.exists()  # a plan resolves and stores nothing
    run(settings, until="finetune")
    pinned = json.loads(pins.read_text())
    assert pinned == {"precision": resolve_precision(Compute.of(settings.machine))}
    assert "gen-0/finetune/just-1" not in todo(settings)
    explicit = tiny_settings(machine={"precision": pinned["precision"]})
    assert "gen-0/finetune/just-1" not in todo(explicit)
    (other,) = {"float32", "bfloat16"} - set(pinned.values())
    assert "gen-0/finetune/just-1" in todo(tiny_settings(machine={"precision": other}))
    # On a machine that would resolve it otherwise, the run stays what it is.
    pins.write_text(json.dumps({"precision": other}))
    with Run.open(settings) as opened:
        assert precision(opened, settings) == other
    assert json.loads(pins.read_text()) == {"precision": other}


def test_a_hub_model_is_taken_at_the_commit_that_the_run_was_begun_with(
    tiny_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter(["c1", "c2", "c3"])
    monkeypatch.setattr(from_settings, "find_commit", lambda name, revision: next(commits))
    with Run.open(tiny_settings()) as opened:
        found = [pinned_model(opened, "some/model", "model").commit for _ in range(2)]
        assert found == ["c1", "c1"]
        assert pinned_model(opened, "some/model@main", "model").commit == "c2"
        assert pinned_model(opened, "some/model", "model").commit == "c2"
        # Another setting may name another revision of the same model.
        assert pinned_model(opened, "some/model", "distill.model").commit == "c3"
        assert pinned_model(opened, "some/model", "model").commit == "c2"


def test_a_bad_model_is_told_with_its_setting(tiny_settings: Make, tmp_path: Path) -> None:
    with (
        Run.open(tiny_settings()) as opened,
        pytest.raises(UserError, match=r"^distill\.model: \./nothing: no such folder"),
    ):
        pinned_model(opened, "./nothing", "distill.model")


def test_a_data_set_is_taken_at_the_version_that_the_run_was_begun_with(
    tiny_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter(["a" * 40, "b" * 40])
    monkeypatch.setattr(from_settings, "dataset_version", lambda source: next(versions))
    for _ in range(2):
        with Run.open(tiny_settings()) as opened:
            assert pinned_source(opened, "datasets:x:train") == Remote("datasets:x:train", "a" * 40)
    asked: list[dict[str, Any]] = []

    class Library:
        @staticmethod
        def load_dataset(name: str, config: str | None, **options: Any) -> Any:
            asked.append(options)
            raise ValueError("enough")

    monkeypatch.setattr(hub_datasets, "_datasets", Library)
    for version in ("a" * 40, "of a folder"):
        with pytest.raises(UserError, match="enough"):
            count_rows(Remote("datasets:x:train", version))
    assert [options["revision"] for options in asked] == ["a" * 40, None]
