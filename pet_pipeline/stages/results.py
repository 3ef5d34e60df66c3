"""What the stages hand to each other: results with the words a pipeline uses for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder, Pretrained
from pet_pipeline.patterns import Pattern
from pet_pipeline.seeds import seed_from
from pet_pipeline.tables import labels_of, part_name, read_rows
from pet_pipeline.units import Result, read_record

TABLE = "table.parquet"
FROM_POOL = "pool:"  # before the ids of labelled rows that were chosen from the pool
ENCODED = "tokens.parquet"
SCORES = "scores.parquet"
VECTORS = "vectors.parquet"
MODEL = "model"

Base = Pretrained | Result  # what PVPs start from: a result is the folder that `adapt` wrote

# What units cost, in rows that a model reads: to load it, and to tune it on a row
LOADING, TUNED = 100.0, 3.0


@dataclass(frozen=True)
class FoundPattern(Pattern):
    """A pattern that a search writes. It counts by the search, not by what that finds.

    So a plan can be made, and keys be known, before the search was run; it has no parts then.
    """

    found_by: Result

    def in_key(self) -> dict[str, object]:
        """Its name, its labels, and the search."""
        return {"name": self.name, "labels": self.labels, "found_by": self.found_by}


@dataclass(frozen=True)
class Tables:
    """The prepared tables.

    pool: None if there is nothing but labelled rows; then only a baseline can be trained
    pool_rows: of the source; texts that are left out of the pool are counted, and shards are cut
    as if they were there; checked: what is known of the patterns with the model's tokenizer;
    data_checks: the warnings about the tables
    """

    pool: Result | None
    pool_rows: int
    n_shards: int
    labelled: Result | None = None
    test: Result | None = None
    development: Result | None = None
    checked: tuple[Result, ...] = ()
    data_checks: Result | None = None

    @property
    def measured(self) -> dict[str, Result]:
        """The tables besides the pool that models score, by name."""
        tables = {"test": self.test, "development": self.development}
        return {name: table for name, table in tables.items() if table}

    def need_pool(self, verb: str) -> Result:
        """The pool that a verb works on; raises `UserError` without one."""
        if self.pool is None:
            raise UserError(f"{verb}: needs a pool of unlabelled texts; set data.pool, --pool FILE")
        return self.pool


@dataclass(frozen=True)
class Part:
    """A shard of the pool, or another table, in one pattern.

    shard: its number in the pool, or None; vectors: the rows' embeddings, if they are needed
    """

    name: str
    encoded: Result
    shard: int | None = None
    vectors: Result | None = None

    @property
    def file(self) -> Path:
        """The encoded rows, with the ids of their table."""
        return self.encoded.dir / ENCODED


@dataclass(frozen=True)
class Inputs:
    """The rows of all tables in each pattern; vectors: of the labelled rows, if needed.

    adapted: the model that PVPs start from, if `adapt` made one
    folds_from: the model that fold fine-tunes start from, if not from that one
    selected: what decided the learning rate and the steps of the fine-tunes; None: the settings
    """

    tables: Tables
    parts: dict[str, tuple[Part, ...]]  # by pattern
    vectors: Result | None = None
    adapted: Result | None = None
    folds_from: Pretrained | None = None
    selected: Result | None = None

    def of(self, pattern: str) -> tuple[Part, ...]:
        """The parts in a pattern; raises `UserError` if `encode` did not know it."""
        if pattern not in self.parts:
            self.tables.need_pool("encode")
            raise UserError(
                f"pattern {pattern!r} was not encoded; call encode with the task that has it"
            )
        return self.parts[pattern]

    def pool(self, pattern: str) -> tuple[Result, ...]:
        """The pool's shards in a pattern."""
        return tuple(part.encoded for part in self.of(pattern) if part.shard is not None)


@dataclass(frozen=True)
class Model:
    """A PVP tuned with one seed; it has the base's weights if there was nothing to tune on."""

    name: str
    pattern: Pattern
    seed: int
    base: Base
    result: Result
    tuned: bool = True


@dataclass(frozen=True)
class Scores:
    """What one model says of the pool's shards, and of the other tables by name."""

    model: Model
    shards: tuple[Result, ...]
    tables: dict[str, Result]


@dataclass(frozen=True)
class Generation:
    """Models of one generation, what they say, and the soft labels they make together.

    added: by model, the training set that iPET added
    """

    number: int
    scores: list[Scores]
    soft: Result
    added: dict[str, Result]


@dataclass(frozen=True)
class Classifiers:
    """What `distill` trains: the classifier, and the baseline; None for one that is left out."""

    classifier: Result | None = None
    baseline: Result | None = None

    def by_name(self) -> dict[str, Result]:
        """Those that there are."""
        named = {"classifier": self.classifier, "baseline": self.baseline}
        return {name: result for name, result in named.items() if result}


def need_inputs(inputs: object, verb: str) -> Inputs:
    """The inputs that a verb was given; raises `UserError` if `encode` did not make them."""
    if not isinstance(inputs, Inputs):
        raise UserError(
            f"{verb}: needs what encode returns, got {type(inputs).__name__}; "
            "call encode(run, task, tables, settings) first"
        )
    return inputs


def rows_of(table: Result, default: int = 1000) -> int:
    """The rows of a result, also of one that a plan knows and a run has made since."""
    info = table.info or (read_record(table.dir) or {}).get("info", {})
    return int(info.get("rows", default))


def base_of(base: Base) -> Pretrained:
    """The model that PVPs start from, as it is loaded."""
    return ModelFolder(base.dir) if isinstance(base, Result) else base


def weights_of(result: Result, base: Base) -> Pretrained:
    """Where a model's weights are."""
    folder = result.dir / MODEL
    return ModelFolder(folder) if (folder / "config.json").exists() else base_of(base)


def shard_file(pool: Result, index: int) -> Path:
    """The file of a pool's shard."""
    return pool.dir / part_name(index)


def training_rows(
    tables: Sequence[Result], labels: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows and label numbers of prepared tables, one after the other."""
    rows = [row for table in tables for row in read_rows(table.dir / TABLE)]
    gold = [n for table in tables for n in labels_of(table.dir / TABLE, labels)]
    return rows, gold


def sample_shards(sizes: Sequence[int], count: int, *identity: str | int) -> Iterator[list[int]]:
    """For each shard the rows of it that a seeded sample of all shards takes, in order.

    sizes: rows of each shard; count: rows of the sample, or all if there are fewer
    """
    total = sum(sizes)
    rng = np.random.default_rng(seed_from(*identity))
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    start = 0
    for size in sizes:
        inside = chosen[(chosen >= start) & (chosen < start + size)] - start
        yield inside.tolist()
        start += size
