"""Which tokens of a text are to be predicted, and what the model sees in their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.words import Joins

Positions = npt.NDArray[np.int64]  # of tokens in a text


@dataclass(frozen=True)
class MaskedText:
    """A text of which some tokens are predicted."""

    row: Encoded  # with masks, or other tokens, at the positions
    positions: Positions
    targets: npt.NDArray[np.int64]

    @property
    def clean(self) -> Encoded:
        """The text as it was."""
        ids = np.array(self.row.ids, np.int64)
        ids[self.positions] = self.targets
        return replace(self.row, ids=tuple(ids.tolist()))


@dataclass(frozen=True)
class Masking:
    """How tokens are chosen and masked: no special token, prompt or empty slot.

    mask, vocabulary: the mask's id, and how many tokens there are; words: how tokens make words,
    to choose whole words only
    """

    fraction: float  # of the tokens, or words, that is to be predicted
    mask: int
    vocabulary: int
    words: Joins | None = None

    def texts(self, rows: Sequence[Encoded], rng: np.random.Generator) -> list[MaskedText]:
        """The texts masked; those without a token to predict are left out.

        Of the chosen tokens 80 % become masks, 10 % random tokens, 10 % stay (1810.04805, 3.1). At
        least one token of all texts is chosen, if any may be. A slot that has a label word is
        always chosen (2305.01711, section 3).
        """
        allowed = [_maskable(row) for row in rows]
        chosen = [
            self._with_slot(self._choose(row, positions, rng), row)
            for row, positions in zip(rows, allowed, strict=True)
        ]
        if not any(len(positions) for positions in chosen):
            first = next((n for n, positions in enumerate(allowed) if len(positions)), None)
            if first is None:
                return []
            chosen[first] = self._first(rows[first], allowed[first])
        return [
            self._masked(row, positions, rng)
            for row, positions in zip(rows, chosen, strict=True)
            if len(positions)
        ]

    def _choose(self, row: Encoded, positions: Positions, rng: np.random.Generator) -> Positions:
        """Those of some positions that are to be predicted, each token or word as likely."""
        chosen = rng.random(len(positions)) < self.fraction
        if self.words is None:
            return positions[chosen]
        numbers = np.cumsum(self.words.starts(row, positions)) - 1  # of the word that each is in
        return np.asarray(positions[chosen[numbers]])

    def _first(self, row: Encoded, positions: Positions) -> Positions:
        """The first of some positions, with the rest of its word if words are whole."""
        if self.words is None:
            return positions[:1]
        return np.asarray(positions[np.cumsum(self.words.starts(row, positions)) == 1])

    def _with_slot(self, positions: Positions, row: Encoded) -> Positions:
        """The positions, and those of the slot if it has tokens to be predicted."""
        roles = np.frombuffer(row.roles, np.uint8)
        slot = np.flatnonzero((roles == int(Role.MASK)) & (np.array(row.ids) != self.mask))
        return np.asarray(np.union1d(positions, slot)) if len(slot) else positions

    def _masked(self, row: Encoded, positions: Positions, rng: np.random.Generator) -> MaskedText:
        ids = np.array(row.ids, np.int64)
        targets = ids[positions]
        kind = rng.random(len(positions))
        random = rng.integers(self.vocabulary, size=len(positions))
        ids[positions] = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, random, targets))
        masked = Encoded(tuple(ids.tolist()), row.roles, row.segments)
        return MaskedText(masked, positions, targets)


def _maskable(row: Encoded) -> Positions:
    """Positions of the tokens that may be predicted."""
    return np.flatnonzero(
        np.isin(np.frombuffer(row.roles, np.uint8), (int(Role.TEXT), int(Role.TEMPLATE)))
    )
