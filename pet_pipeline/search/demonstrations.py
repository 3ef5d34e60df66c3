"""Demonstrations: labelled rows that stand as examples in the input of others.

One row of each label, drawn from those most similar to the input (2012.15723, section 6).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, Layout, PatternEncoder
from pet_pipeline.truncation import shorten

FEWEST_TOKENS = 6  # of a text in a demonstration; with fewer it shows nothing
NOBODY = -1

Choice = npt.NDArray[np.int64]  # (rows, labels) the labelled row that stands for each label


@dataclass(frozen=True)
class Shown:
    """Rows with demonstrations in them, and the means a row of how many there are and are not.

    left_out: those for which there was no room
    """

    rows: list[Encoded]
    count: float
    left_out: float


@dataclass(frozen=True)
class Support:
    """The labelled rows that demonstrations are drawn from.

    gold: (support,) label numbers; vectors: (support, dimensions) of length 1, or None to draw
    from all rows alike; share: how many of a label's rows, the most similar ones, are drawn from
    """

    gold: Sequence[int]
    n_labels: int
    vectors: Floats | None = None
    share: float = 1.0

    def draw(
        self, vectors: Floats | None, n_rows: int, seed: int, own: Sequence[int] | None = None
    ) -> Choice:
        """One labelled row of each label for each of some rows; `NOBODY` where there is none.

        vectors: (rows, dimensions) of the rows; own: the rows' numbers among the labelled ones,
        or `NOBODY`: a row is no example of itself
        """
        order = np.random.default_rng(seed).random((n_rows, len(self.gold)))
        near = self._similarity(vectors)
        itself = np.zeros(order.shape, bool)
        for row, number in enumerate(own or ()):
            if number != NOBODY:
                itself[row, number] = True
        chosen = np.full((n_rows, self.n_labels), NOBODY, np.int64)
        for label in range(self.n_labels):
            columns = np.flatnonzero(np.asarray(self.gold) == label)
            allowed = ~itself[:, columns]
            if near is not None and len(columns):
                allowed &= self._nearest(np.where(allowed, near[:, columns], -np.inf))
            if len(columns):
                best = np.where(allowed, order[:, columns], -1).argmax(1)
                chosen[:, label] = np.where(allowed.any(1), columns[best], NOBODY)
        return chosen

    def _similarity(self, vectors: Floats | None) -> Floats | None:
        if vectors is None or self.vectors is None or self.share == 1:
            return None
        return np.asarray(vectors @ self.vectors.T)

    def _nearest(self, near: Floats) -> npt.NDArray[np.bool_]:
        """(rows, support of a label) True for each row's most similar share."""
        count = max(1, int(np.ceil(self.share * near.shape[1])))
        rank = (-near).argsort(1, kind="stable").argsort(1, kind="stable")
        return np.asarray(rank < count)


class Demonstrations:
    """Puts labelled rows into inputs of one pattern; the input itself is never cut for them."""

    def __init__(
        self,
        encoder: PatternEncoder,
        rows: Sequence[Mapping[str, str]],
        support: Support,
        max_tokens: int,
    ):
        self.support = support
        self.max_tokens = max_tokens
        self._encoder = encoder
        self._tokens = encoder.tokenise(rows)
        # A label of several words is shown with its first.
        self._words = [encoder.words.tokens[label][0] for label in support.gold]
        self._lengths = [len(self._fill(n, sys.maxsize)) for n in range(len(rows))]
        self._own = [len(self._fill(n, 0)) for n in range(len(rows))]

    def show(
        self,
        rows: Sequence[Encoded],
        vectors: Floats | None,
        seed: int,
        own: Sequence[int] | None = None,
    ) -> Shown:
        """Rows with demonstrations, one draw by the seed.

        vectors and own: as `Support.draw` takes them
        """
        choice = self.support.draw(vectors, len(rows), seed, own)
        shown = [
            self._add(row, picked, (seed, n))
            for n, (row, picked) in enumerate(zip(rows, choice.tolist(), strict=True))
        ]
        count = sum(n for _, n in shown)
        wanted, n_rows = int((choice != NOBODY).sum()), max(1, len(rows))
        return Shown([row for row, _ in shown], count / n_rows, (wanted - count) / n_rows)

    def _add(self, row: Encoded, choice: Sequence[int], seed: Sequence[int]) -> tuple[Encoded, int]:
        """A row with the chosen demonstrations that there is room for, and their number."""
        layout = self._encoder.layout
        end = len(row.ids) - len(layout.suffix)
        place = end if row.demos is None else row.demos
        left, right = place > len(layout.prefix), place < end
        room = self.max_tokens - len(row.ids)
        # n demonstrations have n - 1 separators between them, and those at their ends
        ends = (left + right - 1) * len(layout.middle)
        fitting = self._fitting([n for n in choice if n != NOBODY], room - ends, seed)
        if not fitting:
            return row, 0
        room -= ends + len(fitting) * len(layout.middle)
        texts = shorten(
            [self._lengths[n] - self._own[n] for n in fitting],
            room - sum(self._own[n] for n in fitting),
        )
        added = list(layout.middle) if left else []
        for place_in_order, (n, text) in enumerate(zip(fitting, texts, strict=True)):
            added += layout.middle if place_in_order else ()
            added += self._fill(n, self._own[n] + text)
        added += layout.middle if right else ()
        return _insert(row, place, tuple(added), layout), len(fitting)

    def _fitting(self, wanted: Sequence[int], room: int, seed: Sequence[int]) -> list[int]:
        """The wanted rows that fit, in the order of their labels; which go is the seed's choice."""
        least = {
            n: self._own[n]
            + min(self._lengths[n] - self._own[n], FEWEST_TOKENS)
            + len(self._encoder.layout.middle)
            for n in wanted
        }
        if sum(least.values()) <= room:
            return list(wanted)
        kept = set()
        for n in np.random.default_rng(seed).permutation(wanted):
            if least[n] <= room:
                kept.add(int(n))
                room -= least[n]
        return [n for n in wanted if n in kept]

    def _fill(self, n: int, limit: int) -> tuple[int, ...]:
        return self._encoder.fill_in(self._tokens[n], self._words[n], limit)


def _insert(row: Encoded, place: int, tokens: tuple[int, ...], layout: Layout) -> Encoded:
    """A row with tokens put in; behind the text of a row of one segment, they are a second."""
    ids = row.ids[:place] + tokens + row.ids[place:]
    slot = row.slot + (len(tokens) if place <= row.slot else 0)
    boundary = row.boundary
    if boundary == len(row.ids):  # one segment
        behind = place == len(row.ids) - len(layout.suffix)
        boundary = place + len(layout.middle) if behind else len(ids)
    elif place < boundary:
        boundary += len(tokens)
    return Encoded(ids, slot, boundary)
