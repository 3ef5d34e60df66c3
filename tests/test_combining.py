"""Combining models: ensemble weights, a temperature, and how far the models are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pet_pipeline.combining import (
    MOST_TEMPERATURE,
    WEIGHTINGS,
    Combination,
    Evidence,
    disagreement,
    entropy,
    expected_accuracy,
    fit_combination,
    fit_temperature,
    pairwise_agreement,
    soften,
)

SCORES = st.integers(0, 999).map(lambda n: np.random.default_rng(n).normal(size=(3, 5, 4)))


@given(SCORES)
def test_soft_labels_are_the_softmax_of_the_weighted_mean(scores: np.ndarray) -> None:
    combination = Combination((1.0, 2.0, 0.0), 1.7)
    expected = softmax((scores[0] + 2 * scores[1]) / 3 / 1.7, axis=-1)
    np.testing.assert_allclose(combination.soft_labels(list(scores)), expected)
    shifted = scores + np.random.default_rng(0).normal(size=(3, 5, 1))
    np.testing.assert_allclose(combination.soft_labels(list(shifted)), expected)


@given(SCORES, st.tuples(*[st.floats(0.01, 9)] * 3), st.floats(0.1, 9))
def test_soft_labels_are_those_of_earlier_versions_to_the_last_bit(
    scores: np.ndarray, weights: tuple[float, float, float], temperature: float
) -> None:
    mean = np.average(scores, axis=0, weights=np.array(weights))
    probs = Combination(weights, temperature).soft_labels(list(scores))
    assert (probs == softmax(mean / temperature, axis=-1)).all()


def test_uniform_weights_are_equal() -> None:
    assert WEIGHTINGS["uniform"].needs == "nothing"
    evidence = Evidence((0.1, 0.9, 0.5))
    assert WEIGHTINGS["uniform"].fit(evidence) == Combination((1 / 3, 1 / 3, 1 / 3), 1.0)


def test_weights_by_accuracy_are_those_of_the_untuned_models() -> None:
    assert WEIGHTINGS["wmean"].needs == "labelled"
    combination = WEIGHTINGS["wmean"].fit(Evidence((0.25, 0.75)))
    assert combination == Combination((0.25 + 1e-9, 0.75 + 1e-9), 1.0)


@given(SCORES)
def test_models_that_are_never_right_have_equal_weights(scores: np.ndarray) -> None:
    combination = WEIGHTINGS["wmean"].fit(Evidence((0.0, 0.0, 0.0)))
    np.testing.assert_allclose(
        combination.soft_labels(list(scores)), softmax(scores.mean(0), axis=-1)
    )


def test_fitted_weights_are_fitted_to_the_held_out_rows() -> None:
    assert WEIGHTINGS["fitted"].needs == "held_out"
    scores = np.random.default_rng(2).normal(size=(2, 6, 3))
    gold = (0, 1, 2, 0, 1, 2)
    combination = WEIGHTINGS["fitted"].fit(Evidence((0.5, 0.5), scores, gold))
    assert combination == fit_combination(scores, gold)
    with pytest.raises(ValueError, match="no scores of held-out rows to fit the weights on"):
        WEIGHTINGS["fitted"].fit(Evidence((0.5, 0.5)))


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
    combination = fit_combination(np.stack([good, noise]), gold.tolist())
    assert sum(combination.weights) == pytest.approx(1)
    assert combination.weights[0] > 0.8
    assert combination.temperature > 1.5


def test_too_few_rows_leave_the_weights_near_equal() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 2, 3))
    combination = fit_combination(scores, [0, 1])
    assert abs(combination.weights[0] - 0.5) < 0.25
    assert 0.5 < combination.temperature < 2


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


def test_models_that_are_always_right_get_more_confidence() -> None:
    gold = np.arange(300) % 3
    combination = fit_combination(np.stack([np.eye(3)[gold]] * 2), gold.tolist())
    assert combination.temperature < 0.7
    assert combination.weights == pytest.approx((0.5, 0.5), abs=1e-3)


@given(SCORES)
def test_agreement_is_the_mean_over_pairs_of_models(scores: np.ndarray) -> None:
    votes = scores.argmax(-1)
    pairs = [(votes[a] == votes[b]).mean() for a in range(3) for b in range(a)]
    assert pairwise_agreement(scores) == pytest.approx(np.mean(pairs))
    assert pairwise_agreement(scores[[0, 0]]) == 1.0


def test_one_model_agrees_with_nobody() -> None:
    assert pairwise_agreement(np.zeros((1, 5, 2))) is None
    assert pairwise_agreement(np.zeros((2, 0, 2))) is None


@given(st.floats(0.3, 0.95), st.integers(0, 200), st.integers(1, 200))
def test_more_held_out_rows_that_are_right_raise_the_expected_accuracy(
    agreement: float, correct: int, wrong: int
) -> None:
    rows = correct + wrong
    expected = expected_accuracy(agreement, correct, rows, n_labels=4)
    better = expected_accuracy(agreement, correct + 1, rows, n_labels=4)
    assert expected is not None
    assert better is not None
    assert 1 / 4 <= expected <= better <= 1


def test_agreement_is_believed_unless_held_out_rows_say_otherwise() -> None:
    alone = expected_accuracy(0.7, 0, 0, n_labels=2)
    confirmed = expected_accuracy(0.7, 20, 32, n_labels=2)
    denied = expected_accuracy(0.7, 12, 32, n_labels=2)
    for expected in (alone, confirmed):
        assert expected == pytest.approx(0.7, abs=0.03)
    assert alone is not None
    assert denied is not None
    assert denied < alone - 0.05


def test_without_agreement_the_held_out_rows_decide() -> None:
    assert expected_accuracy(None, 0, 0, n_labels=3) is None
    assert expected_accuracy(None, 800, 1000, n_labels=3) == pytest.approx(0.86, abs=0.02)
    assert expected_accuracy(None, 0, 40, n_labels=4) == pytest.approx(0.25, abs=0.1)


@given(SCORES, st.floats(0.05, 0.95))
def test_a_fitted_temperature_gives_the_confidence(scores: np.ndarray, share: float) -> None:
    mean = 5 * scores[0]
    possible = [softmax(mean / t, axis=-1).max(-1).mean() for t in (MOST_TEMPERATURE, 1 / 20)]
    wanted = possible[0] + share * (possible[1] - possible[0])
    probs = softmax(mean / fit_temperature(mean, wanted), axis=-1)
    assert probs.max(-1).mean() == pytest.approx(wanted, abs=1e-4)


def test_a_confidence_that_no_temperature_gives_takes_the_nearest() -> None:
    scores = np.array([[2.0, 0.0, 0.0]])
    assert fit_temperature(scores, 1 / 3) == MOST_TEMPERATURE
    assert fit_temperature(scores, 1.0) < 0.2
    assert fit_temperature(np.zeros((2, 3)), 0.9) == 1 / MOST_TEMPERATURE
