"""What a PVP says of rows: with demonstrations, and with the labels' prior taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from pet_pipeline.config import Machine
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, PatternEncoder
from pet_pipeline.inference import score_rows
from pet_pipeline.pvp import Show
from pet_pipeline.search.demonstrations import Demonstrations, Shown
from pet_pipeline.seeds import seed_from

CONTENT_FREE = ("N/A", "...", "")  # texts that say nothing, after 2102.09690, section 5


@dataclass(frozen=True)
class Draws:
    """How some rows are shown: with these demonstrations, of which so many sets are drawn.

    vectors: (rows, dimensions) of the rows, or None to draw whatever the rows are; own: the rows'
    numbers among those that demonstrations are drawn from, or `NOBODY`
    """

    demonstrations: Demonstrations
    count: int
    seed: int
    vectors: Floats | None = None
    own: Sequence[int] | None = None

    def of(self, rows: Sequence[int]) -> Draws:
        """The same for some of the rows."""
        vectors = None if self.vectors is None else self.vectors[list(rows)]
        own = None if self.own is None else [self.own[n] for n in rows]
        return replace(self, vectors=vectors, own=own)

    def anywhere(self) -> Draws:
        """The same for rows that are not known: no demonstration is nearer than another."""
        return replace(self, vectors=None, own=None)

    def shown(self, rows: Sequence[Encoded], draw: int) -> Shown:
        """The rows of one draw."""
        seed = seed_from("draw", self.seed, draw)
        return self.demonstrations.show(rows, self.vectors, seed, self.own)

    def shown_at(self, rows: Sequence[Encoded]) -> Show:
        """For training: another draw at every step; rows: all of them."""
        return lambda batch, step: self.of(batch).shown([rows[n] for n in batch], step).rows


def score_pvp(
    model: Any,
    encoder: PatternEncoder,
    rows: Sequence[Encoded],
    *,
    machine: Machine,
    what: str,
    decoding: str = "confident",
    draws: Draws | None = None,
    normalise: bool = False,
) -> Floats:
    """Label scores (rows, labels), the mean over the draws if there are demonstrations."""
    scores = [
        score_rows(
            model,
            draws.shown(rows, number).rows if draws else rows,
            encoder.layout,
            encoder.words,
            machine=machine,
            what=what,
            decoding=decoding,
            normalise=normalise,
        )
        for number in range(draws.count if draws else 1)
    ]
    return np.asarray(np.mean(scores, axis=0))


def content_free_rows(columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows that say nothing of any label."""
    return [dict.fromkeys(columns, text) for text in CONTENT_FREE]


def log_prior(scores: Floats, calibrate: str) -> Floats:
    """What each label scores whatever the text (labels,), from scores (rows, labels) of such texts.

    contextual: the log of the mean probability of a label among the labels (2102.09690, section
    5); pmi: the log of the mean probability of its words in the vocabulary, for which scores must
    be log-probabilities (2104.08315, section 3.3)
    """
    if calibrate == "contextual":
        return np.asarray(np.log(softmax(scores, axis=-1).mean(0)))
    return np.asarray(logsumexp(scores, axis=0) - np.log(len(scores)))
