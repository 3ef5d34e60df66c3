"""Which tokens make a word together, by what the vocabulary says of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded
from pet_pipeline.encoding import Tokenizer

CONTINUES = "##"  # before a token that is not a word's first, in a WordPiece vocabulary
SPACES = "Ġ▁Ċĉ"  # before a word's first token, in other vocabularies; the last two end a line


@dataclass(frozen=True)
class Joins:
    """For each token of a vocabulary, whether it joins the one before it, and the one after."""

    before: npt.NDArray[np.bool_]  # (vocabulary,)
    after: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """As the spelling of the vocabulary's tokens says.

        Without marks of WordPiece, letters and digits join those before them unless a space is
        between.
        """
        names: dict[str, int] = tokenizer.get_vocab()
        size = max(names.values()) + 1
        before, after = np.zeros(size, bool), np.zeros(size, bool)
        marked = any(name.startswith(CONTINUES) and len(name) > 2 for name in names)
        for name, token in names.items():
            first, written = name[:1], name.lstrip(SPACES)
            letter = first.isalnum() and first not in SPACES
            before[token] = name.startswith(CONTINUES) if marked else letter
            after[token] = marked or not written or written[-1].isalnum()
        special = np.array(tokenizer.all_special_ids, np.int64)
        before[special] = after[special] = False
        return cls(before, after)

    def starts(self, row: Encoded, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(positions,) Whether each of some positions of a row, in order, begins a word."""
        ids = np.array(row.ids, np.int64)[positions]
        joined = self.before[ids[1:]] & self.after[ids[:-1]] & (np.diff(positions) == 1)
        starts = np.ones(len(ids), bool)
        starts[1:] = ~joined
        return starts
