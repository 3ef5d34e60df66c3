"""Which rows have the same text: 8 bytes per row, so that tables of millions of rows fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

NO_TEXT = 0  # the hash of a row whose text columns are all empty
SEPARATOR = "\x1f"  # between columns; no folded text has it, since it counts as whitespace


def fold(text: str) -> str:
    """A text as it is compared: without regard to case and to kinds and amounts of whitespace.

    >>> fold("  Good\\n DAY ")
    'good day'
    """
    return " ".join(text.split()).casefold()


def text_hashes(table: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> Hashes:
    """A hash (rows,) of each row's text columns, folded; `NO_TEXT` for a row without text."""
    texts = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return np.fromiter((_hash(row) for row in texts), np.uint64, table.num_rows)


def known_texts(hashes: Sequence[Hashes]) -> Hashes:
    """The hashes of several tables that stand for a text, each once and sorted.

    >>> known_texts([np.array([7, 0], np.uint64), np.array([7, 3], np.uint64)]).tolist()
    [3, 7]
    """
    values = np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes]))
    return np.asarray(values[values != NO_TEXT])


def is_known(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """(rows,) whether each row's text is among those of `known_texts`."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    nearest = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[nearest] == hashes)


def count_repeats(hashes: Hashes) -> int:
    """How many rows repeat the text of an earlier row.

    >>> count_repeats(np.array([7, 0, 7, 0, 7, 3], np.uint64))
    2
    """
    texts = hashes[hashes != NO_TEXT]
    return len(texts) - len(np.unique(texts))


def _hash(texts: Sequence[str]) -> int:
    folded = SEPARATOR.join(fold(text) for text in texts)
    if not folded.strip(SEPARATOR):
        return NO_TEXT
    digest = hashlib.blake2b(folded.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
