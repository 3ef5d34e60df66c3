"""One word for each label out of lists of candidates: the exact best assignment.

An assignment is as good as the labelled rows it gets right, each by a word that scores higher
than every other label's. Whether one word beats another on a label's rows is one bit per row, so
the rows of a label are packed into integers, and a whole grid of assignments is compared by
`and` and a count of bits. (LM-BFF, 2012.15723, section 5.1, compares them one by one.) Equal
counts are decided by the mean margin.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pet_pipeline.tables import Floats

MOST_EXACT = 10**9  # assignments that are all compared; beyond, coordinate ascent
RESTARTS = 20
GRID = 2**18  # assignments that are compared in one array

Counts = npt.NDArray[np.int64]
Judged = tuple[int, float, tuple[int, ...]]  # rows correct, margin, the choice for each label


@dataclass(frozen=True)
class Assignment:
    """The word of each label, the rows these words get right, and their mean margin.

    The margin is the mean over labels of how much their word scores on their own rows above the
    other labels' words, in the scores' unit.
    """

    words: tuple[int, ...]
    correct: int
    margin: float
    exact: bool


def best_assignment(
    scores: Floats,
    gold: Sequence[int],
    candidates: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    most_exact: int = MOST_EXACT,
) -> Assignment:
    """The assignment of words to labels that gets most rows right, of equal ones by margin.

    scores: (rows, words); gold: (rows,) label numbers; candidates: the words, by their column,
    that each label may have. No word serves two labels. Raises `ValueError` if none is possible.
    """
    exact = math.prod(len(words) for words in candidates) <= most_exact
    if exact:
        correct, margin, chosen = _search_all(_Tables(scores, gold, candidates))
    else:
        correct, margin, chosen = _climb(scores, gold, candidates, seed)
    words = tuple(candidates[y][n] for y, n in enumerate(chosen))
    return Assignment(words, correct, margin, exact)


class _Tables:
    """What each assignment is judged by, for pairs of labels and for single labels."""

    def __init__(
        self, scores: Floats, gold: Sequence[int], candidates: Sequence[Sequence[int]]
    ) -> None:
        self.labels = range(len(candidates))
        self.sizes = [len(words) for words in candidates]
        words = [np.asarray(columns, np.int64) for columns in candidates]
        own = [scores[np.asarray(gold) == label] for label in self.labels]
        # (words of y, words of c, chunks): the rows of label y where y's word beats c's
        self.beats = [
            [_pack(own[y][:, words[y], None] > own[y][:, None, words[c]]) for c in self.labels]
            for y in self.labels
        ]
        self.clash = [[words[y][:, None] == words[c] for c in self.labels] for y in self.labels]
        self.margin = _margins(scores, gold, candidates)

    def best(self, fixed: Mapping[int, int], free: Sequence[int]) -> Judged | None:
        """The best choice for the free labels with the others fixed: correct, margin, choice.

        None if every choice gives a word to two labels.
        """
        choice: dict[int, Any] = {y: np.int64(n) for y, n in fixed.items()}
        for axis, y in enumerate(free):  # each free label's candidates on an axis of their own
            choice[y] = np.arange(self.sizes[y]).reshape([-1] + [1] * (len(free) - axis - 1))
        shape = [self.sizes[y] for y in free]
        correct = np.zeros(shape, np.int32)
        margin = np.zeros(shape)
        for y in self.labels:
            margin += self.margin[y][choice[y]]
            for chunk in range(self.beats[y][y].shape[-1]):
                rivals = (c for c in self.labels if c != y)
                beaten = (self.beats[y][c][..., chunk][choice[y], choice[c]] for c in rivals)
                correct += np.bitwise_count(functools.reduce(np.bitwise_and, beaten))
        for y, c in itertools.combinations(self.labels, 2):
            if self.clash[y][c].any():
                correct[np.broadcast_to(self.clash[y][c][choice[y], choice[c]], shape)] = -1
        top = int(correct.max())
        ties = np.flatnonzero(correct == top)
        first = ties[margin.flat[ties].argmax()]
        picked = dict(zip(free, np.unravel_index(first, shape), strict=True))
        complete = tuple(int({**fixed, **picked}[y]) for y in self.labels)
        return (top, float(margin.flat[first]), complete) if top >= 0 else None


def _margins(
    scores: Floats, gold: Sequence[int], candidates: Sequence[Sequence[int]]
) -> list[Floats]:
    """What each word (words,) of each label contributes to the margin of an assignment."""
    owner = np.asarray(gold)
    own = [scores[owner == label] for label in range(len(candidates))]
    means = np.stack([part.mean(0) if len(part) else 0 * scores[0] for part in own])
    apart = (means * len(own) - means.sum(0)) / (len(own) - 1) / len(own)
    return [apart[label, list(words)] for label, words in enumerate(candidates)]


def _search_all(tables: _Tables) -> Judged:
    """The best of all assignments, a grid of them at a time."""
    first = len(tables.sizes) - 1
    while first > 0 and math.prod(tables.sizes[first - 1 :]) <= GRID:
        first -= 1
    free = range(first, len(tables.sizes))
    prefixes = itertools.product(*(range(size) for size in tables.sizes[:first]))
    grids = (tables.best(dict(enumerate(prefix)), free) for prefix in prefixes)
    return _first_best(grid for grid in grids if grid)


def _climb(
    scores: Floats, gold: Sequence[int], candidates: Sequence[Sequence[int]], seed: int
) -> Judged:
    """The best that changes of single words lead to, from several assignments.

    The first one is that of the highest margin, the others are random.
    """
    rng = np.random.default_rng(seed)
    margins = _margins(scores, gold, candidates)
    words = np.unique(np.concatenate([np.asarray(c) for c in candidates]))
    ends = []
    for start in range(RESTARTS if len(words) >= len(candidates) else 0):
        worth = np.full((len(candidates), len(words)), -np.inf)
        for y, columns in enumerate(candidates):
            wanted = rng.random(len(columns)) if start else margins[y]
            worth[y, np.searchsorted(words, columns)] = wanted
        try:
            chosen = words[linear_sum_assignment(worth, maximize=True)[1]]
        except ValueError:  # no matching of labels and words
            break
        ends.append(_climb_from(scores, np.asarray(gold), candidates, margins, chosen))
    return _first_best(ends)


def _climb_from(
    scores: Floats,
    gold: Counts,
    candidates: Sequence[Sequence[int]],
    margins: Sequence[Floats],
    chosen: Counts,
) -> Judged:
    """The best reached by changing one label's word at a time; chosen: the first columns."""
    chosen = chosen.copy()
    indices = [list(columns).index(word) for columns, word in zip(candidates, chosen, strict=True)]
    best = (-1, -math.inf)
    improved = True
    while improved:
        improved = False
        for y, columns in enumerate(candidates):
            correct = _correct_with(scores, gold, chosen, y, columns)
            correct[np.isin(columns, np.delete(chosen, y))] = -1
            others = sum(margins[c][n] for c, n in enumerate(indices) if c != y)
            margin = margins[y] + others
            top = np.flatnonzero(correct == correct.max())
            n = int(top[margin[top].argmax()])
            if (int(correct[n]), float(margin[n])) > (best[0], best[1] + 1e-12):
                best = (int(correct[n]), float(margin[n]))
                chosen[y], indices[y] = columns[n], n
                improved = True
    return (*best, tuple(indices))


def _correct_with(
    scores: Floats, gold: Counts, chosen: Counts, y: int, words: Sequence[int]
) -> Counts:
    """Rows that an assignment gets right with each of some words (words,) for label y."""
    rows = np.arange(len(gold))
    rivals = scores[:, chosen]
    own = rivals[rows, gold]
    rivals[:, y] = rivals[rows, gold] = -np.inf
    rival = rivals.max(1)[:, None]
    tried = scores[:, list(words)]
    right = np.where((gold == y)[:, None], tried > rival, own[:, None] > np.maximum(rival, tried))
    return np.asarray(right.sum(0), np.int64)


def _first_best(judged: Iterable[Judged]) -> Judged:
    best = max(judged, key=lambda entry: entry[:2], default=None)
    if best is None:
        raise ValueError("no assignment gives every label a word of its own")
    return best


def _pack(wins: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Bits of rows: (rows, a, b) as (a, b, chunks) of the smallest integers that serve."""
    width = next(bits for bits in (8, 16, 32, 64) if bits >= len(wins) or bits == 64)
    padded = np.zeros((max(1, -(-len(wins) // width)) * width, *wins.shape[1:]), bool)
    padded[: len(wins)] = wins
    packed = np.packbits(padded, axis=0)  # (rows / 8, a, b)
    return np.ascontiguousarray(np.moveaxis(packed, 0, -1)).view(f"u{width // 8}")
