"""The classifier and its baseline: their encoder, their steps, what they read, how they resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import Make, planned, result
from testing import CPU, run, todo

from pet_pipeline import classifier, training
from pet_pipeline.batches import batch_rows
from pet_pipeline.classifier import Classifier, SoftLabelled
from pet_pipeline.config import Distill
from pet_pipeline.models import ModelFolder
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.distill import DistillClassifier, TrainBaseline, distillation_steps
from pet_pipeline.stages.results import LOADING, TUNED
from pet_pipeline.tables import part_name, read_rows, write_soft_labels
from pet_pipeline.units import Result

PASSES = st.floats(0.1, 20)
BATCH = st.integers(1, 64)
ROWS = st.integers(1, 10**7)


@given(ROWS, st.integers(1, 5000))
def test_steps_that_are_given_are_taken_exactly(pool_rows: int, steps: int) -> None:
    assert distillation_steps(Distill(steps=steps), pool_rows) == steps
    tight = Distill(steps=steps, min_steps=1, max_steps=1)
    assert distillation_steps(tight, pool_rows) == steps


@given(PASSES, BATCH, ROWS, ROWS, st.integers(1, 500), st.integers(0, 3000))
def test_steps_follow_the_pool_between_bounds(
    passes: float, batch: int, one: int, other: int, least: int, more: int
) -> None:
    chosen = Distill(passes=passes, batch_size=batch, min_steps=least, max_steps=least + more)
    fewer, greater = (distillation_steps(chosen, rows) for rows in sorted((one, other)))
    assert least <= fewer <= greater <= least + more
    if least < greater < least + more:  # the pool is read so many times, and not once more
        rows = max(one, other)
        assert greater * batch >= passes * rows * (1 - 1e-9)
        assert (greater - 1) * batch < passes * rows * (1 + 1e-9)


@given(PASSES, PASSES, ROWS)
def test_more_passes_are_not_fewer_steps(one: float, other: float, rows: int) -> None:
    few, many = (
        distillation_steps(Distill(passes=passes), rows) for passes in sorted((one, other))
    )
    assert few <= many


@pytest.mark.parametrize(
    ("distill", "steps"),
    [
        ({"steps": 4}, 4),
        ({"steps": 0, "min_steps": 1, "batch_size": 4}, 12),
        ({"steps": 0, "min_steps": 1, "batch_size": 4, "passes": 0.3}, 2),
        ({"steps": 0}, 150),
        ({"steps": 0, "min_steps": 1, "max_steps": 5, "batch_size": 4}, 5),
    ],
)
def test_a_plan_shows_the_steps(tiny_settings: Make, distill: dict[str, Any], steps: int) -> None:
    units = planned(tiny_settings(distill=distill))  # the pool has 24 rows
    unit = units["distill/classifier"].unit
    assert isinstance(unit, DistillClassifier)
    assert unit.size() == f"{steps} steps"
    assert unit.distillation.steps == steps


def test_classifiers_cost_by_the_rows_of_their_steps(tiny_settings: Make) -> None:
    def costs(steps: int) -> list[float]:
        sections = {"steps": steps, "batch_size": 8}
        units = planned(tiny_settings(distill=sections, baseline=sections))
        return [units[f"distill/{n}"].unit.cost() - LOADING for n in ("classifier", "baseline")]

    assert costs(10) == [10 * 10 * TUNED, 10 * 8 * TUNED]  # with a quarter of gold rows
    assert costs(20) == [2 * cost for cost in costs(10)]


def test_how_the_steps_are_chosen_is_not_in_the_key(finished: Make, tiny_settings: Make) -> None:
    output = finished().output  # 4 steps of 4 rows
    same = {"steps": 0, "min_steps": 1, "max_steps": 4, "passes": 9.0}
    assert todo(tiny_settings(output=output, distill=same)) == ["report"]


def test_only_the_classifier_depends_on_its_settings(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    for section, name in (("distill", "classifier"), ("baseline", "baseline")):
        changed = todo(tiny_settings(output=output, **{section: {"steps": 5}}))
        assert changed == [f"distill/{name}", "evaluate/all", "report"]


def test_the_baseline_has_the_classifiers_encoder(
    tiny_settings: Make, mlm_of: Callable[[str], Path]
) -> None:
    settings = tiny_settings(distill={"model": str(mlm_of("distilbert"))})
    run(settings, until="evaluate")
    for name, kind in (("classifier", DistillClassifier), ("baseline", TrainBaseline)):
        unit = planned(settings)[f"distill/{name}"].unit
        assert isinstance(unit, kind)
        assert unit.base == ModelFolder(mlm_of("distilbert"))
        config = json.loads((result(settings, f"distill/{name}").dir / "config.json").read_text())
        assert config["model_type"] == "distilbert"
    finetuned = result(settings, "gen-0/finetune/just-1").dir / "model" / "config.json"
    assert json.loads(finetuned.read_text())["model_type"] == "bert"


def test_without_a_model_of_its_own_the_classifier_has_the_ensembles(finished: Make) -> None:
    units = planned(finished())
    bases = {
        units[name].unit.base
        for name in ("distill/classifier", "distill/baseline", "gen-0/finetune/just-1")
    }
    assert len(bases) == 1


def test_gold_labels_are_not_read_without_a_weight(tiny_settings: Make) -> None:
    def unit(**sections: Any) -> DistillClassifier:
        found = planned(tiny_settings(**sections))["distill/classifier"].unit
        assert isinstance(found, DistillClassifier)
        return found

    assert unit().labelled is not None
    assert unit().distillation.gold_weight == 0.3
    assert unit(distill={"gold_weight": 0.0}).labelled is None
    zero_shot = unit(data={"labelled": ""})
    assert (zero_shot.labelled, zero_shot.distillation.gold_weight) == (None, 0.0)


def test_there_is_no_baseline_without_labels(tiny_settings: Make) -> None:
    assert "distill/baseline" in planned(tiny_settings())
    assert "distill/baseline" not in planned(tiny_settings(data={"labelled": ""}))
    assert "distill/baseline" not in planned(tiny_settings(baseline={"enabled": False}))


def test_how_the_pool_is_cut_into_shards_does_not_change_the_classifier(finished: Make) -> None:
    runs = [finished(), finished(data={"shard_rows": 10})]
    rows = read_rows(Path(runs[0].output) / "prepare/test/table.parquet")
    one, other = (
        Classifier(result(s, "distill/classifier").dir, CPU).predict_proba(rows) for s in runs
    )
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert result(runs[1], "distill/classifier").info["rows"] == 16  # that 4 steps see


class FakeClassifier:
    """Keeps what it is trained on."""

    def __init__(self, *_: Any, **options: Any):
        self.seed = options["seed"]

    new = classmethod(lambda cls, *values, **options: cls(*values, **options))

    def distill(self, pool: SoftLabelled, labelled: Any, *_: Any, **options: Any) -> float:
        type(self).pool, type(self).labelled = pool, labelled  # type: ignore[attr-defined]
        assert options["seed"] == self.seed
        return 0.5

    def calibrate(self, rows: Any, confidence: float) -> float:
        """Nothing is changed."""
        assert 0 <= confidence <= 1
        return 1.0

    def save(self, folder: Path) -> None:
        """Nothing is left."""


@pytest.mark.parametrize("sizes", [[40], [7, 1, 30, 2]])
def test_only_rows_that_the_steps_see_are_read_each_with_its_own_soft_label(
    finished: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    for name in ("pool", "soft"):
        (tmp_path / name).mkdir()
    start = 0
    for n, size in enumerate(sizes):
        ids = pa.array(range(start, start + size))
        texts = [f"text {i}" for i in ids.to_pylist()]
        pq.write_table(pa.table({"id": ids, "text": texts}), tmp_path / "pool" / part_name(n))
        sad = np.arange(start, start + size) / 100
        probs = np.stack([sad, 1 - sad], axis=1)
        write_soft_labels(tmp_path / "soft" / part_name(n), ids, probs, ("sad", "happy"))
        start += size
    unit = planned(finished())["distill/classifier"].unit
    assert isinstance(unit, DistillClassifier)
    steps, size = unit.distillation.steps, unit.distillation.optimisation.batch_size
    soft, pool = Result(tmp_path / "soft", "", {"rows": 40}), Result(tmp_path / "pool", "", {})
    monkeypatch.setattr(classifier, "Classifier", FakeClassifier)
    info = replace(unit, soft=soft, pool=pool).work(tmp_path, CPU)
    found: SoftLabelled = FakeClassifier.pool  # type: ignore[attr-defined]
    assert info == {"rows": 16, "steps": 4, "loss": 0.5, "temperature": 1.0}
    assert len(found.rows) == len(found.probs) == steps * size == 16
    for step, batch in enumerate(found.batches):
        rows = batch_rows(40, size, seed=seed_from("distill"), step=step)
        assert [found.rows[n]["id"] for n in batch] == rows
        assert found.probs[batch, 0] == pytest.approx(np.array(rows) / 100)
    assert len(FakeClassifier.labelled.rows) == 8  # type: ignore[attr-defined]


def test_a_stopped_distillation_resumes_from_its_checkpoint(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: dict[str, Any] = {
        "distill": {"steps": 8},
        "baseline": {"enabled": False},
        "machine": {"checkpoint_seconds": 0.0},
    }
    whole, stopped = tiny_settings(**slow, output=str(tmp_path / "whole")), tiny_settings(**slow)
    run(whole, until="distill")
    run(stopped, until="ensemble")
    schedule, steps = training._schedule, []

    def stops(step: int, total: int, warmup: float) -> float:
        steps.append(step)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return schedule(step, total, warmup)

    monkeypatch.setattr(training, "_schedule", stops)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    (killed,) = Path(stopped.output).glob("distill/.partial-*")
    (killed / training.PARTIAL).write_bytes(b"")  # and the resumed run writes no other
    run(tiny_settings(**slow | {"machine": {"checkpoint_seconds": 600.0}}), until="distill")
    assert steps == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    files = [Path(s.output) / "distill/classifier/model.safetensors" for s in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(Path(stopped.output).rglob("*checkpoint.safetensors*"))


def test_idle_workers_are_released_before_the_distillation(
    tiny_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[bool] = []
    monkeypatch.setattr(
        "pet_pipeline.stages.distill.release_workers", lambda: released.append(True)
    )
    planned(tiny_settings())
    assert released == []
    run(tiny_settings(machine={"jobs": 2}), until="distill")
    assert released == [True]
