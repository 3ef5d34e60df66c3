"""Which candidates are kept: by log-loss on labelled rows that they were not tuned on.

On a few dozen rows accuracy cannot tell candidates apart, and the log-loss only some of them. So
each comes with its standard error, several are kept, and what is within noise is called so.
Before tuning a model prefers some label whatever the text, and after it is too sure of itself;
an ensemble mends both. So scores are corrected for each label's prior and for their scale first,
as fitted on other rows; without that, the log-loss would rank candidates by these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from pet_pipeline.batches import fold_rows
from pet_pipeline.tables import Floats


@dataclass(frozen=True)
class LogLoss:
    """Mean and standard error over rows, in nats."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, losses: Floats) -> LogLoss:
        """Of the losses (rows,) of each row."""
        spread = float(losses.std(ddof=1)) if len(losses) > 1 else 0.0
        return cls(float(losses.mean()), spread / float(np.sqrt(len(losses))))


def row_losses(scores: Floats, gold: Sequence[int]) -> Floats:
    """Negative log-probabilities (rows,) of the gold labels; scores: (rows, labels)."""
    return np.asarray(-log_softmax(scores, axis=-1)[np.arange(len(gold)), gold])


def corrected_losses(scores: Floats, gold: Sequence[int], folds: int) -> Floats:
    """Losses (rows,) of scores (rows, labels), with biases and a factor of the other folds' fit.

    The scores of a row must come from a model that was not tuned on it.
    """
    losses = np.zeros(len(gold))
    for fold in range(folds):
        held = fold_rows(gold, folds, fold)
        rest = np.setdiff1d(np.arange(len(gold)), held)
        if len(held) and len(rest):
            factor, bias = _fit_correction(scores[rest], np.asarray(gold)[rest])
            losses[held] = row_losses(
                factor * _centred(scores[held]) + bias, np.asarray(gold)[held].tolist()
            )
    return losses


def verdict(kept: Floats, rest: Floats) -> str:
    """In words, whether the kept candidates are better than the others by more than chance.

    kept, rest: losses (candidates, rows) on the same rows; kept are in the order of their means
    """
    n_rows = kept.shape[1]
    spread = kept.mean(1)
    text = f"The kept templates' log-losses are {spread.min():.3f} to {spread.max():.3f} nats"
    if not len(rest):
        return f"{text} on {n_rows} rows; there was none to leave out."
    best = rest[rest.mean(1).argmin()]
    difference = LogLoss.of(best - kept[0])
    text += (
        f". The best of them is ahead of the best one left out by {difference.mean:.3f} "
        f"± {difference.standard_error:.3f} nats (paired, {n_rows} rows)"
    )
    if difference.mean > 2 * difference.standard_error:
        return f"{text}: more than chance."
    return (
        f"{text}: within noise. Other labelled rows would have kept others, so the kept ones "
        "go into the ensemble together and none of them is called the best."
    )


def _fit_correction(scores: Floats, gold: Floats) -> tuple[float, Floats]:
    """Factor and biases (labels,) by the log-loss, with a normal prior around 1 and 0."""
    n_rows, n_labels = scores.shape
    centred = _centred(scores)
    truth = np.eye(n_labels)[gold]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        factor, bias = np.exp(parameters[0]), parameters[1:]
        logits = factor * centred + bias
        residual = (softmax(logits, axis=-1) - truth) / n_rows
        value = -(truth * log_softmax(logits, axis=-1)).sum() / n_rows
        gradient = np.concatenate([[(residual * centred).sum() * factor], residual.sum(0)])
        return value + (parameters**2).sum() / (2 * n_rows), gradient + parameters / n_rows

    tight = {"ftol": 1e-12, "gtol": 1e-8}  # near candidates must not be told apart by its steps
    start = np.zeros(1 + n_labels)
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options=tight).x
    return float(np.exp(fitted[0])), np.asarray(fitted[1:])


def _centred(scores: Floats) -> Floats:
    return np.asarray(scores - scores.mean(1, keepdims=True))
