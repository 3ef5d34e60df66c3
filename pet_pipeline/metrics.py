"""How good predictions are: accuracy, F1, MCC, calibration error, and intervals around them."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from pet_pipeline.tables import Floats

Indices = Sequence[int] | np.ndarray[Any, Any]
Metric = Callable[..., float]  # (gold, predicted, weights=None), all (rows,)
RESAMPLES = 500


def accuracy(gold: Indices, predicted: Indices, weights: Indices | None = None) -> float:
    """Fraction of the rows with the right label; gold, predicted, weights: (rows,)."""
    return float(accuracy_score(gold, predicted, sample_weight=weights))


def f1(gold: Indices, predicted: Indices, weights: Indices | None = None) -> float:
    """F1 of the second label, 0 if it does not occur; gold, predicted, weights: (rows,)."""
    return _f1_score(gold, predicted, weights, [1])


def f1_macro(gold: Indices, predicted: Indices, weights: Indices | None = None) -> float:
    """Mean F1 of the labels that occur; gold, predicted, weights: (rows,).

    A label that is neither in gold nor predicted does not count. One whose rows all have the
    weight 0 does, so that every bootstrap sample has the labels of the whole test split.
    """
    return _f1_score(gold, predicted, weights, None)


def mcc(gold: Indices, predicted: Indices, weights: Indices | None = None) -> float:
    """Matthews correlation, 0 if there is a single label; gold, predicted, weights: (rows,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single label has no correlation: 0
        return float(matthews_corrcoef(gold, predicted, sample_weight=weights))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "f1_macro": f1_macro, "mcc": mcc}


def metric_title(metric: str, labels: Sequence[str]) -> str:
    """A metric's name for display; for F1, with the label that it is of.

    >>> metric_title("f1", ["sad", "happy"]), metric_title("mcc", ["sad", "happy"])
    ("f1 of 'happy'", 'mcc')
    """
    return f"f1 of {labels[1]!r}" if metric == "f1" else metric


@dataclass(frozen=True)
class Measured:
    """A metric with its 95 % interval over test splits like this one."""

    value: float
    low: float
    high: float


def measure(metric: str, gold: Indices, predicted: Indices, n_labels: int) -> Measured:
    """A metric with a 95 % interval that contains it: Wilson's for accuracy, else the bootstrap.

    gold, predicted: (rows,) label numbers below n_labels. The bootstrap draws rows with
    replacement within each gold label, so that no sample is without a rare label; its percentiles
    are moved by its bias, which is large with few rows of each of many labels. The only row of a
    label is in every sample: it adds nothing to the width.

    >>> measure("accuracy", [0, 1, 1, 0], [0, 1, 1, 1], 2).value
    0.75
    """
    value = METRICS[metric](gold, predicted)
    counts = np.asarray(confusion(gold, predicted, n_labels))
    if metric == "accuracy":
        interval = binomtest(int(counts.trace()), int(counts.sum())).proportion_ci(method="wilson")
        return Measured(value, float(interval.low), float(interval.high))
    rng = np.random.default_rng(0)
    sizes = counts.sum(1)
    fractions = counts / np.maximum(sizes, 1)[:, None]
    fractions[sizes == 0, 0] = 1  # any distribution: no row is drawn from it
    cells = counts.nonzero()  # a sample is how often each pair (gold, predicted) is drawn
    samples = (rng.multinomial(sizes, fractions)[cells] for _ in range(RESAMPLES))
    resampled = [METRICS[metric](*cells, sample) for sample in samples]
    bounds = np.quantile(resampled, [0.025, 0.975]) + value - np.mean(resampled)
    low, high = (float(bound) for bound in np.clip(bounds, -1 if metric == "mcc" else 0, 1))
    return Measured(value, min(low, value), max(high, value))


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (over n - 1), which of one value is 0.

    >>> mean_and_sd([1.0, 2.0, 3.0]), mean_and_sd([0.5])
    ((2.0, 1.0), (0.5, 0.0))
    """
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), sd


def confusion(gold: Indices, predicted: Indices, n_labels: int) -> list[list[int]]:
    """Counts of rows by gold label, then predicted label: (labels, labels)."""
    counts: list[list[int]] = confusion_matrix(gold, predicted, labels=range(n_labels)).tolist()
    return counts


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their mean confidence, their accuracy, their number."""

    confidence: float
    accuracy: float
    rows: int


def reliability(probs: Floats, gold: Indices, n_bins: int = 10) -> list[Bin]:
    """Accuracy by confidence in bins of equal width, without empty ones (1706.04599, section 2).

    probs: (rows, labels); gold: (rows,)
    """
    confidence, right = probs.max(1), probs.argmax(1) == np.asarray(gold)
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (index == n for n in range(n_bins))
        if inside.any()
    ]


def calibration_error(probs: Floats, gold: Indices, n_bins: int = 10) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over rows (1706.04599, eq. 3).

    probs: (rows, labels); gold: (rows,)
    """
    bins = reliability(probs, gold, n_bins)
    gap = sum(b.rows * abs(b.accuracy - b.confidence) for b in bins)
    return gap / max(1, sum(b.rows for b in bins))


def _f1_score(
    gold: Indices, predicted: Indices, weights: Indices | None, labels: Sequence[int] | None
) -> float:
    score = f1_score(
        gold, predicted, labels=labels, average="macro", sample_weight=weights, zero_division=0
    )
    return float(score)
