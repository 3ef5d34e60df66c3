"""Many models' scores become one distribution over the labels: weights and a temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from pet_pipeline.data import Floats


def pool_scores(scores: Sequence[Floats], weights: Sequence[float], temperature: float) -> Floats:
    """softmax(weighted mean of the models' scores / temperature): (rows, labels).

    scores: (rows, labels) of each model; weights: one a model, of any sum above 0

    >>> a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    >>> pool_scores([a, b], [1, 1], 1.0).tolist()
    [[0.5, 0.5]]
    """
    mean = np.average(np.stack(scores), axis=0, weights=np.asarray(weights, float))
    return np.asarray(softmax(mean / temperature, axis=-1))


def fit_pool(scores: Floats, gold: Sequence[int]) -> tuple[list[float], float]:
    """Weights that sum to 1 and a temperature, by the log-loss on rows no model was tuned on.

    scores: (models, rows, labels). A normal prior keeps the weights near equal and the
    temperature near 1 where the rows are too few to tell.
    """
    n_models, n_rows, _ = scores.shape
    rows = np.arange(n_rows)

    def loss(parameters: Floats) -> float:
        weights = softmax(parameters[:n_models])
        mean = np.tensordot(weights, scores, axes=1) * np.exp(-parameters[-1])
        log_loss = -log_softmax(mean, axis=-1)[rows, gold].mean()
        return float(log_loss + (parameters**2).sum() / (2 * n_rows))

    found = minimize(loss, np.zeros(n_models + 1), method="L-BFGS-B").x
    return [float(weight) for weight in softmax(found[:n_models])], float(np.exp(found[-1]))


def soften(probs: Floats, temperature: float) -> Floats:
    """A distribution at another temperature: softmax(log p / T).

    >>> soften(np.array([[0.8, 0.2]]), 1.0).round(3).tolist()
    [[0.8, 0.2]]
    """
    return np.asarray(softmax(np.log(np.clip(probs, 1e-30, 1)) / temperature, axis=-1))


def entropy(probs: Floats) -> Floats:
    """Entropy in nats of each row's distribution."""
    return np.asarray(-(probs * np.log(np.clip(probs, 1e-30, 1))).sum(-1))


def disagreement(scores: Floats) -> Floats:
    """How far the models' distributions are apart on each row (Jensen-Shannon divergence, nats).

    scores: (models, rows, labels); returns (rows,)
    """
    log_probs = log_softmax(scores, axis=-1)
    mean = logsumexp(log_probs, axis=0) - np.log(len(scores))
    own = entropy(np.exp(log_probs)).mean(0)
    return np.asarray(entropy(np.exp(mean)) - own)
