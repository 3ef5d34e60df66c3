"""How good predictions are: accuracy, F1, calibration error, coverage, with their intervals."""

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
# Of the coverage curve, the roundest first: few enough to read, fine enough near certainty.
THRESHOLDS = (
    *(n / 10 for n in range(10)),
    *(n / 20 for n in range(1, 20, 2)),
    *(n / 50 for n in range(26, 45) if n % 5),
    *(n / 100 for n in range(91, 100) if n % 5),
    *(0.995, 0.998, 0.999, 0.9995, 0.9999),
)


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


def percent(fraction: float) -> str:
    """A fraction as a whole percentage, with a decimal where it would seem to be 0 or 100.

    >>> percent(0.734), percent(1.0), percent(0.998), percent(0.9999)
    ('73 %', '100 %', '99.8 %', 'over 99.9 %')
    """
    value = 100 * fraction
    if 99.5 <= value < 100 or 0 < value < 0.5:
        if value > 99.9:
            return "over 99.9 %"
        return "under 0.1 %" if value < 0.1 else f"{value:.1f} %"
    return f"{value:.0f} %"


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
        return proportion(int(counts.trace()), int(counts.sum()))
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


def proportion(successes: int, rows: int) -> Measured:
    """A fraction of at least one row, with Wilson's 95 % interval.

    >>> eight = proportion(8, 10)
    >>> eight.value, round(eight.low, 3), round(eight.high, 3)
    (0.8, 0.49, 0.943)
    """
    interval = binomtest(successes, rows).proportion_ci(method="wilson")
    return Measured(successes / rows, float(interval.low), float(interval.high))


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


@dataclass(frozen=True)
class Paired:
    """Two systems on the same rows: those that only one of them gets right."""

    gained: int  # right with the first alone
    lost: int  # right with the second alone
    p_value: float  # of McNemar's exact test that both are as good


def paired(gold: Indices, first: Indices, second: Indices) -> Paired:
    """McNemar's exact test of two systems' predicted labels; all (rows,).

    >>> paired([1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1])
    Paired(gained=2, lost=1, p_value=1.0)
    """
    one, other = (np.asarray(predicted) == np.asarray(gold) for predicted in (first, second))
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Paired(gained, lost, p_value)


@dataclass(frozen=True)
class CoveragePoint:
    """The rows that are answered at a threshold: those whose top probability is not below it."""

    threshold: float
    coverage: float  # fraction of all rows
    accuracy: float  # of the answered rows
    low: float  # of its 95 % interval
    high: float
    rows: int  # answered


def coverage_curve(probs: Floats, gold: Indices) -> list[CoveragePoint]:
    """Accuracy against coverage at round thresholds, from 0, where every row is answered.

    Of thresholds that answer the same rows the roundest stands for all; none answers no row.
    probs: (rows, labels); gold: (rows,)
    """
    confidence, right = probs.max(1), probs.argmax(1) == np.asarray(gold)
    thresholds: dict[int, float] = {}  # by the number of rows that they answer
    for threshold in THRESHOLDS:
        thresholds.setdefault(int((confidence >= threshold).sum()), threshold)
    points = []
    for rows, threshold in sorted(thresholds.items(), reverse=True):
        if rows:
            correct = proportion(int(right[confidence >= threshold].sum()), rows)
            points.append(
                CoveragePoint(
                    threshold=threshold,
                    coverage=rows / len(right),
                    accuracy=correct.value,
                    low=correct.low,
                    high=correct.high,
                    rows=rows,
                )
            )
    return points


def coverage_at(points: Sequence[CoveragePoint], wished: float) -> CoveragePoint | None:
    """The point of the largest coverage whose accuracy is as wished, or more; None if none is."""
    return max((p for p in points if p.accuracy >= wished), key=lambda p: p.rows, default=None)


@dataclass(frozen=True)
class LabelQuality:
    """How well one label is predicted; None where there is no row to tell by."""

    label: str
    gold: int  # rows that have it
    predicted: int  # rows that it is predicted for
    right: int  # rows of which both are true
    precision: Measured | None
    recall: Measured | None
    f1: Measured | None


def label_qualities(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> list[LabelQuality]:
    """Precision, recall and F1 of each label, with 95 % intervals.

    counts: (labels, labels) rows by gold label, then predicted label
    """
    table = np.asarray(counts)
    right, gold, predicted = (c.tolist() for c in (table.diagonal(), table.sum(1), table.sum(0)))
    return [
        LabelQuality(
            label=label,
            gold=gold[n],
            predicted=predicted[n],
            right=right[n],
            precision=proportion(right[n], predicted[n]) if predicted[n] else None,
            recall=proportion(right[n], gold[n]) if gold[n] else None,
            f1=_f1_of_label(right[n], gold[n] + predicted[n] - right[n]),
        )
        for n, label in enumerate(labels)
    ]


def _f1_of_label(right: int, rows: int) -> Measured | None:
    """F1 of a label with the interval of Wilson's indirect method (2309.14621).

    rows: those that have the label or that it is predicted for. F1 grows with the fraction of
    these that is right, so the interval of the one is that of the other. Unlike a bootstrap's it
    is no single point where few rows are all right or all wrong.
    """
    if not rows:
        return None
    found = proportion(right, rows)
    return Measured(*(2 * v / (1 + v) for v in (found.value, found.low, found.high)))


def _f1_score(
    gold: Indices, predicted: Indices, weights: Indices | None, labels: Sequence[int] | None
) -> float:
    score = f1_score(
        gold, predicted, labels=labels, average="macro", sample_weight=weights, zero_division=0
    )
    return float(score)
