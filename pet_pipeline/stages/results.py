"""What the stages hand to each other: results with the words a pipeline uses for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pet_pipeline.data import part_name, read_rows
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Field, Pattern
from pet_pipeline.run import IN_KEY, Result

TABLE = "table.parquet"
ENCODED = "tokens.parquet"
SCORES = "scores.parquet"
VECTORS = "vectors.parquet"


@dataclass(frozen=True)
class FoundPattern(Pattern):
    """A pattern that a search writes. It counts by the search, not by what that finds.

    So a plan can be made, and keys be known, before the search was run; it has no parts then.
    """

    parts: tuple[str | Field, ...] = field(metadata={IN_KEY: False})
    words: tuple[tuple[str, ...], ...] = field(metadata={IN_KEY: False})
    found_by: Result


@dataclass(frozen=True)
class Tables:
    """The prepared tables, and their rows put into each pattern.

    checked: what is known of the patterns; encoded: by pattern, the result of each pool shard;
    encoded_extra: by pattern and table; vectors: by shard number or table, the rows' embeddings,
    if demonstrations are chosen by them
    """

    pool: Result
    n_shards: int
    labelled: Result | None = None
    test: Result | None = None
    development: Result | None = None
    checked: tuple[Result, ...] = ()
    encoded: dict[str, list[Result]] = field(default_factory=dict)
    encoded_extra: dict[tuple[str, str], Result] = field(default_factory=dict)
    vectors: dict[str, Result] = field(default_factory=dict)


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


def labels_of(file: Path, labels: Sequence[str]) -> list[int]:
    """The label numbers of a prepared table."""
    numbers = {label: n for n, label in enumerate(labels)}
    return [numbers[label] for label in pq.read_table(file, columns=["label"])["label"].to_pylist()]


def training_rows(
    tables: Sequence[Result], labels: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows and label numbers of prepared tables, one after the other."""
    rows = [row for table in tables for row in read_rows(table.dir / TABLE)]
    gold = [n for table in tables for n in labels_of(table.dir / TABLE, labels)]
    return rows, gold
