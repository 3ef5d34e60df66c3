"""The inputs that a masked LM is trained on and those that it is measured on, drawn from texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded, EncodedRows, Role
from pet_pipeline.encoding import Layout
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import Adaptation
from pet_pipeline.seeds import seed_from

HELD_OUT = 0.1  # of the texts, at most
SPARE = 1.2  # texts held out, against the number that would do if all were of the mean length
MEASURED = 500  # texts that the mean length is taken of

Numbers = npt.NDArray[np.int64]  # of rows

# Some rows of a table: how many, and a function from numbers of them to inputs
Chunk = tuple[int, Callable[[Sequence[int]], list[Encoded]]]


@dataclass(frozen=True)
class Corpus:
    """Inputs to train on, and others, of the same texts whatever the budget, to measure on."""

    train: EncodedRows
    held_out: EncodedRows

    @classmethod
    def read(
        cls,
        n_rows: int,
        chunks: Callable[[], Iterable[Chunk]],
        adaptation: Adaptation,
        layout: Layout,
    ) -> Corpus:
        """A seeded sample of some texts, no larger than the tokens that are trained on.

        n_rows: of all chunks; chunks: a function that reads them from the start
        Raises `UserError` if there is no text to train or to measure on.
        """
        order = np.random.default_rng(seed_from("corpus")).permutation(n_rows)
        length = _mean_length(chunks(), order[:MEASURED])
        n_held = math.ceil(SPARE * adaptation.held_out / adaptation.masked / length)
        n_held = min(n_held, max(1, int(HELD_OUT * n_rows)))
        passes = adaptation.passes
        n_train = math.ceil(passes * n_rows if passes else adaptation.tokens / length)
        held = np.sort(order[:n_held])
        trained = np.sort(order[n_held : n_held + n_train])
        parts = (EncodedRows(), EncodedRows())
        packs = [Packing(layout, adaptation.max_tokens) for _ in parts]
        for rows in _selected(chunks(), (trained, held)):
            for part, pack, chosen in zip(parts, packs, rows, strict=True):
                texts = [row for row in chosen if has_text(row)]
                for row in pack.add(texts) if adaptation.packed else texts:
                    part.append(row)
        for part, pack in zip(parts, packs, strict=True):
            for row in pack.rest():
                part.append(row)
        if not all(map(len, parts)):
            raise UserError(f"{n_rows} rows, not enough of them with text; two are needed at least")
        return cls(*parts)

    def plan(self, adaptation: Adaptation) -> Adaptation:
        """The same adaptation with the steps that its passes take, if it is given in passes."""
        if not adaptation.passes:
            return adaptation
        # For a part of a pass, only so many texts are there.
        tokens = max(1.0, adaptation.passes) * float(self.train.lengths.sum())
        return replace(adaptation, steps=max(1, int(tokens / adaptation.update_tokens)))


class Packing:
    """Texts one after the other, cut into sequences of one length."""

    def __init__(self, layout: Layout, max_tokens: int):
        self.layout, self.room = layout, max_tokens - len(layout.prefix) - len(layout.suffix)
        self._left = Encoded.of((), Role.TEXT)

    def add(self, rows: Iterable[Encoded]) -> Iterator[Encoded]:
        """The sequences that some more texts fill, each text with the tokens that end an input."""
        for row in rows:
            own = row[len(self.layout.prefix) :]
            stream = self._left + Encoded(own.ids, own.roles, bytes(len(own)))  # of one segment
            full = len(stream) // self.room * self.room
            for start in range(0, full, self.room):
                yield self._sequence(stream[start : start + self.room])
            self._left = stream[full:]

    def rest(self) -> Iterator[Encoded]:
        """The last sequence, if texts are left for it."""
        if has_text(self._left):
            yield self._sequence(self._left)

    def _sequence(self, tokens: Encoded) -> Encoded:
        before = Encoded.of(self.layout.prefix, Role.SPECIAL)
        return before + tokens + Encoded.of(self.layout.suffix, Role.SPECIAL)


def has_text(row: Encoded) -> bool:
    """Whether an input has anything to be predicted."""
    return Role.TEXT in row.roles


def _mean_length(chunks: Iterable[Chunk], numbers: Numbers) -> float:
    """The mean number of tokens of some texts, by their numbers."""
    lengths = [len(row) for (rows,) in _selected(chunks, [np.sort(numbers)]) for row in rows]
    return max(1.0, float(np.mean(lengths))) if lengths else 1.0


def _selected(chunks: Iterable[Chunk], numbers: Sequence[Numbers]) -> Iterator[list[list[Encoded]]]:
    """Of each chunk the inputs of each group of row numbers, which are sorted."""
    start = 0
    for count, encode in chunks:
        inside = [n[slice(*np.searchsorted(n, (start, start + count)))] - start for n in numbers]
        encoded = iter(encode(list(itertools.chain.from_iterable(n.tolist() for n in inside))))
        yield [list(itertools.islice(encoded, len(n))) for n in inside]
        start += count
