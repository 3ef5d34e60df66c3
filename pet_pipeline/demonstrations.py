"""Demonstrations: labelled rows as examples in the inputs of others.

One row of each label, drawn from those most similar to the input (2012.15723, section 6).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.tables import Floats
from pet_pipeline.truncation import shorten

FEWEST_TOKENS = 6  # of a text in a demonstration; with fewer it shows nothing
NO_ROW = -1

Choice = npt.NDArray[np.int64]  # (rows, labels) the labelled row drawn for each label


@dataclass(frozen=True)
class Rows:
    """Rows in a pattern, and what their demonstrations are drawn by.

    vectors: (rows, dimensions) embeddings of length 1, or None to draw whatever the rows are;
    support: each row's number among those that are drawn, or `NO_ROW`: none is drawn for itself;
    second: the rows in a second pattern, where there is one
    """

    encoded: Sequence[Encoded]
    vectors: Floats | None = None
    support: Sequence[int] | None = None
    second: Sequence[Encoded] = ()

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, numbers: Sequence[int]) -> Rows:
        """Some of the rows."""
        vectors = None if self.vectors is None else self.vectors[list(numbers)]
        support = None if self.support is None else [self.support[n] for n in numbers]
        second = [self.second[n] for n in numbers] if self.second else ()
        return Rows([self.encoded[n] for n in numbers], vectors, support, second)


class Demonstrations:
    """Labelled rows to draw from, and to insert into inputs of one pattern.

    An input itself is never cut for them. gold: (rows,) label numbers; vectors: (rows,
    dimensions) of length 1, or None; fraction: how many of a label's rows, the most similar ones,
    are drawn from; draws: how many sets are drawn for scores
    """

    def __init__(
        self,
        encoder: PatternEncoder,
        rows: Sequence[Mapping[str, str]],
        gold: Sequence[int],
        *,
        max_tokens: int,
        vectors: Floats | None = None,
        fraction: float = 1.0,
        draws: int = 1,
    ):
        self.max_tokens, self.draws = max_tokens, draws
        self._encoder, self._gold = encoder, np.asarray(gold)
        self._vectors, self._fraction = vectors, fraction
        self._tokens = encoder.tokenise(rows)
        # A label of several words is shown with its first.
        self._words = [encoder.words.tokens[label][0] for label in gold]
        self._lengths = [len(self._fill(n, sys.maxsize)) for n in range(len(rows))]
        self._own = [len(self._fill(n, 0)) for n in range(len(rows))]

    def insert(self, rows: Rows, seed: int) -> list[Encoded]:
        """The rows with one draw of demonstrations, by the seed."""
        return [row for row, _ in self._inserted(rows, self.draw(rows, seed), seed)]

    def room(self, rows: Rows, seed: int) -> tuple[float, float]:
        """Of one draw, how many demonstrations an input has, and how many did not fit: means."""
        choice = self.draw(rows, seed)
        count = sum(n for _, n in self._inserted(rows, choice, seed))
        wanted, n_rows = int((choice != NO_ROW).sum()), max(1, len(rows))
        return count / n_rows, (wanted - count) / n_rows

    def draw(self, rows: Rows, seed: int) -> Choice:
        """One labelled row of each label for each row; `NO_ROW` where there is none."""
        order = np.random.default_rng(seed).random((len(rows), len(self._gold)))
        near = self._similarity(rows.vectors)
        itself = np.zeros(order.shape, bool)
        for row, number in enumerate(rows.support or ()):
            if number != NO_ROW:
                itself[row, number] = True
        chosen = np.full((len(rows), len(self._encoder.pattern.labels)), NO_ROW, np.int64)
        for label in range(chosen.shape[1]):
            columns = np.flatnonzero(self._gold == label)
            allowed = ~itself[:, columns]
            if near is not None and len(columns):
                allowed &= self._nearest(np.where(allowed, near[:, columns], -np.inf))
            if len(columns):
                best = np.where(allowed, order[:, columns], -1).argmax(1)
                chosen[:, label] = np.where(allowed.any(1), columns[best], NO_ROW)
        return chosen

    def _similarity(self, vectors: Floats | None) -> Floats | None:
        if vectors is None or self._vectors is None or self._fraction == 1:
            return None
        return np.asarray(vectors @ self._vectors.T)

    def _nearest(self, near: Floats) -> npt.NDArray[np.bool_]:
        """(rows, support of a label) True for each row's most similar fraction."""
        count = max(1, int(np.ceil(self._fraction * near.shape[1])))
        rank = (-near).argsort(1, kind="stable").argsort(1, kind="stable")
        return np.asarray(rank < count)

    def _inserted(self, rows: Rows, choice: Choice, seed: int) -> list[tuple[Encoded, int]]:
        return [
            self._insert(row.without(Role.DEMONSTRATION), self._location(row), drawn, (seed, n))
            for n, (row, drawn) in enumerate(zip(rows.encoded, choice.tolist(), strict=True))
        ]

    def _location(self, row: Encoded) -> int:
        """Where demonstrations go: at the token of their role, or at the end of the input."""
        if Role.DEMONSTRATION in row.roles:
            return row.where(Role.DEMONSTRATION).start
        return len(row) - len(self._encoder.layout.suffix)

    def _insert(
        self, row: Encoded, location: int, drawn: Sequence[int], seed: Sequence[int]
    ) -> tuple[Encoded, int]:
        """A row with the drawn demonstrations that there is room for, and their number."""
        layout = self._encoder.layout
        left = location > len(layout.prefix)
        right = location < len(row) - len(layout.suffix)
        room = self.max_tokens - len(row)
        # n demonstrations have n - 1 separators between them, and those at their ends
        ends = (left + right - 1) * len(layout.middle)
        fitting = self._fitting([n for n in drawn if n != NO_ROW], room - ends, seed)
        if not fitting:
            return row, 0
        room -= ends + len(fitting) * len(layout.middle)
        texts = shorten(
            [self._lengths[n] - self._own[n] for n in fitting],
            room - sum(self._own[n] for n in fitting),
        )
        examples = [
            self._fill(n, self._own[n] + text) for n, text in zip(fitting, texts, strict=True)
        ]
        return self._splice(row, location, examples, left=left, right=right), len(fitting)

    def _splice(
        self,
        row: Encoded,
        location: int,
        examples: Sequence[Sequence[int]],
        *,
        left: bool,
        right: bool,
    ) -> Encoded:
        """The row with examples at a location, and separators where they touch something."""
        middle = self._encoder.layout.middle
        one_segment = 1 not in row.segments
        segment = 0 if one_segment else row.segments[min(location, len(row) - 1)]
        added = Encoded.of(middle if left else (), Role.SPECIAL, segment)
        if one_segment and not right:  # after a text of one segment they are the second
            row = row[:location] + Encoded.of(row.ids[location:], Role.SPECIAL, 1)
            segment = 1
        for number, ids in enumerate(examples):
            added += Encoded.of(middle if number else (), Role.SPECIAL, segment)
            added += Encoded.of(ids, Role.DEMONSTRATION, segment)
        added += Encoded.of(middle if right else (), Role.SPECIAL, segment)
        return row.splice(slice(location, location), added)

    def _fitting(self, wanted: Sequence[int], room: int, seed: Sequence[int]) -> list[int]:
        """The wanted rows that fit, in the order of their labels; which are left is the seed's."""
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
