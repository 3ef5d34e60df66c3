"""Soft labels of the pool: the weighted mean of the models, in the pool's order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import QUICK, Make, planned, result
from scipy.special import softmax
from testing import CPU, rows, todo

from pet_pipeline.combining import (
    Combination,
    expected_accuracy,
    fit_combination,
    fit_temperature,
    pairwise_agreement,
)
from pet_pipeline.config import Settings
from pet_pipeline.stages.ensemble import Combine, Member, read_ensemble
from pet_pipeline.tables import labels_of, part_name, read_probs, read_scores, write_scores
from pet_pipeline.units import Result

NAMES = ["it_was-1", "just-1", "mood-1"]
LABELS = ("sad", "happy")
FITTED: dict[str, Any] = {"ensemble": {"weights": "fitted", "folds": 2}, **QUICK}


def soft(settings: Settings, generation: int = 0) -> list[dict[str, Any]]:
    folder = Path(settings.output) / f"gen-{generation}" / "ensemble" / "all"
    return [row for file in sorted(folder.glob("part-*")) for row in rows(file)]


def test_soft_labels_are_in_the_pools_order(finished: Make, tiny_tables: dict[str, str]) -> None:
    settings = finished(data={"shard_rows": 10})
    labels = soft(settings)
    assert [row["id"] for row in labels] == pq.read_table(tiny_tables["pool"])["id"].to_pylist()
    for row in labels:
        assert sum(row["probs"]) == pytest.approx(1, abs=1e-5)
        assert row["confidence"] == pytest.approx(max(row["probs"]))
        assert row["label"] == ("sad", "happy")[int(np.argmax(row["probs"]))]
    info = result(settings, "gen-0/ensemble/all").info
    assert info["rows"] == 24
    confidences = [row["confidence"] for row in labels]
    assert info["mean_confidence"] == pytest.approx(np.mean(confidences), abs=1e-6)
    assert len(list((Path(settings.output) / "gen-0/ensemble/all").glob("part-*"))) == 3


@pytest.mark.parametrize("weights", ["uniform", "wmean", "fitted"])
def test_soft_labels_are_the_weighted_mean_of_the_models(finished: Make, weights: str) -> None:
    settings = finished(ensemble={"weights": weights, "folds": 2}, **QUICK)
    root = Path(settings.output) / "gen-0"
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    scores = [read_scores(root / f"annotate/{n}-00000/scores.parquet")[1] for n in summary.models]
    mean = np.average(scores, axis=0, weights=summary.weights) / summary.temperature
    probs = read_probs(root / "ensemble/all/part-00000.parquet")
    np.testing.assert_allclose(probs, softmax(mean, axis=-1), atol=1e-6)
    np.testing.assert_allclose(probs, summary.combination.soft_labels(scores), atol=1e-6)
    assert summary.models == NAMES
    assert sum(summary.weights) == pytest.approx(1)
    if weights == "uniform":
        assert summary.weights == pytest.approx([1 / 3] * 3)
    if weights == "wmean":
        untuned = [
            result(settings, f"gen-0/finetune/{n}").info["untuned_accuracy"] for n in summary.models
        ]
        np.testing.assert_allclose(summary.weights, np.array(untuned) / sum(untuned), atol=1e-6)
    if weights == "fitted":
        assert summary.temperature != 1.0
    assert summary.rows == sum(summary.label_counts.values()) == sum(summary.entropy.counts) == 24
    assert np.diag(summary.agreement).tolist() == [1, 1, 1]
    assert len(summary.disputed) == 20


def test_fitted_weights_are_those_of_the_out_of_fold_scores(finished: Make) -> None:
    settings = finished(**FITTED)
    gold = labels_of(Path(settings.output) / "prepare/labelled/table.parquet", ("sad", "happy"))
    held_out = np.zeros((3, 8, 2))
    for n, name in enumerate(("it_was", "just", "mood")):
        for fold in range(2):
            unit = result(settings, f"gen-0/crossfit/{name}-fold-{fold}")
            ids, scores = read_scores(unit.dir / "scores.parquet")
            held_out[n, ids.to_pylist()] = scores
    expected = fit_combination(held_out, gold)
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    assert summary.weights == pytest.approx(expected.weights, abs=1e-4)
    assert summary.temperature == pytest.approx(expected.temperature, abs=1e-4)


def test_weights_can_be_fitted_on_a_development_table(
    finished: Make, tiny_tables: dict[str, str]
) -> None:
    settings = finished(
        data={"development": tiny_tables["development"]},
        ensemble={"weights": "fitted", "fit_on": "development"},
        **QUICK,
    )
    root = Path(settings.output)
    assert not (root / "gen-0/crossfit").exists()
    gold = labels_of(root / "prepare/development/table.parquet", ("sad", "happy"))
    files = [root / f"gen-0/annotate/{name}-development/scores.parquet" for name in NAMES]
    expected = fit_combination(np.stack([read_scores(file)[1] for file in files]), gold)
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    assert summary.weights == pytest.approx(expected.weights, abs=1e-4)
    assert summary.temperature == pytest.approx(expected.temperature, abs=1e-4)


def test_a_development_table_changes_nothing_unless_a_setting_says_so(
    finished: Make, tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    data = {"development": tiny_tables["development"]}
    names = todo(tiny_settings(output=finished().output, data=data))
    assert names == [
        "prepare/development",
        "prepare/data",
        *(f"encode/{pattern}-development" for pattern in ("it_was", "just", "mood")),
        *(f"gen-0/annotate/{name}-development" for name in NAMES),
        "report",
    ]


def combined(folder: Path, members: tuple[tuple[str, str], ...], *, shards: int = 2) -> Combine:
    """A unit over random scores of members: (name, whose folds it shares)."""

    def written(name: str, ids: list[int], seed: int) -> Result:
        (folder / name).mkdir(exist_ok=True)
        values = np.random.default_rng(seed).normal(size=(len(ids), 2), scale=3)
        write_scores(folder / name / "scores.parquet", pa.array(ids), values, ("a", "b"))
        return Result(folder / name, name, {"rows": len(ids)})

    (folder / "pool").mkdir()
    for shard in range(shards):
        ids = [f"{shard}-{n}" for n in range(5)]
        table = pa.table({"id": ids, "text": [f"text {i}" for i in ids]})
        pq.write_table(table, folder / "pool" / part_name(shard))
    (folder / "gold").mkdir()
    labels = ["a", "b", "b", "a", "b", "a"]
    pq.write_table(pa.table({"label": labels}), folder / "gold" / "table.parquet")
    made = []
    for number, (name, group) in enumerate(members):
        seed = sum(map(ord, group))
        folds = (
            written(f"{group}-fold-0", [4, 0, 2], seed),
            written(f"{group}-fold-1", [1, 5, 3], seed + 1),
        )
        parts = tuple(
            written(f"{name}-{n}", list(range(5)), 100 * number + n) for n in range(shards)
        )
        made.append(Member(name, Result(folder, name, {}), parts, folds))
    return Combine(
        ("a", "b"),
        ("text",),
        Result(folder / "pool", "pool", {}),
        tuple(made),
        "fitted",
        Result(folder / "gold", "gold", {}),
    )


def test_models_with_the_same_folds_share_a_weight(tmp_path: Path) -> None:
    groups = (("p-1", "p"), ("q-1", "q"), ("p-2", "p"))
    unit = combined(tmp_path, groups)
    out = tmp_path / "out"
    out.mkdir()
    unit.work(out, CPU)
    summary = read_ensemble(Result(out, "", {}))
    held_out = []
    for group in ("p", "q"):
        values = np.zeros((6, 2))
        for fold in range(2):
            ids, scores = read_scores(tmp_path / f"{group}-fold-{fold}" / "scores.parquet")
            values[ids.to_pylist()] = scores
        held_out.append(values)
    expected = fit_combination(np.stack(held_out), [0, 1, 1, 0, 1, 0])
    p, q = expected.weights
    assert summary.weights == pytest.approx([p / 2, q, p / 2], abs=1e-6)
    assert summary.temperature == pytest.approx(expected.temperature, abs=1e-6)
    assert p != pytest.approx(q, abs=1e-3)


def test_the_written_combination_makes_the_written_soft_labels(tmp_path: Path) -> None:
    unit = combined(tmp_path, (("p-1", "p"), ("q-1", "q")))
    out = tmp_path / "out"
    out.mkdir()
    info = unit.work(out, CPU)
    summary = read_ensemble(Result(out, "", {}))
    assert isinstance(summary.combination, Combination)
    assert info["rows"] == summary.rows == 10
    for shard in range(2):
        scores = [
            read_scores(tmp_path / f"{n}-{shard}" / "scores.parquet")[1] for n in ("p-1", "q-1")
        ]
        np.testing.assert_allclose(
            read_probs(out / part_name(shard)), summary.combination.soft_labels(scores), atol=1e-6
        )


def test_accuracies_are_those_of_the_untuned_models(tmp_path: Path) -> None:
    unit = combined(tmp_path, (("p-1", "p"), ("q-1", "q"), ("r-1", "r")))
    members = tuple(
        replace(member, model=Result(tmp_path, member.name, {"untuned_accuracy": accuracy}))
        for member, accuracy in zip(unit.members, (0.5, 0.0, 0.25), strict=True)
    )
    out = tmp_path / "out"
    out.mkdir()
    replace(unit, members=members, weighting="wmean", gold=None, temperature=1.5).work(out, CPU)
    summary = read_ensemble(Result(out, "", {}))
    assert summary.weights == pytest.approx([2 / 3, 0, 1 / 3], abs=1e-6)
    assert summary.temperature == 1.5
    assert summary.expected.accuracy is None


def test_an_ensemble_depends_on_its_models_and_on_what_it_is_fitted_on(finished: Make) -> None:
    units = planned(finished(**FITTED))
    unit = units["gen-0/ensemble/all"].unit
    assert isinstance(unit, Combine)
    for member in unit.members:
        assert member.model.key == units[f"gen-0/finetune/{member.name}"].key
        folds = [units[f"gen-0/crossfit/{member.name[:-2]}-fold-{fold}"].key for fold in range(2)]
        assert [fold.key for fold in member.held_out] == folds
    assert unit.gold is not None
    assert unit.gold.key == units["prepare/labelled"].key


def test_by_default_an_ensemble_is_as_sure_as_it_can_expect_to_be_right(finished: Make) -> None:
    settings = finished(ensemble={"temperature_folds": 2}, **QUICK)
    root = Path(settings.output) / "gen-0"
    summary = read_ensemble(result(settings, "gen-0/ensemble/all"))
    expected = summary.expected
    scores = [read_scores(root / f"annotate/{n}-00000/scores.parquet")[1] for n in NAMES]
    assert expected.agreement == pytest.approx(pairwise_agreement(np.stack(scores)))
    gold = np.array(labels_of(Path(settings.output) / "prepare/labelled/table.parquet", LABELS))
    correct = 0
    for name in ("it_was-fold-0", "just-fold-1"):
        numbers, held_out = read_scores(root / "crossfit" / name / "scores.parquet")
        correct += int((held_out.argmax(1) == gold[numbers.to_pylist()]).sum())
    assert (expected.correct, expected.held_out_rows) == (correct, 8)
    assert expected.accuracy == expected_accuracy(
        expected.agreement, correct, 8, n_labels=2, fraction=0.5
    )
    wanted = fit_temperature(np.mean(scores, axis=0), expected.accuracy or 0)
    assert summary.temperature == pytest.approx(wanted, rel=1e-4)


def test_one_model_without_folds_keeps_its_scores(tmp_path: Path) -> None:
    unit = replace(combined(tmp_path, (("p-1", "p"),)), weighting="uniform", gold=None)
    out = tmp_path / "out"
    out.mkdir()
    unit.work(out, CPU)
    summary = read_ensemble(Result(out, "", {}))
    assert (summary.temperature, summary.expected.accuracy) == (1.0, None)


def test_rows_that_say_little_of_the_pool_are_not_counted(tmp_path: Path) -> None:
    """The only row of a label, and rows that were chosen because models disagree on them."""
    table = {"id": ["1", "2", "3", "pool:7"], "text": ["t"] * 4, "label": ["a", "b", "b", "b"]}
    (tmp_path / "labelled").mkdir()
    pq.write_table(pa.table(table), tmp_path / "labelled" / "table.parquet")
    (tmp_path / "fold").mkdir()
    right = np.eye(2)[[0, 1, 1, 1]]
    write_scores(tmp_path / "fold" / "scores.parquet", pa.array(range(4)), right, ("a", "b"))
    unit = replace(
        combined(tmp_path, (("p-1", "p"), ("q-1", "q"))),
        weighting="uniform",
        gold=None,
        in_turn=(Result(tmp_path / "fold", "f", {"rows": 4}),),
        labelled=Result(tmp_path / "labelled", "l", {"rows": 4}),
    )
    out = tmp_path / "out"
    out.mkdir()
    unit.work(out, CPU)
    expected = read_ensemble(Result(out, "", {})).expected
    assert (expected.correct, expected.held_out_rows) == (2, 2)
