"""Metrics, intervals and calibration, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_pipeline.metrics import (
    METRICS,
    calibration_error,
    confusion,
    mean_and_sd,
    measure,
    metric_title,
    reliability,
)
from pet_pipeline.patterns import METRIC_NAMES

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
    accuracy = measure("accuracy", [1] * 10, [1] * 8 + [0] * 2, 2)
    assert (accuracy.value, round(accuracy.low, 4), round(accuracy.high, 4)) == (
        0.8,
        0.4902,
        0.9433,
    )


def test_patterns_know_every_metric() -> None:
    assert tuple(METRICS) == METRIC_NAMES


def test_a_title_says_which_label_f1_is_of() -> None:
    labels = ["sad", "it's"]
    assert {name: metric_title(name, labels) for name in METRICS} == {
        "accuracy": "accuracy",
        "f1": 'f1 of "it\'s"',
        "f1_macro": "f1_macro",
        "mcc": "mcc",
    }


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "mcc"])
def test_bootstrap_intervals_contain_the_value_and_do_not_vary(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.metrics.RESAMPLES", 200)
    rng = np.random.default_rng(1)
    gold = rng.integers(2, size=60)
    predicted = np.where(rng.random(60) < 0.8, gold, 1 - gold)
    few = measure(metric, gold, predicted, 2)
    assert few.value == METRICS[metric](gold, predicted)
    assert few.low < few.value < few.high
    assert few == measure(metric, gold, predicted, 2)
    many = measure(metric, np.tile(gold, 9), np.tile(predicted, 9), 2)
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_interval_with_a_rare_label_is_about_its_value() -> None:
    # A sample without the only row of label 2 would have a macro-F1 over two labels, near 0.93.
    gold = np.array([0] * 60 + [1] * 40 + [2])
    predicted = np.array([0] * 56 + [1] * 4 + [1] * 37 + [0] * 3 + [0])
    macro = measure("f1_macro", gold, predicted, 3)
    assert macro.value == pytest.approx(0.62, abs=0.01)
    assert macro.low < macro.value < macro.high
    assert macro.high - macro.low < 0.12


def test_the_interval_is_of_the_bootstrap_within_each_gold_label() -> None:
    rng = np.random.default_rng(3)
    gold = np.repeat([0, 1, 2], [50, 30, 8])
    predicted = np.where(rng.random(88) < 0.7, gold, rng.integers(3, size=88))
    f1s = []
    for _ in range(2000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(gold == n), (gold == n).sum()) for n in range(3)]
        )
        table = np.array(confusion(gold[rows], predicted[rows], 3))
        f1s.append((2 * table.diagonal() / (table.sum(0) + table.sum(1))).mean())
    macro = measure("f1_macro", gold, predicted, 3)
    expected = np.quantile(f1s, [0.025, 0.975]) + macro.value - np.mean(f1s)
    assert [macro.low, macro.high] == pytest.approx(expected, abs=0.02)


def test_labels_that_do_not_occur_change_nothing() -> None:
    gold, predicted = [0, 0, 2, 2, 2], [0, 2, 2, 2, 0]
    three, nine = (measure("f1_macro", gold, predicted, n_labels) for n_labels in (3, 9))
    assert three.value == nine.value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert three.low == pytest.approx(nine.low, abs=0.05)
    assert three.high == pytest.approx(nine.high, abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_an_interval_contains_the_value(metric: str, pairs: list[tuple[int, int]]) -> None:
    n_labels = 2 if metric == "f1" else 4
    gold, predicted = np.array(pairs).T % n_labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pet_pipeline.metrics.RESAMPLES", 40)
        measured = measure(metric, gold, predicted, n_labels)
    lowest = -1 if metric == "mcc" else 0
    assert lowest <= measured.low <= measured.value <= measured.high <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_weights_count_rows(metric: str) -> None:
    gold, predicted, times = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([5, 2, 1, 4])
    repeated = METRICS[metric](np.repeat(gold, times), np.repeat(predicted, times))
    assert METRICS[metric](gold, predicted, times) == pytest.approx(repeated)


def test_a_label_of_weight_zero_keeps_its_share_of_macro_f1() -> None:
    assert METRICS["f1_macro"]([0, 1], [0, 1], [1, 0]) == 0.5


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
def test_mean_and_sd_by_their_definitions(values: list[float]) -> None:
    mean, sd = mean_and_sd(values)
    assert mean == pytest.approx(np.mean(values))
    assert sd == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0.0, abs=1e-9)


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
