"""Candidates are judged on rows they were not tuned on, and noise is called noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from pet_pipeline.search.selection import LogLoss, corrected_losses, row_losses, verdict


def test_log_loss_and_its_standard_error() -> None:
    losses = np.array([0.2, 0.4, 0.9])
    found = LogLoss.of(losses)
    assert found.mean == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(np.std(losses, ddof=1) / np.sqrt(3))
    assert LogLoss.of(np.array([0.7])) == LogLoss(0.7, 0.0)
    scores = np.array([[2.0, 0.0], [1.0, 1.0]])
    assert row_losses(scores, [0, 1]) == pytest.approx(-log_softmax(scores, axis=1)[[0, 1], [0, 1]])


@given(st.integers(0, 10**6), st.integers(2, 4))
def test_constants_of_rows_do_not_count(seed: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(n_labels, size=24).tolist()
    scores = rng.normal(size=(24, n_labels)) + np.eye(n_labels)[gold]
    plain = corrected_losses(scores, gold, 4)
    assert np.isfinite(plain).all()
    assert (plain > 0).all()
    shifted = corrected_losses(scores + rng.normal(size=(24, 1)), gold, 4)
    assert shifted == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("prior", [-4.0, 4.0])
def test_a_labels_prior_does_not_count(prior: float) -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(3, size=96).tolist()
    scores = rng.normal(size=(96, 3)) + 2 * np.eye(3)[gold]
    leaning = scores + prior * np.eye(3)[0]
    plain = corrected_losses(scores, gold, 4).mean()
    assert corrected_losses(leaning, gold, 4).mean() == pytest.approx(plain, abs=0.1)
    assert row_losses(leaning, gold).mean() > plain + 0.3


def test_overconfident_scores_are_tempered() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(2, size=64).tolist()
    scores = rng.normal(size=(64, 2)) + 0.5 * np.eye(2)[gold]
    sure = corrected_losses(30 * scores, gold, 4).mean()
    assert sure < 0.8 < row_losses(30 * scores, gold).mean()


def test_a_rows_loss_does_not_depend_on_its_own_label() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(8, 2))
    gold = [0, 0, 0, 0, 1, 1, 1, 1]
    before = corrected_losses(scores, gold, 4)
    changed = scores.copy()
    changed[0] += [5.0, 0.0]  # row 0 is held out with row 4
    after = corrected_losses(changed, gold, 4)
    assert after[4] == pytest.approx(before[4])
    assert after[1] != pytest.approx(before[1], abs=1e-6)


def test_the_verdict_says_in_words_what_is_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.6, 0.3, size=(4, 16))
    order = noise[noise.mean(1).argsort()]
    within = verdict(order[:2], order[2:])
    assert "within noise" in within
    assert f"{order[:2].mean(1).min():.3f} to {order[:2].mean(1).max():.3f} nats" in within
    better = verdict(order[:2] * 0.01, order[2:] + 3)
    assert better.endswith("more than chance.")
    assert "none to leave out" in verdict(order, order[:0])
