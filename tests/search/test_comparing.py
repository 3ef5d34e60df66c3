"""Templates are compared from the same weights, on rows that they were not tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from testing import CPU, HAPPY, SAD

from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import Optimisation, Tuning
from pet_pipeline.patterns import Pattern, pattern_of
from pet_pipeline.search.comparing import Fold, tuned_scores

ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4
TUNING = Tuning(Optimisation(learning_rate=1e-2, batch_size=4), steps=3)


def test_every_template_starts_from_the_same_weights(tiny_mlm: Path) -> None:
    lm = MaskedLM.load(ModelFolder(tiny_mlm), CPU)
    words = (("bad",), ("great",))
    patterns = [
        pattern_of("", t, ("a", "b"), words)
        for t in ("{x} it was {mask}.", "just {mask}! {x}", "{x} so {mask}")
    ]
    weights = {name: p.clone() for name, p in lm.model.state_dict().items()}

    def scores(chosen: list[Pattern], held: tuple[int, ...] = (0, 4)) -> Any:
        lm.model.load_state_dict(weights)
        fold = Fold(ROWS, GOLD, held)
        return tuned_scores(lm, chosen, fold, max_tokens=48, tuning=TUNING, seed=3)

    found = scores(patterns)
    assert found.shape == (3, 2, 2)
    assert scores(patterns[::-1])[::-1] == pytest.approx(found)
    assert scores(patterns[2:]) == pytest.approx(found[2:])
    assert scores(patterns, held=()).shape == (3, 0, 2)
    assert not torch.equal(lm.model.state_dict()[next(iter(weights))], torch.zeros(1))
