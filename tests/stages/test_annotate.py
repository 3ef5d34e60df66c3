"""The models' scores of the pool and of the other tables: whose, in which order, in which shards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Make, planned, result
from testing import CPU, rows, run, todo

from pet_pipeline import load_task
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages import annotate, readers
from pet_pipeline.stages.results import LOADING
from pet_pipeline.tables import read_rows, read_scores

SHARDED = {"data": {"shard_rows": 10}}


def scores(settings: Any, name: str) -> np.ndarray:
    """Of a model, pool rows in their order or the rows of a table: "just-1", "just-1-test"."""
    parts = sorted((Path(settings.output) / "gen-0/annotate").glob(name))
    assert parts
    return np.concatenate([read_scores(part / "scores.parquet")[1] for part in parts])


@pytest.mark.parametrize(("part", "table"), [("00000", "pool"), ("test", "test")])
def test_scores_are_those_of_the_tuned_model(finished: Make, part: str, table: str) -> None:
    settings = finished()
    root = Path(settings.output)
    (file,) = (root / "prepare" / table).glob("*.parquet")
    for pattern in load_task(settings.task).patterns:
        model = ModelFolder(root / f"gen-0/finetune/{pattern.name}-1/model")
        pvp = Pvp.load(model, pattern, max_tokens=48, compute=CPU)
        unit = result(settings, f"gen-0/annotate/{pattern.name}-1-{part}")
        ids, found = read_scores(unit.dir / "scores.parquet")
        expected = read_rows(file)
        assert ids.to_pylist() == [row["id"] for row in expected]
        np.testing.assert_allclose(found, pvp.scores(expected), atol=1e-5)
        assert unit.info["rows"] == len(expected)
        assert unit.info["rows_per_second"] > 0


def test_shards_do_not_change_scores(finished: Make, tiny_settings: Make) -> None:
    one, many = finished(), finished(**SHARDED)
    names = [name for name in planned(many) if name.startswith("gen-0/annotate/just-1")]
    assert names == [
        f"gen-0/annotate/just-1-{part}" for part in ("00000", "00001", "00002", "test")
    ]
    found = [scores(settings, "just-1-0*") for settings in (one, many)]
    assert len(found[0]) == 24
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_the_budget_of_inference_batches_changes_no_prediction(
    finished: Make, tiny_settings: Make
) -> None:
    runs = [finished(machine={"batch_tokens": tokens}) for tokens in (60, 6000)]
    tables = [rows(Path(s.output) / "evaluate/all/predictions.parquet") for s in runs]
    assert tables[0] == tables[1]
    assert set(tables[0][0]) == {
        *("id", "label", "it_was-1", "just-1", "mood-1"),
        *("ensemble", "classifier", "baseline"),
        *("ensemble_confidence", "classifier_confidence", "baseline_confidence"),
    }
    for name in ("it_was-1-*", "just-1-*", "mood-1-*"):
        found = [scores(settings, name) for settings in runs]
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert todo(tiny_settings(output=runs[0].output, machine={"batch_tokens": 6000})) == ["report"]


def test_a_shard_costs_by_its_rows_once_they_are_known(finished: Make, tiny_settings: Make) -> None:
    name = "gen-0/annotate/just-1-00000"
    unknown = planned(tiny_settings())[name].unit.cost()
    settings = finished()
    known = planned(settings)[name].unit.cost()
    assert known - LOADING == result(settings, name).info["rows"] < unknown - LOADING


def test_the_decoding_is_not_part_of_the_tuning(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    again = todo(tiny_settings(output=output, annotate={"decoding": "parallel"}))
    assert again[0] == "gen-0/annotate/it_was-1-00000"
    assert not [name for name in again if "finetune" in name]


def test_the_model_is_released_after_the_last_shard(tiny_settings: Make) -> None:
    seen: list[int] = []
    load = readers._load

    class Watched:
        """The loaded model, and how many there are each time that one is asked for."""

        def __call__(self, *arguments: Any) -> Pvp:
            pvp = load(*arguments)
            seen.append(load.cache_info().currsize)
            return pvp

        def cache_clear(self) -> None:
            load.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_load", Watched())
        run(tiny_settings(), until="annotate")
    assert seen == [1] * 6  # one at a time
    assert load.cache_info().currsize == 0


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_a_model_is_loaded_once_for_its_shards(
    tiny_settings: Make, tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    settings = tiny_settings(data={"shard_rows": 5}, finetune={"method": method})
    run(settings, until="finetune")
    loaded: list[Path] = []
    load = MaskedLM.load

    def counted(base: Any, *options: Any) -> MaskedLM:
        loaded.append(base.path)
        return load(base, *options)

    monkeypatch.setattr(MaskedLM, "load", counted)
    run(settings, until="annotate")
    models = Path(settings.output) / "gen-0" / "finetune"
    tuned = [models / f"{pattern}-1" / "model" for pattern in ("it_was", "just", "mood")]
    assert loaded == (tuned if method == "full" else [tiny_mlm])


def test_a_base_that_another_adaptation_replaced_is_loaded_again(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "release", lambda: None)  # a worker keeps its last model

    def adapted(folder: str, rate: float) -> np.ndarray:
        adapt = {"text": "pool", "tokens": 500, "learning_rate": rate}
        output = str(tmp_path / folder)
        settings = tiny_settings(output=output, adapt=adapt, finetune={"method": "bitfit"})
        run(settings, until="annotate")
        return scores(settings, "just-1-test")

    first, second = (adapted("run", rate) for rate in (1e-2, 1e-3))
    readers.release()
    assert np.array_equal(adapted("another", 1e-3), second)
    assert np.abs(first - second).max() > 1e-4
    readers.release()


def test_a_unit_for_annotation_is_of_one_model_and_one_shard(finished: Make) -> None:
    units = planned(finished(**SHARDED))
    unit = units["gen-0/annotate/just-1-00001"].unit
    assert isinstance(unit, annotate.Annotate)
    assert unit.reader.model.key == units["gen-0/finetune/just-1"].key
    assert unit.encoded.key == units["encode/just-00001"].key
    assert unit.shard == 1
    assert unit.prior is unit.reader.examples is unit.vectors is None
    other = units["gen-0/annotate/just-1-00002"].unit
    assert dataclasses.replace(unit, encoded=other.encoded, shard=2) == other
