"""The pooling of models: weights, a temperature, and how far the models are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pet_pipeline.pooling import disagreement, entropy, fit_pool, pool_scores, soften

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


@given(SCORES, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_softening_adds_up(scores: np.ndarray, one: float, other: float) -> None:
    probs = softmax(scores[0], axis=-1)
    np.testing.assert_allclose(soften(probs, 1.0), probs, rtol=1e-9)
    np.testing.assert_allclose(
        soften(soften(probs, one), other), soften(probs, one * other), atol=1e-6
    )


def test_a_probability_of_zero_is_softened() -> None:
    np.testing.assert_allclose(soften(np.array([[1.0, 0.0]]), 2.0), [[1.0, 0.0]], atol=1e-12)


@given(SCORES)
def test_disagreement_is_the_mean_divergence_from_the_mean(scores: np.ndarray) -> None:
    probs = softmax(scores, axis=-1)
    mean = probs.mean(0)
    expected = (probs * np.log(probs / mean)).sum(-1).mean(0)
    np.testing.assert_allclose(disagreement(scores), expected, atol=1e-12)


def test_models_that_are_sure_of_different_labels_disagree_most() -> None:
    sure = 1000 * np.stack([np.eye(2)[[0]], np.eye(2)[[1]]])
    np.testing.assert_allclose(disagreement(sure), [np.log(2)])


def test_rows_that_are_understood_ask_for_more_confidence() -> None:
    gold = np.arange(300) % 3
    weights, temperature = fit_pool(np.stack([np.eye(3)[gold]] * 2), gold.tolist())
    assert temperature < 0.7
    assert weights == pytest.approx([0.5, 0.5], abs=1e-3)
