"""Which rows go together: in a training step, in a batch within a token budget, in a fold."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pet_pipeline.seeds import seed_from

SHORTEST_SHARE = 0.7  # of a batch's longest row; shorter ones would be padding for the most part
FEW_TOKENS = 256  # below, a batch costs the same whatever is in it


def batch_rows(n_rows: int, batch_size: int, *, seed: int, step: int) -> list[int]:
    """The rows of a step: every row once before any row twice, in an order of each pass's own.

    >>> sorted(batch_rows(4, 2, seed=1, step=0) + batch_rows(4, 2, seed=1, step=1))
    [0, 1, 2, 3]
    """
    first = step * batch_size
    rows = []
    for place in range(first, first + batch_size):
        epoch, n = divmod(place, n_rows)
        rows.append(int(_order(n_rows, seed, epoch)[n]))
    return rows


def token_batches(
    lengths: Sequence[int] | npt.NDArray[np.int64], budget: int, *, seed: int
) -> Iterator[list[int]]:
    """The rows of one step after another, without end: as many as hold at most `budget` tokens.

    At least one; every row once before any row twice, in an order of each pass's own.

    >>> steps = token_batches([4, 4, 4], 8, seed=1)
    >>> [len(next(steps)) for _ in range(3)]
    [2, 2, 2]
    """
    rows: list[int] = []
    held = 0
    for epoch in itertools.count():
        for row in np.random.default_rng(seed_from("epoch", seed, epoch)).permutation(len(lengths)):
            if rows and held + lengths[row] > budget:
                yield rows
                rows, held = [], 0
            rows.append(int(row))
            held += int(lengths[row])


def balanced_rows(gold: Sequence[int]) -> list[int]:
    """Row numbers in which every label is as frequent as the most frequent one.

    Rows of rarer labels occur several times, in turn; rows of equally frequent labels once each.

    >>> balanced_rows([0, 0, 0, 1]), balanced_rows([1, 0, 1, 0])
    ([0, 1, 2, 3, 3, 3], [0, 1, 2, 3])
    """
    counts = Counter(gold)
    most = max(counts.values(), default=0)
    seen: Counter[int] = Counter()
    taken = []
    for row, label in enumerate(gold):
        times = (most - seen[label] - 1) // counts[label] + 1
        taken += [row] * times
        seen[label] += 1
    return taken


def cut_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in batches, longest rows first, each within a budget of padded tokens.

    >>> cut_batches([3, 9, 4], 10)
    [[1], [2, 0]]
    """
    batches: list[list[int]] = []
    width = 0
    for n in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        padded = (len(batches[-1]) + 1) * width if batches else 0
        wasteful = lengths[n] < SHORTEST_SHARE * width and padded > FEW_TOKENS
        if not batches or padded > budget or wasteful:
            batches.append([])
            width = max(1, lengths[n])
        batches[-1].append(n)
    return batches


def cut_rows(batch: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The row numbers of a batch, cut by the token budget; lengths: of all rows."""
    parts = cut_batches([lengths[n] for n in batch], budget)
    return [[batch[n] for n in part] for part in parts]


def fold_rows(gold: Sequence[int], folds: int, fold: int) -> list[int]:
    """The rows held out in a fold, stratified by label.

    >>> [fold_rows([0, 0, 1, 1, 1], 2, fold) for fold in range(2)]
    [[0, 2, 4], [1, 3]]
    """
    seen: dict[int, int] = {}
    held = []
    for row, label in enumerate(gold):
        if seen.get(label, 0) % folds == fold:
            held.append(row)
        seen[label] = seen.get(label, 0) + 1
    return held


@functools.lru_cache(maxsize=4)
def _order(n_rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed_from("epoch", seed, epoch)).permutation(n_rows)
