"""The labels' prior on content-free texts, by its definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pet_pipeline.calibration import CALIBRATIONS, CONTENT_FREE, content_free_rows

SCORES = st.integers(0, 999).map(lambda n: np.random.default_rng(n).normal(size=(3, 4)))


def test_priors() -> None:
    scores = np.log(np.array([[0.2, 0.1], [0.4, 0.2]]))
    mean = softmax(scores, axis=1).mean(0)
    assert CALIBRATIONS["contextual"].log_prior(scores) == pytest.approx(np.log(mean))
    assert CALIBRATIONS["pmi"].log_prior(scores) == pytest.approx(np.log([0.3, 0.15]))


@pytest.mark.parametrize("name", CALIBRATIONS)
@given(scores=SCORES)
def test_a_content_free_text_is_undecided_after_calibration(name: str, scores: np.ndarray) -> None:
    text = scores[:1]
    prior = CALIBRATIONS[name].log_prior(text)
    assert prior.shape == (4,)
    np.testing.assert_allclose(softmax(text - prior, axis=1), np.full((1, 4), 0.25))


@given(SCORES)
def test_the_prior_among_labels_sums_to_1_and_needs_no_normalised_scores(
    scores: np.ndarray,
) -> None:
    contextual, pmi = CALIBRATIONS["contextual"], CALIBRATIONS["pmi"]
    assert (contextual.normalised, pmi.normalised) == (False, True)
    assert np.exp(contextual.log_prior(scores)).sum() == pytest.approx(1)
    shifted = scores + np.arange(3)[:, None]
    np.testing.assert_allclose(contextual.log_prior(shifted), contextual.log_prior(scores))
    assert np.abs(pmi.log_prior(shifted) - pmi.log_prior(scores)).max() > 0.1


def test_content_free_rows_fill_every_column() -> None:
    rows = content_free_rows(["a", "b"])
    assert [row["a"] for row in rows] == list(CONTENT_FREE)
    assert len(rows) >= 3
    assert all(set(row) == {"a", "b"} and row["a"] == row["b"] for row in rows)
