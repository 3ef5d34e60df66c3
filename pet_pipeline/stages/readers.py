"""A tuned model as it reads rows: what scoring the pool and measuring a prior have in common."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import PART, PROTOTYPES
from pet_pipeline.patterns import Pattern
from pet_pipeline.run import Run
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.stages.demonstrate import Examples, read_vectors
from pet_pipeline.stages.from_settings import precision, soft_tokens
from pet_pipeline.stages.results import MODEL, Base, Inputs, Model, weights_of
from pet_pipeline.units import Result

if TYPE_CHECKING:
    from pet_pipeline.mlm import MaskedLM
    from pet_pipeline.pvp import Pvp


@dataclass(frozen=True)
class Reader:
    """A model with its pattern, how its label words are decoded, and what it is shown."""

    base: Base
    model: Result
    pattern: Pattern
    soft: SoftTokens | None
    max_tokens: int
    decoding: str
    examples: Examples | None
    draws: int  # sets of examples whose scores are averaged
    labelled_vectors: Result | None  # embeddings of the examples
    precision: str

    def load(self, compute: Compute) -> Pvp:
        """The model, ready to score rows; the last one is kept."""
        pvp = _load(self.model, self.base, self.pattern, self.soft, self.max_tokens,
                    compute.at(self.precision))  # fmt: skip
        pvp.decoding, pvp.prior, pvp.demonstrations = self.decoding, None, None
        if self.examples:
            vectors = read_vectors(self.labelled_vectors)
            pvp.demonstrations = self.examples.demonstrations(
                pvp.encoder, vectors, draws=self.draws
            )
        return pvp


def reader_of(
    run: Run, model: Model, inputs: Inputs, settings: Settings, examples: Examples | None
) -> Reader:
    """How the settings let a model read rows."""
    return Reader(
        base=model.base,
        model=model.result,
        pattern=model.pattern,
        soft=soft_tokens(settings),
        max_tokens=settings.finetune.max_tokens,
        decoding=settings.annotate.decoding,
        examples=examples,
        draws=settings.demonstrations.draws if examples else 1,
        labelled_vectors=inputs.vectors if examples else None,
        precision=precision(run, settings),
    )


def release() -> None:
    """Forget the model that is kept: what comes next needs the memory."""
    _load.cache_clear()
    _load_weights.cache_clear()


@functools.lru_cache(maxsize=1)  # the shards of a model come one after the other
def _load(
    model: Result,
    base: Base,
    pattern: Pattern,
    soft: SoftTokens | None,
    max_tokens: int,
    compute: Compute,
) -> Pvp:
    """A tuned model with its pattern; what was trained is put into a base that is loaded once."""
    from pet_pipeline.pvp import Pvp

    part = model.dir / MODEL / PART
    made_by = base if part.exists() else model
    key = made_by.key if isinstance(made_by, Result) else ""
    lm = _load_weights(weights_of(model, base), key, compute)
    prototypes = model.dir / MODEL / PROTOTYPES
    pvp = Pvp.of(
        lm,
        pattern,
        max_tokens,
        soft=soft,
        part=part if part.exists() else None,
        prototypes=prototypes if prototypes.exists() else None,
    )
    if pvp.trained and not pvp.trained.prompt:
        pvp.trained.merge()
    return pvp


@functools.lru_cache(maxsize=1)
def _load_weights(weights: Pretrained, key: str, compute: Compute) -> MaskedLM:
    """A masked LM; key: of the unit that made it, if one did: its folder may get another."""
    from pet_pipeline.mlm import MaskedLM

    return MaskedLM.load(weights, compute)
