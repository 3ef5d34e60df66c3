"""A tuned model as it reads rows: what scoring the pool and measuring a prior have in common."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern
from pet_pipeline.run import Run
from pet_pipeline.stages.demonstrate import Examples, read_vectors
from pet_pipeline.stages.from_settings import precision
from pet_pipeline.stages.results import Inputs, Model, weights_of
from pet_pipeline.units import Result

if TYPE_CHECKING:
    from pet_pipeline.pvp import Pvp


@dataclass(frozen=True)
class Reader:
    """A model with its pattern, how its label words are decoded, and what it is shown."""

    base: Pretrained
    model: Result
    pattern: Pattern
    max_tokens: int
    decoding: str
    examples: Examples | None
    draws: int  # sets of examples whose scores are averaged
    labelled_vectors: Result | None  # embeddings of the examples
    precision: str

    def load(self, compute: Compute) -> Pvp:
        """The model, ready to score rows; the last one is kept."""
        weights, compute = weights_of(self.model, self.base), compute.at(self.precision)
        pvp = _load(weights, self.model.key, self.pattern, self.max_tokens, compute)
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


@functools.lru_cache(maxsize=1)  # the shards of a model come one after the other
def _load(
    weights: Pretrained, key: str, pattern: Pattern, max_tokens: int, compute: Compute
) -> Pvp:
    """A model with its pattern; key: of the unit that tuned it."""
    from pet_pipeline.pvp import Pvp

    return Pvp.load(weights, pattern, max_tokens=max_tokens, compute=compute)
