"""Metrics, intervals and calibration, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.metrics import METRICS, calibration_error, confusion, measure, reliability

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@given(PAIRS)
def test_f1_and_mcc_by_their_definitions(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = zip(*pairs, strict=True)
    tp, fp, fn, tn = (pairs.count(p) for p in ((1, 1), (0, 1), (1, 0), (0, 0)))
    f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    assert METRICS["f1"](gold, predicted) == pytest.approx(f1)
    below = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    mcc = (tp * tn - fp * fn) / below if below else 0.0
    assert METRICS["mcc"](gold, predicted) == pytest.approx(mcc)
    assert confusion(gold, predicted, 2) == [[tn, fp], [fn, tp]]


def test_wilsons_interval_for_accuracy() -> None:
    found = measure("accuracy", [1] * 10, [1] * 8 + [0] * 2)
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (0.8, 0.4902, 0.9433)


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "mcc"])
def test_bootstrap_intervals_hold_the_value_and_do_not_vary(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.metrics.RESAMPLES", 200)
    rng = np.random.default_rng(1)
    gold = rng.integers(2, size=60)
    predicted = np.where(rng.random(60) < 0.8, gold, 1 - gold)
    found = measure(metric, gold, predicted)
    assert found.value == METRICS[metric](gold, predicted)
    assert found.low < found.value < found.high
    assert found == measure(metric, gold, predicted)
    many = measure(metric, np.tile(gold, 9), np.tile(predicted, 9))
    assert many.value == pytest.approx(found.value)
    assert many.high - many.low < (found.high - found.low) / 2


def test_a_metric_of_one_label_only() -> None:
    assert METRICS["mcc"]([0, 0], [0, 0]) == 0.0
    assert METRICS["f1"]([0, 0], [0, 0]) == 0.0
    assert METRICS["f1_macro"]([0, 0], [0, 0]) == 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_macro_f1_and_accuracy_by_their_definitions(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = zip(*pairs, strict=True)
    present = {*gold, *predicted}
    f1s = [2 * pairs.count((n, n)) / (gold.count(n) + predicted.count(n)) for n in sorted(present)]
    assert METRICS["f1_macro"](gold, predicted) == pytest.approx(sum(f1s) / len(f1s))
    right = sum(a == b for a, b in pairs)
    assert METRICS["accuracy"](gold, predicted) == pytest.approx(right / len(pairs))
    table = confusion(gold, predicted, 4)
    assert table == [[pairs.count((a, b)) for b in range(4)] for a in range(4)]


PROBS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=40).map(
    lambda rows: (np.array([[p, 1 - p] for p, _ in rows]), [label for _, label in rows])
)


@given(PROBS, st.integers(1, 20))
def test_calibration_error_is_the_gap_of_each_bin(
    given_rows: tuple[np.ndarray, list[int]], n_bins: int
) -> None:
    probs, gold = given_rows
    gaps: dict[int, float] = {}
    for row, label in zip(probs, gold, strict=True):
        n = min(int(row.max() * n_bins), n_bins - 1)
        gaps[n] = gaps.get(n, 0.0) + row.max() - (row.argmax() == label)
    expected = sum(abs(gap) for gap in gaps.values()) / len(gold)
    assert calibration_error(probs, gold, n_bins) == pytest.approx(expected)
    bins = reliability(probs, gold, n_bins)
    assert sum(b.rows for b in bins) == len(gold)
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)


def test_calibration_error_by_hand() -> None:
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.45, 0.55]])
    gold = [0, 1, 1, 1]
    # 0.95: half are right; 0.65 and 0.55: all are right
    assert calibration_error(probs, gold) == pytest.approx((2 * 0.45 + 0.35 + 0.45) / 4)
    bins = reliability(probs, gold)
    assert [(b.rows, round(b.accuracy, 2)) for b in bins] == [(1, 1.0), (1, 1.0), (2, 0.5)]
