"""Two runs on the same rows: differences, their intervals, McNemar's test, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pet_pipeline.errors import UserError
from pet_pipeline.metrics import METRICS
from pet_pipeline.run_comparison import (
    Comparison,
    compare_predictions,
    difference,
    probability,
    read_predictions,
)

GOLD = ["sad"] * 6 + ["happy"] * 4
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """A function that writes the predictions of a run, and returns its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pet_pipeline.run_comparison.RESAMPLES", 20)

    def write(
        name: str, *, metric: str = "", labels: tuple[str, ...] = ("sad", "happy"), **columns: Any
    ) -> Path:
        folder = Path(name) / "evaluate" / "all"
        folder.mkdir(parents=True)
        table = {"id": list(range(len(GOLD))), "label": GOLD, **columns}
        pq.write_table(pa.table(table), folder / "predictions.parquet")
        if metric:
            metrics = {"metric": metric, "labels": labels, "test_rows": len(GOLD), "systems": []}
            (folder / "metrics.json").write_text(json.dumps({**metrics, "generations": 1}))
        return Path(name)

    return write


def compared(first: Path, second: Path, *systems: str) -> Comparison:
    return compare_predictions(read_predictions(first), read_predictions(second), systems)


def refused(first: Path, second: Path, *systems: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        compared(first, second, *systems)
    return error.value.problems


ALL_SAD = ["sad"] * 10
ONE_WRONG = ["happy", *GOLD[1:]]


def test_systems_of_both_runs_are_compared(save: Save) -> None:
    a = save("a", classifier=ALL_SAD, ensemble=GOLD, classifier_confidence=[0.5] * 10)
    b = save("b", classifier=ONE_WRONG, baseline=GOLD)
    comparison = compared(a, b)
    (system,) = comparison.systems
    assert (comparison.first, comparison.second, comparison.rows) == ("a", "b", 10)
    assert (system.system, system.rows_that_differ) == ("classifier", 5)
    assert (system.right_in_first_alone, system.right_in_second_alone) == (1, 4)
    assert system.p_value == pytest.approx(binomtest(1, 5).pvalue)
    (accuracy,) = system.differences
    assert (accuracy.metric, accuracy.first, accuracy.second) == ("accuracy", 0.6, 0.9)
    assert accuracy.difference == pytest.approx(0.3)
    assert accuracy.low < accuracy.difference < accuracy.high


def test_rows_are_matched_by_id(save: Save) -> None:
    a = save("a", classifier=ONE_WRONG)
    b = save(
        "b", id=[str(n) for n in range(9, -1, -1)], label=GOLD[::-1], classifier=ONE_WRONG[::-1]
    )
    (system,) = compared(a, b).systems
    assert system.rows_that_differ == 0
    assert system.sentence == "a and b predict the same label for every row."


def test_named_systems_and_files_are_compared(save: Save) -> None:
    file = save("a", **{"it_was-1": ALL_SAD}) / "evaluate" / "all" / "predictions.parquet"
    b = save("b", **{"it_was-1": GOLD, "classifier": GOLD})
    assert [s.system for s in compared(file, b, "it_was-1").systems] == ["it_was-1"]
    assert compared(file.parent, b, "it_was-1").first == str(file.parent)


@pytest.mark.parametrize(
    ("own", "others", "metrics"),
    [
        ({"metric": "f1"}, {"metric": "f1"}, ["accuracy", "f1 of 'happy'"]),
        ({"metric": "accuracy"}, {"metric": "accuracy"}, ["accuracy"]),
        ({"metric": "f1_macro"}, {"metric": "mcc"}, ["accuracy"]),
        ({"metric": "f1"}, {"metric": "f1", "labels": ("happy", "sad")}, ["accuracy"]),
        ({"metric": "f1"}, {}, ["accuracy"]),
    ],
)
def test_the_metric_of_both_tasks_is_compared(
    save: Save, own: dict[str, Any], others: dict[str, Any], metrics: list[str]
) -> None:
    a, b = save("a", classifier=ALL_SAD, **own), save("b", classifier=ONE_WRONG, **others)
    (system,) = compared(a, b).systems
    assert [d.metric for d in system.differences] == metrics


def test_f1_is_that_of_the_tasks_second_label(save: Save) -> None:
    a = save("a", metric="f1", labels=("happy", "sad"), classifier=ALL_SAD)
    b = save("b", metric="f1", labels=("happy", "sad"), classifier=GOLD)
    (system,) = compared(a, b).systems
    assert system.differences[1].first == pytest.approx(2 * 6 / (10 + 6))


@pytest.mark.parametrize(
    ("first_alone", "second_alone", "sentence"),
    [
        (
            3,
            5,
            "a and b do not differ in accuracy by more than chance would make: 3 rows are right "
            "in a alone and 5 in b alone (p = 0.727).",
        ),
        (
            1,
            9,
            "b is more accurate than a, by more than chance would make: 1 row is right in a alone "
            "and 9 in b alone (p = 0.021).",
        ),
        (
            12,
            0,
            "a is more accurate than b, by more than chance would make: 12 rows are right in a "
            "alone and 0 in b alone (p < 0.001).",
        ),
    ],
)
def test_what_it_means_is_said(
    save: Save, first_alone: int, second_alone: int, sentence: str
) -> None:
    n = first_alone + second_alone + 10
    rows: dict[str, Any] = {"id": list(range(n)), "label": ["sad"] * n}
    wrong = ["happy"] * second_alone
    a = save("a", **rows, classifier=[*wrong, *["sad"] * (n - len(wrong))])
    wrong = ["happy"] * first_alone
    b = save("b", **rows, classifier=[*["sad"] * (n - len(wrong)), *wrong])
    assert [system.sentence for system in compared(a, b).systems] == [sentence]


LABELS = st.integers(0, 2)


@settings(max_examples=20)
@given(
    rows=st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=12),
    metric=st.sampled_from(["accuracy", "f1_macro", "mcc"]),
)
def test_an_interval_contains_the_difference(rows: list[tuple[int, int, int]], metric: str) -> None:
    gold, first, second = (list(column) for column in zip(*rows, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pet_pipeline.run_comparison.RESAMPLES", 20)
        own, other, gap, low, high = difference(metric, gold, first, second)
    assert (own, other) == (METRICS[metric](gold, first), METRICS[metric](gold, second))
    assert -2 <= low <= gap == other - own <= high <= 2
    if first == second:
        assert (low, high) == (0, 0)


def test_the_interval_of_the_accuracy_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(3)
    gold = rng.integers(0, 2, 400)
    first, second = (np.where(rng.random(400) < p, gold, 1 - gold) for p in (0.8, 0.7))
    _, _, gap, low, high = difference("accuracy", gold, first, second)
    gaps = (second == gold).astype(float) - (first == gold)
    half = 1.96 * gaps.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((gap - half, gap + half), abs=0.012)


def test_other_rows_are_refused(save: Save) -> None:
    a = save("a", classifier=GOLD)
    fewer = save("fewer", id=[7, 8, 90], label=["happy"] * 3, classifier=["happy"] * 3)
    others = save("others", label=["happy", "happy", *GOLD[2:]], classifier=GOLD)
    advice = "; compare runs with the same test table"
    assert refused(a, fewer) == (
        f"not the same test rows: a has 10, fewer has 3, and 2 ids are in both{advice}",
    )
    assert refused(a, others) == (
        "not the same test rows: 2 of 10 have another label; row 0 is 'sad' in a and 'happy' in "
        f"others{advice}",
    )


def test_systems_that_are_not_there(save: Save) -> None:
    a, b = save("a", classifier=GOLD), save("b", **{"just-1": GOLD, "ensemble": GOLD})
    assert refused(a, b) == ("no system of both: a has 'classifier'; b has 'just-1', 'ensemble'",)
    assert refused(a, b, "clasifier") == (
        "--system clasifier: a has no such system; did you mean 'classifier'?",
        "--system clasifier: b has no such system; there are 'just-1', 'ensemble'",
    )


def test_what_has_no_predictions(save: Save) -> None:
    a = save("runs", classifier=GOLD)
    Path("empty").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), "pool.parquet")
    Path("broken.parquet").write_text("no table")
    assert refused(a, Path("rums")) == ("rums: no such run; did you mean 'runs'?",)
    assert refused(Path("empty"), a) == (
        "empty: no predictions of a test table; give the folder of a run that is finished and has "
        "a test table, --test FILE",
    )
    what = "; give the folder of a run, or its predictions.parquet"
    assert refused(a, Path("pool.parquet")) == (
        f"pool.parquet: no column 'id'{what}",
        f"pool.parquet: no column 'label'{what}",
    )
    (problem,) = refused(Path("broken.parquet"), a)
    assert problem.startswith("broken.parquet: cannot be read: ")


def test_probabilities_are_never_shown_as_zero() -> None:
    assert probability(0.0009) == "< 0.001"
    assert probability(0.001) == "= 0.001"
