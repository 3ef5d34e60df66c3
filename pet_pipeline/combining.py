"""Many models' scores become one soft label per row: ensemble weights and a temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, logsumexp, softmax

from pet_pipeline.tables import Floats

ALMOST_ZERO = 1e-9  # added to an accuracy, so that models that are never right have weights too
# How far an ensemble's accuracy is from its models' agreement on the pool: usually little, with a
# probability of SHARED_MISTAKES further below. Read off runs on five data sets.
USUAL_DEVIATION = 0.035
SHARED_MISTAKES = 0.15
SHARED_EXCESS, SHARED_DEVIATION = 0.1, 0.15
# How much less often a single model is right than the ensemble, and one tuned on fewer rows.
SINGLE_LOSS, FRACTION_LOSS = 0.04, 0.08
MOST_TEMPERATURE = 20.0  # or its inverse: fitted temperatures are between the two


@dataclass(frozen=True)
class Combination:
    """How scores are combined: one weight per model, of any sum above 0, and a temperature.

    >>> a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    >>> Combination((1, 1)).soft_labels([a, b]).tolist()
    [[0.5, 0.5]]
    """

    weights: tuple[float, ...]
    temperature: float = 1.0

    def mean_scores(self, scores: Sequence[Floats]) -> Floats:
        """The weighted mean of the models' scores, (rows, labels) of each: (rows, labels)."""
        weights = np.asarray(self.weights, float)
        return np.asarray(np.average(np.stack(scores), axis=0, weights=weights))

    def soft_labels(self, scores: Sequence[Floats]) -> Floats:
        """softmax(weighted mean of the models' scores / temperature): (rows, labels).

        scores: (rows, labels) of each model
        """
        return np.asarray(softmax(self.mean_scores(scores) / self.temperature, axis=-1))


@dataclass(frozen=True)
class Evidence:
    """What is known of the models before their scores are combined."""

    accuracies: tuple[float, ...]  # of each untuned model on the labelled rows
    held_out: Floats | None = None  # (models, rows, labels) of rows that no model was tuned on
    gold: tuple[int, ...] = ()  # labels of the held-out rows


def fit_combination(scores: Floats, gold: Sequence[int]) -> Combination:
    """Weights that sum to 1 and a temperature, by the log-loss on rows no model was tuned on.

    scores: (models, rows, labels); gold: (rows,). A normal prior keeps the weights near equal and
    the temperature near 1 where the rows are too few to tell.
    """
    n_models, n_rows, _ = scores.shape
    rows = np.arange(n_rows)

    def loss(parameters: Floats) -> float:
        weights = softmax(parameters[:n_models])
        mean = np.tensordot(weights, scores, axes=1) * np.exp(-parameters[-1])
        log_loss = -log_softmax(mean, axis=-1)[rows, gold].mean()
        return float(log_loss + (parameters**2).sum() / (2 * n_rows))

    fitted = minimize(loss, np.zeros(n_models + 1), method="L-BFGS-B").x
    weights = tuple(float(weight) for weight in softmax(fitted[:n_models]))
    return Combination(weights, float(np.exp(fitted[-1])))


def pairwise_agreement(scores: Floats) -> float | None:
    """The fraction of rows on which two models predict the same label, in the mean over pairs.

    Models tuned on the same rows agree about as often as they are right (2106.13799, theorem
    4.1). scores: (models, rows, labels). None with fewer than two models, or without rows.
    """
    votes = scores.argmax(-1)  # (models, rows)
    n_models, n_rows = votes.shape
    if n_models < 2 or not n_rows:
        return None
    counts = (votes[..., None] == np.arange(scores.shape[-1])).sum(0)  # (rows, labels)
    pairs = (counts * (counts - 1)).sum() / (n_models * (n_models - 1))
    return float(pairs / n_rows)


def expected_accuracy(
    agreement: float | None, correct: int, n_rows: int, *, n_labels: int, fraction: float = 0.25
) -> float | None:
    """How often an ensemble is right, by its agreement and by rows its models were not tuned on.

    The posterior mean over accuracies from 1 / n_labels to 1. Agreement is mostly near the
    accuracy, sometimes far above it, where models share their mistakes: a mixture of two normal
    distributions. `correct` of `n_rows` held-out rows are right, a binomial count; single models
    tuned without that fraction of the rows made them, so they are right less often. None if
    nothing is known.

    >>> expected_accuracy(None, 0, 0, n_labels=2) is None
    True
    """
    if agreement is None and not n_rows:
        return None
    accuracy = np.linspace(1 / n_labels, 1, 500)
    prior = np.ones_like(accuracy)
    if agreement is not None:
        usual = _normal_density(accuracy, agreement, USUAL_DEVIATION)
        shared = _normal_density(accuracy, agreement - SHARED_EXCESS, SHARED_DEVIATION)
        prior = (1 - SHARED_MISTAKES) * usual + SHARED_MISTAKES * shared
    loss = SINGLE_LOSS + FRACTION_LOSS * fraction
    held_out = np.clip(accuracy - loss, 1e-3, 1 - 1e-3)
    log_likelihood = correct * np.log(held_out) + (n_rows - correct) * np.log1p(-held_out)
    posterior = prior * np.exp(log_likelihood - log_likelihood.max())
    return float((posterior * accuracy).sum() / posterior.sum())


def _normal_density(values: Floats, mean: float, deviation: float) -> Floats:
    return np.asarray(np.exp(-0.5 * ((values - mean) / deviation) ** 2) / deviation)


def fit_temperature(mean_scores: Floats, confidence: float) -> float:
    """The temperature at which the mean top probability of some rows is `confidence`.

    mean_scores: (rows, labels). The nearest temperature between 1/20 and 20 if none gives it.
    """

    def excess(log_temperature: float) -> float:
        probs = softmax(mean_scores / np.exp(log_temperature), axis=-1)
        return float(probs.max(-1).mean()) - confidence

    low, high = -np.log(MOST_TEMPERATURE), np.log(MOST_TEMPERATURE)
    if excess(low) <= 0:
        return 1 / MOST_TEMPERATURE
    if excess(high) >= 0:
        return MOST_TEMPERATURE
    return float(np.exp(brentq(excess, low, high, xtol=1e-6)))


def uniform(evidence: Evidence) -> Combination:
    """The same weight for every model, the uniform variant of PET (2001.07676)."""
    n_models = len(evidence.accuracies)
    return Combination((1 / n_models,) * n_models)


def by_accuracy(evidence: Evidence) -> Combination:
    """The accuracy of each model before tuning, the weighted variant of PET (2001.07676)."""
    return Combination(tuple(accuracy + ALMOST_ZERO for accuracy in evidence.accuracies))


def fitted(evidence: Evidence) -> Combination:
    """What `fit_combination` makes of the held-out rows; raises `ValueError` without any."""
    if evidence.held_out is None:
        raise ValueError("no scores of held-out rows to fit the weights on")
    return fit_combination(evidence.held_out, evidence.gold)


@dataclass(frozen=True)
class Weighting:
    """A rule that weights the models, and which evidence it needs besides their number."""

    fit: Callable[[Evidence], Combination]
    needs: Literal["nothing", "labelled", "held_out"]


WEIGHTINGS: dict[str, Weighting] = {
    "uniform": Weighting(uniform, "nothing"),
    "wmean": Weighting(by_accuracy, "labelled"),
    "fitted": Weighting(fitted, "held_out"),
}


def soften(probs: Floats, temperature: float) -> Floats:
    """A distribution at another temperature: softmax(log p / T), of the same shape.

    >>> soften(np.array([[0.8, 0.2]]), 1.0).round(3).tolist()
    [[0.8, 0.2]]
    """
    return np.asarray(softmax(np.log(np.clip(probs, 1e-30, 1)) / temperature, axis=-1))


def entropy(probs: Floats) -> Floats:
    """Entropy in nats of each row's distribution: (rows,) from (rows, labels)."""
    return np.asarray(-(probs * np.log(np.clip(probs, 1e-30, 1))).sum(-1))


def disagreement(scores: Floats) -> Floats:
    """How far the models' distributions are apart on each row (Jensen-Shannon divergence, nats).

    scores: (models, rows, labels); returns (rows,)
    """
    log_probs = log_softmax(scores, axis=-1)
    mean = logsumexp(log_probs, axis=0) - np.log(len(scores))
    mean_entropy = entropy(np.exp(log_probs)).mean(0)
    return np.asarray(entropy(np.exp(mean)) - mean_entropy)
