"""Which tokens go when a text is too long: from the ends of the longest columns first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tokens:
    """Tokens of a chunk of a template: literal words and columns in a row."""

    ids: list[int]
    owners: npt.NDArray[np.int64]  # (tokens,) index of each token's part
    turns: list[int]  # (parts,) 1 is shortened first, 2 if that is not enough, 0 never

    @property
    def literal(self) -> npt.NDArray[np.bool_]:
        """(tokens,) True for those of the template's own words."""
        return np.asarray(np.array(self.turns, np.int64)[self.owners] == 0)


def truncate(chunks: Sequence[Tokens], budget: int) -> tuple[Sequence[Tokens], bool]:
    """The chunks with as many tokens taken from the ends of columns as the budget asks."""
    total = sum(len(chunk.ids) for chunk in chunks)
    for turn in (1, 2):
        chunks = _cut(chunks, budget, turn)
    return chunks, total > budget


def _cut(chunks: Sequence[Tokens], budget: int, turn: int) -> Sequence[Tokens]:
    total = sum(len(chunk.ids) for chunk in chunks)
    if total <= budget:
        return chunks
    counts = [
        (n, part, int((chunk.owners == part).sum()))
        for n, chunk in enumerate(chunks)
        for part, own_turn in enumerate(chunk.turns)
        if own_turn == turn
    ]
    lengths = [count for *_, count in counts]
    kept = shorten(lengths, budget - (total - sum(lengths)))
    result = []
    for n, chunk in enumerate(chunks):
        keep = np.ones(len(chunk.ids), bool)
        for (owner, part, count), left in zip(counts, kept, strict=True):
            if owner == n and left < count:
                keep[np.flatnonzero(chunk.owners == part)[left:]] = False
        ids = [i for i, k in zip(chunk.ids, keep, strict=True) if k]
        result.append(Tokens(ids, chunk.owners[keep], chunk.turns))
    return result


def shorten(lengths: Sequence[int], budget: int) -> list[int]:
    """Lengths that fit the budget, taken from the longest (of equal ones from the later).

    >>> shorten([10, 3, 7], 12)
    [5, 3, 4]
    """
    if sum(lengths) <= budget:
        return list(lengths)
    low, high = 0, max(lengths, default=0)  # the largest cap that still fits
    while low < high:
        cap = (low + high + 1) // 2
        if sum(min(length, cap) for length in lengths) <= budget:
            low = cap
        else:
            high = cap - 1
    kept = [min(length, low) for length in lengths]
    spare = max(budget, 0) - sum(kept)
    for i, length in enumerate(lengths):
        if length > low and spare > 0:
            kept[i] += 1
            spare -= 1
    return kept
