"""Templates compared: each is tuned for a few steps, and scores the rows that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pet_pipeline.mlm import MaskedLM
from pet_pipeline.optimisation import Tuning
from pet_pipeline.patterns import Pattern
from pet_pipeline.progress import progress
from pet_pipeline.pvp import Pvp
from pet_pipeline.tables import Floats


@dataclass(frozen=True)
class Fold:
    """Labelled rows of which some are held out, by their numbers."""

    rows: Sequence[Mapping[str, str]]
    gold: Sequence[int]
    held: Sequence[int]

    @property
    def rest(self) -> list[int]:
        """The rows that are not held out.

        >>> Fold([{"text": "a"}, {"text": "b"}, {"text": "c"}], [0, 1, 0], [1]).rest
        [0, 2]
        """
        return sorted(set(range(len(self.rows))) - set(self.held))


def tuned_scores(
    lm: MaskedLM,
    patterns: Sequence[Pattern],
    fold: Fold,
    *,
    max_tokens: int,
    tuning: Tuning,
    seed: int,
) -> Floats:
    """Scores (patterns, held rows, labels) after a short fine-tune of each on the other rows.

    The model's weights are restored from memory before each.
    """
    weights = {name: values.clone() for name, values in lm.model.state_dict().items()}
    gold = [fold.gold[n] for n in fold.rest]
    scores = np.zeros((len(patterns), len(fold.held), len(patterns[0].labels)))
    if not fold.held:
        return scores
    with progress("compare templates", len(patterns), "templates") as advance:
        for number, pattern in enumerate(patterns):
            lm.model.load_state_dict(weights)
            # Parallel as in training; the other decoding needs a forward pass per word and token.
            pvp = Pvp.of(lm, pattern, max_tokens, decoding="parallel")
            rows, what = pvp.rows(fold.rows), f"template {number + 1}"
            # The same seed for all: they see the same rows in the same order.
            pvp.tune(rows.take(fold.rest), gold, tuning, seed=seed, what=what)
            scores[number] = pvp.scores(rows.take(fold.held), what=what)
            advance(1)
    return scores
