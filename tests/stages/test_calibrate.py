"""The labels' prior: measured once for each model, on content-free texts or on the whole pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from planning import QUICK, Make, planned, result
from testing import CPU, todo

from pet_pipeline import load_task
from pet_pipeline.calibration import Prior, content_free_rows
from pet_pipeline.demonstrations import Rows
from pet_pipeline.encoded import Encoded, Role, read_encoded, write_encoded
from pet_pipeline.models import ModelFolder
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages import calibrate
from pet_pipeline.stages.calibrate import MeasurePrior, PriorSource, read_prior
from pet_pipeline.tables import read_scores, write_scores
from pet_pipeline.units import Result

NAMES = ("it_was-1", "just-1", "mood-1")
CALIBRATED: dict[str, Any] = {
    "calibration": {"method": "contextual", "prior": "pool"},
    "data": {"shard_rows": 5},
}


@pytest.mark.parametrize("prior", ["content-free", "pool"])
def test_a_prior_is_measured_once_for_each_model_and_not_for_each_shard(
    finished: Make, tiny_settings: Make, prior: str
) -> None:
    units = planned(
        tiny_settings(
            calibration={"method": "pmi", "prior": prior},
            data={"shard_rows": 5},
            ipet={"generations": 1},
        )
    )
    for generation in (0, 1):
        measured = [name for name in units if name.startswith(f"gen-{generation}/calibrate/")]
        assert measured == [f"gen-{generation}/calibrate/{name}" for name in NAMES]
        for name in NAMES:
            keys = {
                unit.unit.prior.key
                for path, unit in units.items()
                if path.startswith(f"gen-{generation}/annotate/{name}-")
            }
            assert keys == {units[f"gen-{generation}/calibrate/{name}"].key}
            model = units[f"gen-{generation}/calibrate/{name}"].unit.reader.model
            assert model.key == units[f"gen-{generation}/finetune/{name}"].key


class FakePvp:
    """Keeps the rows that a prior is measured on."""

    def __init__(self) -> None:
        self.measured: list[Rows] = []

    def rows(self, rows: list[dict[str, str]]) -> Rows:
        return Rows([Encoded.of([len(row["text"])], Role.TEXT) for row in rows])

    def measure_prior(self, rows: Rows, method: str, *, seed: int) -> Prior:
        self.measured.append(rows)
        return Prior(method, (float(seed),))


def shards_of(folder: Path, sizes: list[int]) -> tuple[list[Result], list[Result]]:
    """Rows of one token, their number in the pool, and embeddings that say it too."""
    encoded, vectors = [], []
    start = 0
    for n, size in enumerate(sizes):
        for kind, results in (("encoded", encoded), ("vectors", vectors)):
            (folder / f"{kind}-{n}").mkdir()
            results.append(Result(folder / f"{kind}-{n}", f"{kind}-{n}", {"rows": size}))
        numbers = range(start, start + size)
        ids = pa.array(numbers, pa.int64())
        tokens = [Encoded.of([number], Role.TEXT) for number in numbers]
        write_encoded(folder / f"encoded-{n}" / "tokens.parquet", ids, tokens)
        values = np.array(numbers, np.float32).reshape(-1, 1)
        write_scores(folder / f"vectors-{n}" / "vectors.parquet", ids, values, ())
        start += size
    return encoded, vectors


@pytest.mark.parametrize("similar", [False, True])
def test_the_pools_prior_is_measured_on_a_sample_of_all_its_shards(
    tmp_path: Path, similar: bool
) -> None:
    sizes = [70, 0, 90, 3, 400]
    encoded, vectors = shards_of(tmp_path, sizes)
    given = tuple(vectors) if similar else ()
    source = PriorSource("contextual", ("text",), tuple(encoded), given)
    pvp = FakePvp()
    assert source.measure(pvp, 5) == Prior("contextual", (5.0,))  # type: ignore[arg-type]
    source.measure(pvp, 6)  # type: ignore[arg-type]
    one, other = ([row.ids[0] for row in rows.encoded] for rows in pvp.measured)
    assert one == other  # the same sample, whichever draws of demonstrations
    assert len(set(one)) == calibrate.PRIOR_ROWS
    assert one == sorted(one)
    assert one != list(range(calibrate.PRIOR_ROWS))  # not the first rows
    per_shard = np.histogram(one, [0, 70, 160, 163, 563])[0]
    assert per_shard[[0, 1, 3]] == pytest.approx(
        np.array([70, 90, 400]) * calibrate.PRIOR_ROWS / 563, rel=0.5
    )
    found = pvp.measured[0].vectors
    assert (found is not None) == similar
    if found is not None:
        assert found[:, 0].tolist() == one


def test_a_small_pool_is_taken_whole(tmp_path: Path) -> None:
    encoded, _ = shards_of(tmp_path, [7, 6])
    pvp = FakePvp()
    PriorSource("pmi", ("text",), tuple(encoded)).measure(pvp, 0)  # type: ignore[arg-type]
    assert [row.ids[0] for row in pvp.measured[0].encoded] == list(range(13))


def test_content_free_rows_are_those_of_every_model() -> None:
    pvp = FakePvp()
    PriorSource("pmi", ("text",)).measure(pvp, 0)  # type: ignore[arg-type]
    lengths = [len(row["text"]) for row in content_free_rows(["text"])]
    assert [row.ids[0] for row in pvp.measured[0].encoded] == lengths


def test_a_prior_is_the_models_own_and_is_subtracted(finished: Make) -> None:
    settings = finished(until="annotate", **CALIBRATED)
    root = Path(settings.output)
    for pattern in load_task(settings.task).patterns:
        name = f"{pattern.name}-1"
        measured = result(settings, f"gen-0/calibrate/{name}")
        assert measured.info == {"method": "contextual"}
        model = ModelFolder(root / f"gen-0/finetune/{name}/model")
        pvp = Pvp.load(model, pattern, max_tokens=48, compute=CPU)
        shards = [
            read_encoded(root / f"encode/{pattern.name}-0000{n}/tokens.parquet")[1]
            for n in range(5)
        ]
        pool = Rows([row for rows in shards for row in rows])
        assert len(pool) == 24  # all of a small pool
        expected = pvp.measure_prior(pool, "contextual")
        assert read_prior(measured).log_prior == pytest.approx(expected.log_prior, abs=1e-5)
        scores = read_scores(root / f"gen-0/annotate/{name}-00003/scores.parquet")[1]
        plain = pvp.scores(Rows(shards[3]))
        np.testing.assert_allclose(scores, plain - np.array(expected.log_prior), atol=1e-4)


@pytest.mark.parametrize("method", ["contextual", "pmi"])
@pytest.mark.parametrize("prior", ["content-free", "pool"])
def test_in_context_learning_without_a_step(
    finished: Make, tiny_settings: Make, method: str, prior: str
) -> None:
    shared: dict[str, Any] = {
        "finetune": {"steps": 0},
        "demonstrations": {"enabled": True, "draws": 2, "max_tokens": 120},
        **QUICK,
    }
    raw = finished(**shared)
    calibrated = finished(calibration={"method": method, "prior": prior}, **shared)
    root = Path(calibrated.output)
    before, after = (
        read_scores(Path(s.output) / "gen-0/annotate/it_was-0-test/scores.parquet")[1]
        for s in (raw, calibrated)
    )
    assert not (root / "gen-0/finetune/it_was-0/model").exists()
    apart = before - after
    apart -= apart.mean(1, keepdims=True)  # constants of a row do not matter
    assert apart == pytest.approx(np.tile(apart[:1], (len(apart), 1)), abs=1e-3)
    assert np.abs(apart).max() > 1e-3
    assert todo(calibrated) == ["report"]


def test_other_settings_of_calibration_leave_the_models(
    finished: Make, tiny_settings: Make
) -> None:
    output = finished().output
    again = todo(tiny_settings(output=output, calibration={"method": "pmi"}))
    assert again[:4] == [
        *(f"gen-0/calibrate/{name}" for name in NAMES),
        "gen-0/annotate/it_was-1-00000",
    ]
    assert not [name for name in again if "finetune" in name]
    assert todo(tiny_settings(output=output, calibration={"prior": "pool"})) == ["report"]


def test_no_prior_is_measured_unless_asked(tiny_settings: Make) -> None:
    assert not [name for name in planned(tiny_settings()) if "calibrate" in name]


def test_what_a_prior_depends_on(tiny_settings: Make) -> None:
    def unit(**sections: Any) -> MeasurePrior:
        sections = {"calibration": {"method": "pmi", "prior": "pool"}, **sections}
        found = planned(tiny_settings(**sections))["gen-0/calibrate/just-1"].unit
        assert isinstance(found, MeasurePrior)
        return found

    assert len(unit(data={"shard_rows": 5}).source.encoded) == 5
    assert unit(annotate={"decoding": "parallel"}).reader.decoding == "parallel"
    assert unit(calibration={"method": "pmi"}).source == PriorSource("pmi", ("text",))
    assert unit().source.vectors == ()
    shown = unit(demonstrations={"enabled": True, "draws": 3, "max_tokens": 120})
    assert (shown.reader.draws, len(shown.source.vectors)) == (3, 1)
    assert shown.reader.labelled_vectors is not None
