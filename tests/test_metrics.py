"""Metrics, intervals, calibration, and the pooling of models, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pet_pipeline.metrics import METRICS, calibration_error, confusion, measure, reliability
from pet_pipeline.pooling import disagreement, entropy, fit_pool, pool_scores, soften

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


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["f1", "f1_macro", "mcc"]), st.integers(0, 99))
def test_bootstrap_intervals_hold_the_value_and_do_not_vary(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(2, size=60)
    predicted = np.where(rng.random(60) < 0.8, gold, 1 - gold)
    found = measure(metric, gold, predicted)
    assert found.low < found.value < found.high
    assert found == measure(metric, gold, predicted)


def test_calibration_error_by_hand() -> None:
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.45, 0.55]])
    gold = [0, 1, 1, 1]
    # 0.95: half are right; 0.65 and 0.55: all are right
    assert calibration_error(probs, gold) == pytest.approx((2 * 0.45 + 0.35 + 0.45) / 4)
    bins = reliability(probs, gold)
    assert [(b.rows, round(b.accuracy, 2)) for b in bins] == [(1, 1.0), (1, 1.0), (2, 0.5)]


SCORES = st.integers(0, 999).map(lambda n: np.random.default_rng(n).normal(size=(3, 5, 4)))


@given(SCORES)
def test_pooling_is_the_softmax_of_the_weighted_mean(scores: np.ndarray) -> None:
    weights = [1.0, 2.0, 0.0]
    expected = softmax((scores[0] + 2 * scores[1]) / 3 / 1.7, axis=-1)
    np.testing.assert_allclose(pool_scores(list(scores), weights, 1.7), expected)
    shifted = scores + np.random.default_rng(0).normal(size=(3, 5, 1))
    np.testing.assert_allclose(pool_scores(list(shifted), weights, 1.7), expected)


@given(SCORES)
def test_softening_is_the_softmax_at_a_temperature(scores: np.ndarray) -> None:
    np.testing.assert_allclose(
        soften(softmax(scores[0], axis=-1), 2.0), softmax(scores[0] / 2, axis=-1), rtol=1e-6
    )


@given(SCORES)
def test_models_that_say_the_same_do_not_disagree(scores: np.ndarray) -> None:
    np.testing.assert_allclose(disagreement(np.stack([scores[0]] * 3)), 0, atol=1e-9)
    assert (disagreement(scores) > 0).all()
    assert disagreement(scores).max() < np.log(3)


def test_entropy_of_a_coin() -> None:
    np.testing.assert_allclose(entropy(np.array([[0.5, 0.5], [1.0, 0.0]])), [np.log(2), 0])


def test_fitting_finds_the_good_model_and_the_temperature() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(3, size=200)
    right = np.eye(3)[np.where(rng.random(200) < 0.8, gold, rng.integers(3, size=200))]
    good, noise = 10 * right + rng.normal(size=(200, 3)), 10 * rng.normal(size=(200, 3))
    weights, temperature = fit_pool(np.stack([good, noise]), gold.tolist())
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > 0.8
    assert temperature > 1.5


def test_too_few_rows_leave_the_weights_near_equal() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 2, 3))
    weights, temperature = fit_pool(scores, [0, 1])
    assert abs(weights[0] - 0.5) < 0.25
    assert 0.5 < temperature < 2
