"""What a training is decided by: rates, batches, steps; `training` carries these values out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimisation:
    """AdamW with linear warm-up and decay."""

    learning_rate: float  # the highest
    batch_size: int = 16  # rows per update
    batch_tokens: int = 6000  # tokens of an update computed at once: dropout depends on it
    warmup: float = 0.1  # fraction of the steps
    weight_decay: float = 0.01
    clip: float = 1.0
    frozen_embeddings: bool = True
    balanced: bool = True  # rows of rarer labels are taken more often


@dataclass(frozen=True)
class MlmLoss:
    """PET's auxiliary masked-LM loss on unlabelled texts (2001.07676, section 3.1)."""

    weight: float  # a in (1-a)*CE + a*MLM
    texts: int = 3  # for each labelled row
    masked: float = 0.15  # fraction of their tokens


@dataclass(frozen=True)
class Tuning:
    """How a PVP is tuned."""

    optimisation: Optimisation
    steps: int
    mlm: MlmLoss | None = None


@dataclass(frozen=True)
class Distillation:
    """How a classifier is trained on soft labels (1503.02531, section 2)."""

    optimisation: Optimisation
    steps: int
    temperature: float
    gold_weight: float  # of the labelled rows in the loss; 0 without any
    max_tokens: int
