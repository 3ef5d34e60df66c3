"""Log-probabilities at a position are those of the model's whole forward pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import CPU, HAPPY, SAD

from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import pattern_of
from pet_pipeline.search.log_probs import log_probs_at

ROWS = [{"x": text} for text in SAD + HAPPY]


@pytest.mark.parametrize("offset", [0, -1])  # at the slot, and before it
def test_log_probabilities_are_the_models(tiny_mlm: Path, offset: int) -> None:
    lm = MaskedLM.load(ModelFolder(tiny_mlm), replace(CPU, batch_tokens=20))
    pattern = pattern_of("p", "{x} so {mask}", ("a", "b"), (("bad",), ("good",)))
    rows = PatternEncoder(pattern, lm.tokenizer, 48).encode(ROWS)
    positions = [row.slot.start + offset for row in rows]
    found = log_probs_at(lm, rows, positions, np.array([3, 50, 7]))
    assert found.shape == (8, 3)
    for row, position, values in zip(rows, positions, found, strict=True):
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([row.ids])).logits[0, position]
        assert values == pytest.approx(logits.log_softmax(-1)[[3, 50, 7]].numpy(), abs=1e-5)
