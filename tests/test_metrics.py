"""Metrics, intervals and calibration, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_pipeline.metrics import (
    METRICS,
    THRESHOLDS,
    CoveragePoint,
    Measured,
    calibration_error,
    confusion,
    coverage_at,
    coverage_curve,
    label_qualities,
    mean_and_sd,
    measure,
    metric_title,
    paired,
    percent,
    proportion,
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


def is_wilsons(bound: float, fraction: float, rows: int) -> bool:
    """Whether a bound is where the score test of a fraction is at its 95 % limit."""
    return abs(bound - fraction) == pytest.approx(
        1.959964 * (bound * (1 - bound) / rows) ** 0.5, abs=1e-6
    )


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_proportion_has_wilsons_interval(counts: tuple[int, int]) -> None:
    successes, rows = counts
    found = proportion(successes, rows)
    assert found.value == successes / rows
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert is_wilsons(found.low, found.value, rows)
    assert is_wilsons(found.high, found.value, rows)


@given(PROBS)
def test_coverage_is_counted_at_each_threshold(
    given_rows: tuple[np.ndarray, list[int]],
) -> None:
    probs, gold = given_rows
    points = coverage_curve(probs, gold)
    assert (points[0].threshold, points[0].coverage, points[0].rows) == (0, 1, len(gold))
    assert len({point.rows for point in points}) == len(points) <= 50
    assert [p.threshold for p in points] == sorted(p.threshold for p in points)
    for point in points:
        answered = [
            row.argmax() == label
            for row, label in zip(probs, gold, strict=True)
            if row.max() >= point.threshold
        ]
        assert point.rows == len(answered) > 0
        assert point.coverage == len(answered) / len(gold)
        assert Measured(point.accuracy, point.low, point.high) == proportion(
            sum(answered), len(answered)
        )
    counts = {int((probs.max(1) >= threshold).sum()) for threshold in THRESHOLDS}
    assert {point.rows for point in points} == counts - {0}


def test_a_row_at_the_threshold_is_answered_and_round_thresholds_stand_for_others() -> None:
    probs = np.array([[0.8, 0.2], [0.75, 0.25], [0.61, 0.39]])
    points = coverage_curve(probs, [0, 0, 1])
    assert [(p.threshold, p.rows) for p in points] == [(0.0, 3), (0.7, 2), (0.8, 1)]


def test_the_largest_coverage_of_a_wished_accuracy() -> None:
    points = [
        CoveragePoint(threshold, rows / 100, accuracy, 0, 1, rows)
        for threshold, rows, accuracy in (
            (0, 100, 0.8),
            (0.6, 70, 0.9),
            (0.7, 50, 0.89),
            (0.9, 9, 1),
        )
    ]
    assert coverage_at(points, 0.8) == points[0]
    assert coverage_at(points, 0.9) == points[1]
    assert coverage_at(points, 0.91) == points[3]
    assert coverage_at(points[:3], 0.95) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_each_labels_precision_recall_and_f1(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = zip(*pairs, strict=True)
    found = label_qualities(confusion(gold, predicted, 4), ["a", "b", "c", "d"])
    for n, quality in enumerate(found):
        right = pairs.count((n, n))
        assert (quality.gold, quality.predicted) == (gold.count(n), predicted.count(n))
        assert (quality.label, quality.right) == ("abcd"[n], right)
        if quality.predicted:
            assert quality.precision == proportion(right, quality.predicted)
        if quality.gold:
            assert quality.recall == proportion(right, quality.gold)
        assert (quality.precision is None) == (not quality.predicted)
        assert (quality.recall is None) == (not quality.gold)
        if quality.f1 is None:
            assert not quality.gold + quality.predicted
            continue
        total = quality.gold + quality.predicted
        assert quality.f1.value == pytest.approx(2 * right / total)
        assert 0 <= quality.f1.low <= quality.f1.value <= quality.f1.high <= 1
        rows = total - right
        for bound in (quality.f1.low, quality.f1.high):
            assert is_wilsons(bound / (2 - bound), right / rows, rows)


def test_the_interval_of_a_labels_f1_contains_the_true_one_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    cells = np.array([[0.55, 0.05], [0.1, 0.3]])  # fractions of rows by gold label and predicted
    true = 2 * 0.3 / (0.4 + 0.35)
    inside = 0
    for _ in range(400):
        counts = rng.multinomial(60, cells.ravel()).reshape(2, 2)
        f1 = label_qualities(counts, ["a", "b"])[1].f1
        assert f1
        inside += f1.low <= true <= f1.high
    assert 0.92 <= inside / 400 <= 0.98


def test_two_systems_are_compared_on_the_rows_that_one_of_them_gets_right() -> None:
    gold = [0] * 20
    first, second = [0] * 12 + [1] * 8, [1] * 10 + [0] * 4 + [1] * 6
    found = paired(gold, first, second)
    assert (found.gained, found.lost) == (10, 2)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert paired(gold, first, first).p_value == 1


def test_percentages_are_whole_and_never_wrongly_all_or_nothing() -> None:
    shown = {0: "0 %", 0.0004: "under 0.1 %", 0.004: "0.4 %", 0.006: "1 %", 0.734: "73 %"}
    shown |= {0.994: "99 %", 0.996: "99.6 %", 0.9996: "over 99.9 %", 1: "100 %"}
    assert {fraction: percent(fraction) for fraction in shown} == shown
