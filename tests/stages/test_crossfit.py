"""Out-of-fold scores: by models tuned and read as the real ones, in every generation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import QUICK, Make, planned, result
from testing import CPU, todo

from pet_pipeline.batches import fold_rows
from pet_pipeline.config import Settings
from pet_pipeline.stages.annotate import Annotate
from pet_pipeline.stages.calibrate import PriorSource
from pet_pipeline.stages.crossfit import CrossFit
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.finetune import FineTune
from pet_pipeline.tables import read_scores

PATTERNS = ("it_was", "just", "mood")
FOLDS: dict[str, Any] = {"ensemble": {"weights": "fitted", "folds": 2}, **QUICK}


def fold_scores(unit: CrossFit, out: Path) -> np.ndarray:
    """What a unit makes, in a folder of its own."""
    out.mkdir()
    unit.work(out, CPU)
    return read_scores(out / "scores.parquet")[1]


@pytest.mark.parametrize(("folds", "gold"), [(2, [0, 1, 1, 0, 1]), (4, [0, 0, 1])])
def test_every_row_is_held_out_once(folds: int, gold: list[int]) -> None:
    held = [fold_rows(gold, folds, fold) for fold in range(folds)]
    assert sorted(row for fold in held for row in fold) == list(range(len(gold)))


def test_folds_only_where_weights_are_fitted_on_them(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    def folds(**sections: Any) -> list[str]:
        return [name for name in planned(tiny_settings(**sections)) if "crossfit" in name]

    assert folds(**FOLDS) == [
        f"gen-0/crossfit/{pattern}-fold-{fold}" for pattern in PATTERNS for fold in range(2)
    ]
    assert folds() == folds(ensemble={"weights": "wmean"}) == []
    on_development = {"weights": "fitted", "fit_on": "development"}
    data = {"development": tiny_tables["development"]}
    assert folds(ensemble=on_development, data=data) == []


def test_the_temperature_takes_one_fold_of_each_pattern_in_turn(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    def folds(**sections: Any) -> list[str]:
        return [name for name in planned(tiny_settings(**sections)) if "crossfit" in name]

    assert folds(ensemble={"temperature_folds": 4}) == [
        f"gen-0/crossfit/{name}" for name in ("it_was-fold-0", "just-fold-1", "mood-fold-2")
    ] + ["gen-0/crossfit/it_was-fold-3"]
    assert folds(ensemble={"temperature_folds": 4, "temperature": 1.0}) == []
    assert folds(ensemble={"temperature_folds": 4}, finetune={"steps": 0}) == []
    data = {"labelled": "", "pool": tiny_tables["pool"]}
    assert folds(ensemble={"temperature_folds": 4}, data=data) == []


def test_patterns_that_were_found_on_the_rows_are_left_out(tiny_settings: Make) -> None:
    sections = {"ensemble": {"temperature_folds": 3}, "search": {"templates": True, "keep": 2}}
    names = [name for name in planned(tiny_settings(**sections)) if "crossfit" in name]
    assert len(names) == 3
    assert all(name.partition("-fold")[0].endswith(PATTERNS) for name in names)
    replaced = {**sections["search"], "use": "replace"}
    units = planned(tiny_settings(**{**sections, "search": replaced}))
    assert not any("crossfit" in name for name in units)


def test_rows_that_are_the_only_ones_of_their_label_hold_nothing_out(
    finished: Make, tmp_path: Path
) -> None:
    settings = finished(data={"k": 1}, ensemble={"temperature_folds": 2}, **QUICK)
    assert result(settings, "gen-0/crossfit/it_was-fold-0").info == {"rows": 0}
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    assert summary.expected.held_out_rows == 0
    assert summary.expected.correct == 0


def test_folds_are_tuned_and_read_as_the_real_models_are(tiny_settings: Make) -> None:
    units = planned(
        tiny_settings(
            finetune={"mlm_weight": 0.1, "seeds": [3, 4]},
            annotate={"decoding": "parallel"},
            calibration={"method": "contextual", "prior": "pool"},
            demonstrations={"enabled": True, "draws": 3, "max_tokens": 120},
            ipet={"generations": 1},
            data={"shard_rows": 10},
            **FOLDS,
        )
    )
    for generation in (0, 1):
        for pattern in PATTERNS:
            real = units[f"gen-{generation}/finetune/{pattern}-3"].unit
            reader = units[f"gen-{generation}/annotate/{pattern}-3-00000"].unit
            prior = units[f"gen-{generation}/calibrate/{pattern}-3"].unit
            assert isinstance(real, FineTune)
            assert isinstance(reader, Annotate)
            for fold in range(2):
                unit = units[f"gen-{generation}/crossfit/{pattern}-fold-{fold}"].unit
                assert isinstance(unit, CrossFit)
                assert unit.real == real
                assert unit.decoding == reader.reader.decoding
                assert unit.draws == reader.reader.draws
                assert unit.prior == prior.source
                assert len(real.texts) == 3
                assert (real.added is not None) == (generation == 1)


@pytest.fixture
def grown(finished: Make, long_words: str) -> Settings:
    """A run of two generations, with folds in each."""
    return finished(
        until="gen-1/crossfit",
        task=long_words,
        ipet={"generations": 1, "scale": 2.0},
        finetune={"mlm_weight": 0.3, "steps": 6},
        learning_rate=0.003,
        **FOLDS,
    )


def test_out_of_fold_scores_name_each_labelled_row_once(grown: Settings) -> None:
    for generation in (0, 1):
        numbers: list[int] = []
        for fold in range(2):
            unit = result(grown, f"gen-{generation}/crossfit/back-fold-{fold}")
            ids, scores = read_scores(unit.dir / "scores.parquet")
            assert scores.shape == (len(ids), 2)
            assert unit.info["rows"] == len(ids)
            right = scores.argmax(1) == (np.array(ids.to_pylist()) >= 4)
            assert unit.info["accuracy"] == pytest.approx(right.mean())
            numbers += ids.to_pylist()
        assert sorted(numbers) == list(range(8))


@pytest.mark.parametrize(
    ("field", "value"),
    [("decoding", "parallel"), ("texts", ()), ("added", None), ("tuning", None)],
)
def test_how_the_real_models_are_made_changes_the_scores_of_the_folds(
    grown: Settings, tmp_path: Path, field: str, value: Any
) -> None:
    unit = planned(grown)["gen-1/crossfit/back-fold-0"].unit
    assert isinstance(unit, CrossFit)
    own = field == "decoding"
    assert getattr(unit if own else unit.real, field) != value
    done = read_scores(result(grown, "gen-1/crossfit/back-fold-0").dir / "scores.parquet")[1]
    other = {field: value} if own else {"real": replace(unit.real, **{field: value})}
    changed = fold_scores(replace(unit, **other), tmp_path / "changed")
    assert np.abs(changed - done).max() > 1e-5


def test_work_on_a_fold_is_reproducible(grown: Settings, tmp_path: Path) -> None:
    unit = planned(grown)["gen-1/crossfit/back-fold-0"].unit
    assert isinstance(unit, CrossFit)
    done = read_scores(result(grown, "gen-1/crossfit/back-fold-0").dir / "scores.parquet")[1]
    np.testing.assert_allclose(fold_scores(unit, tmp_path / "again"), done, atol=1e-6)


def test_a_prior_is_measured_for_each_fold(grown: Settings, tmp_path: Path) -> None:
    unit = planned(grown)["gen-0/crossfit/back-fold-0"].unit
    assert isinstance(unit, CrossFit)
    done = read_scores(result(grown, "gen-0/crossfit/back-fold-0").dir / "scores.parquet")[1]
    source = PriorSource("contextual", ("text",))
    apart = fold_scores(replace(unit, prior=source), tmp_path / "calibrated") - done
    assert apart == pytest.approx(np.tile(apart[:1], (len(apart), 1)), abs=1e-4)
    assert np.abs(apart[0, 0] - apart[0, 1]) > 1e-4


def test_folds_of_a_generation_depend_on_the_rows_that_were_added(grown: Settings) -> None:
    units = planned(grown)
    for fold in range(2):
        unit = units[f"gen-1/crossfit/back-fold-{fold}"].unit
        assert isinstance(unit, CrossFit)
        assert unit.real.added is not None
        assert unit.real.added.key == units["gen-1/grow/back-1"].key
        assert unit.real.added.info["rows"] > 0
    assert units["gen-0/crossfit/back-fold-0"].key != units["gen-1/crossfit/back-fold-0"].key


@pytest.mark.parametrize(
    "change",
    [
        {"annotate": {"decoding": "parallel"}},
        {"finetune": {"mlm_weight": 0.3, "steps": 7}},
        {"finetune": {"mlm_weight": 0.2, "steps": 6}},
        {"calibration": {"method": "contextual"}},
    ],
)
def test_folds_are_stale_when_the_real_models_are(
    grown: Settings, tiny_settings: Make, change: dict[str, Any]
) -> None:
    sections: dict[str, Any] = {
        "task": grown.task,
        "ipet": {"generations": 1, "scale": 2.0},
        "finetune": {"mlm_weight": 0.3, "steps": 6},
        "learning_rate": 0.003,
        **FOLDS,
    }
    names = todo(tiny_settings(output=grown.output, **{**sections, **change}))
    assert {f"gen-{k}/crossfit/back-fold-{n}" for k in (0, 1) for n in (0, 1)} <= set(names)
    assert not [
        name
        for name in todo(tiny_settings(output=grown.output, **sections))
        if "crossfit" in name or "finetune" in name
    ]


def test_a_fold_without_rows_is_empty(tiny_settings: Make, finished: Make, tmp_path: Path) -> None:
    settings = finished()
    folds = tiny_settings(output=settings.output, ensemble={"weights": "fitted", "folds": 9})
    unit = planned(folds)["gen-0/crossfit/just-fold-8"].unit
    assert unit.work(tmp_path, CPU) == {"rows": 0}
    assert list(tmp_path.iterdir()) == []
