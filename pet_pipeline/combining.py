"""Many models' scores become one soft label per row: ensemble weights and a temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from pet_pipeline.tables import Floats

ALMOST_ZERO = 1e-9  # added to an accuracy, so that models that are never right have weights too


@dataclass(frozen=True)
class Combination:
    """How scores are combined: one weight per model, of any sum above 0, and a temperature.

    >>> a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    >>> Combination((1, 1)).soft_labels([a, b]).tolist()
    [[0.5, 0.5]]
    """

    weights: tuple[float, ...]
    temperature: float = 1.0

    def soft_labels(self, scores: Sequence[Floats]) -> Floats:
        """softmax(weighted mean of the models' scores / temperature): (rows, labels).

        scores: (rows, labels) of each model
        """
        mean = np.average(np.stack(scores), axis=0, weights=np.asarray(self.weights, float))
        return np.asarray(softmax(mean / self.temperature, axis=-1))


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
