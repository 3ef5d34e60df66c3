"""Log-probabilities of tokens at one position of each input, as the untuned model has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pet_pipeline.encoded import Encoded
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.tables import Floats


def log_probs_at(
    lm: MaskedLM,
    rows: Sequence[Encoded],
    positions: Sequence[int],
    tokens: npt.NDArray[np.int64],
) -> Floats:
    """Log-probabilities (rows, tokens) over the whole vocabulary of some of its tokens, float32.

    positions: (rows,) of the token that is predicted
    """
    columns = torch.from_numpy(tokens).to(lm.device)

    def forward(batch: list[int]) -> Tensor:
        at = [(n, positions[row]) for n, row in enumerate(batch)]
        inputs = lm.inputs([rows[row] for row in batch])
        return lm.logits(inputs, torch.tensor(at, device=lm.device)).log_softmax(-1)[:, columns]

    return lm.read(rows, forward)
