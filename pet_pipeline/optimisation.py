"""What a training is decided by: rates, batches, steps; `training` carries these values out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.soft_tokens import SoftTokens

PART = "trained.safetensors"  # in a PVP's folder: what was trained, if that is not all
PROTOTYPES = "prototypes.safetensors"  # beside it: the labels' prototypes, if there are any


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
class Updates:
    """So many updates; a step's rows and dropout go by the seed and the step's number."""

    optimisation: Optimisation
    steps: int
    seed: int


@dataclass(frozen=True)
class MlmLoss:
    """PET's auxiliary masked-LM loss on unlabelled texts (2001.07676, section 3.1)."""

    weight: float  # a in (1-a)*CE + a*MLM
    texts: int = 3  # for each labelled row
    masked: float = 0.15  # fraction of their tokens


@dataclass(frozen=True)
class Contrast:
    """A supervised contrastive loss between two views of each row (2205.01308, section 3).

    view: what makes the second one, "dropout", "pattern" or "demonstrations"
    """

    weight: float
    temperature: float
    view: str


@dataclass(frozen=True)
class Prompt:
    """What a soft method trains: vectors at the soft tokens, their start, what else is trained.

    start: "labels" or "vocabulary", for tokens without words; source: the file of a tuned PVP's
    prompt, at which this one starts instead
    """

    tokens: SoftTokens
    deep: bool = True  # of the method "soft": the perturbations in front of every layer
    encoder: str = "lstm"  # of p_tuning: or "mlp"
    start: str = "labels"
    source: Path | None = None
    model_rate: float = 0.0  # learning rate of the model; 0 leaves it as it is


@dataclass(frozen=True)
class Method:
    """What of a masked LM is trained; everything, unless another way is named."""

    name: str = "full"
    lora_rank: int = 0
    prompt: Prompt | None = None

    @property
    def soft_tokens(self) -> SoftTokens | None:
        """The trainable tokens that inputs have; None if they have none."""
        return self.prompt.tokens if self.prompt else None

    @property
    def tunes_model(self) -> bool:
        """Whether all of the model is trained."""
        return self.name == "full" or bool(self.prompt and self.prompt.model_rate)


@dataclass(frozen=True)
class Tuning:
    """How a PVP is tuned."""

    optimisation: Optimisation
    steps: int
    mlm: MlmLoss | None = None
    contrast: Contrast | None = None


@dataclass(frozen=True)
class PrototypeSettings:
    """How the labels' prototypes are learned (2203.09770)."""

    size: int = 128  # dimensions
    steps: int = 30
    learning_rate: float = 0.01


@dataclass(frozen=True)
class Adaptation:
    """How a masked LM is trained further on unlabelled texts (TAPT, 2004.10964, section 4).

    optimisation: its batch size is in sequences of `max_tokens`; an update of shorter ones has
    more, so that it holds as many tokens
    """

    optimisation: Optimisation
    steps: int  # 0 while only `passes` are known
    max_tokens: int  # of a sequence
    passes: float = 0.0  # times the texts are read, which tell the steps; 0 if they are given
    packed: bool = False  # text after text fills a sequence; else one text is one sequence
    masked: float = 0.15  # fraction of the tokens to be predicted
    whole_words: bool = False
    keep_weight: float = 0.0  # of the distance to a teacher's embeddings; 0 without a teacher
    held_out: int = 5000  # predicted tokens that the result is measured on, if there are as many

    @property
    def update_tokens(self) -> int:
        """The tokens of an update, at most."""
        return self.optimisation.batch_size * self.max_tokens

    @property
    def tokens(self) -> int:
        """The tokens of all updates, at most."""
        return self.steps * self.update_tokens


@dataclass(frozen=True)
class Distillation:
    """How a classifier is trained on soft labels (1503.02531, section 2)."""

    optimisation: Optimisation
    steps: int
    temperature: float
    gold_weight: float  # of the labelled rows in the loss; 0 without any
    max_tokens: int
