"""How good predictions are: accuracy, F1, MCC, calibration, and intervals around them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from pet_pipeline.data import Floats

Indices = Sequence[int] | np.ndarray[Any, Any]
RESAMPLES = 500


def _accuracy(gold: Indices, predicted: Indices) -> float:
    return float(accuracy_score(gold, predicted))


def _f1(gold: Indices, predicted: Indices) -> float:
    return float(f1_score(gold, predicted, zero_division=0))


def _f1_macro(gold: Indices, predicted: Indices) -> float:
    return float(f1_score(gold, predicted, average="macro", zero_division=0))


def _mcc(gold: Indices, predicted: Indices) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single label there is nothing to correlate: 0
        return float(matthews_corrcoef(gold, predicted))


METRICS: dict[str, Callable[[Indices, Indices], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,  # of the second label
    "f1_macro": _f1_macro,
    "mcc": _mcc,
}


@dataclass(frozen=True)
class Measured:
    """A metric with its 95 % interval over test sets like this one."""

    value: float
    low: float
    high: float


def measure(metric: str, gold: Indices, predicted: Indices) -> Measured:
    """A metric with a 95 % interval: Wilson's for accuracy, else the percentile bootstrap.

    gold, predicted: (rows,) label numbers

    >>> measure("accuracy", [0, 1, 1, 0], [0, 1, 1, 1]).value
    0.75
    """
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    value = METRICS[metric](gold, predicted)
    if metric == "accuracy":
        right = int((gold == predicted).sum())
        interval = binomtest(right, len(gold)).proportion_ci(method="wilson")
        return Measured(value, float(interval.low), float(interval.high))
    rng = np.random.default_rng(0)
    resampled = [
        METRICS[metric](gold[rows], predicted[rows])
        for rows in (rng.integers(len(gold), size=len(gold)) for _ in range(RESAMPLES))
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Measured(value, float(low), float(high))


def confusion(gold: Indices, predicted: Indices, n_labels: int) -> list[list[int]]:
    """Counts (gold, predicted)."""
    counts: list[list[int]] = confusion_matrix(gold, predicted, labels=range(n_labels)).tolist()
    return counts


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their mean confidence, their accuracy, their number."""

    confidence: float
    accuracy: float
    rows: int


def reliability(probs: Floats, gold: Indices, n_bins: int = 10) -> list[Bin]:
    """Accuracy by confidence in bins of equal width, without empty ones (1706.04599, section 2)."""
    confidence, right = probs.max(1), probs.argmax(1) == np.asarray(gold)
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (index == n for n in range(n_bins))
        if inside.any()
    ]


def calibration_error(probs: Floats, gold: Indices, n_bins: int = 10) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over rows (1706.04599, eq. 3)."""
    bins = reliability(probs, gold, n_bins)
    gap = sum(b.rows * abs(b.accuracy - b.confidence) for b in bins)
    return gap / max(1, sum(b.rows for b in bins))
