"""What the stages hand to each other: results with the words a pipeline uses for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pet_pipeline.data import part_name
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern
from pet_pipeline.run import Result

TABLE = "table.parquet"
ENCODED = "tokens.parquet"
SCORES = "scores.parquet"


@dataclass(frozen=True)
class Tables:
    """The prepared tables, and their rows put into each pattern.

    encoded: by pattern, the result of each pool shard; encoded_extra: by pattern and table
    """

    pool: Result
    n_shards: int
    labelled: Result | None = None
    test: Result | None = None
    development: Result | None = None
    checked: Result | None = None
    encoded: dict[str, list[Result]] = field(default_factory=dict)
    encoded_extra: dict[tuple[str, str], Result] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A PVP tuned with one seed; it has the base's weights if there was nothing to tune on."""

    name: str
    pattern: Pattern
    seed: int
    base: Pretrained
    result: Result


@dataclass(frozen=True)
class Scores:
    """What one model says of the pool's shards, and of the test and development tables."""

    model: Model
    shards: tuple[Result, ...]
    extra: dict[str, Result]


@dataclass(frozen=True)
class Generation:
    """Models of one generation, what they say, and the soft labels they make together."""

    number: int
    scores: list[Scores]
    soft: Result
    grown: dict[str, Result]  # by model, the training set that was added


def weights_of(result: Result, base: Pretrained) -> Pretrained:
    """Where a model's weights are."""
    folder = result.dir / "model"
    return folder if folder.exists() else base


def shard_file(pool: Result, index: int) -> Path:
    """The file of a pool's shard."""
    return pool.dir / part_name(index)


def info_of(result: Result | None) -> dict[str, Any]:
    """What a result says of itself; nothing if there is none."""
    return result.info if result else {}
