"""The prior of each label, whatever the text: measured on content-free texts, then subtracted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from pet_pipeline.tables import Floats

CONTENT_FREE = ("N/A", "...", "")  # after 2102.09690, section 5


def content_free_rows(columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows that say nothing about any label, with every column filled.

    >>> content_free_rows(["a", "b"])[0]
    {'a': 'N/A', 'b': 'N/A'}
    """
    return [dict.fromkeys(columns, text) for text in CONTENT_FREE]


def contextual_log_prior(scores: Floats) -> Floats:
    """Log of the mean probability of each label among the labels (2102.09690, section 5).

    scores: (rows, labels) of content-free rows; returns (labels,)
    """
    return np.asarray(np.log(softmax(scores, axis=-1).mean(0)))


def pmi_log_prior(scores: Floats) -> Floats:
    """Log of the mean vocabulary probability of each label's words (2104.08315, section 3.3).

    scores: (rows, labels) log-probabilities of content-free rows; returns (labels,)
    """
    return np.asarray(logsumexp(scores, axis=0) - np.log(len(scores)))


@dataclass(frozen=True)
class CalibrationMethod:
    """How the log-prior (labels,) follows from scores (rows, labels) of content-free rows.

    normalised: whether the scores must be log-probabilities over the vocabulary
    """

    log_prior: Callable[[Floats], Floats]
    normalised: bool


CALIBRATIONS: dict[str, CalibrationMethod] = {
    "contextual": CalibrationMethod(contextual_log_prior, normalised=False),
    "pmi": CalibrationMethod(pmi_log_prior, normalised=True),
}


@dataclass(frozen=True)
class Prior:
    """What each label scores whatever the text, and the method it was measured by."""

    method: str  # a key of CALIBRATIONS
    log_prior: tuple[float, ...]  # (labels,)
