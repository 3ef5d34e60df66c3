"""iPET: for each model a larger training set, labelled by a few of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import SCORES, TABLE, Inputs, Scores, need_inputs, shard_file
from pet_pipeline.tables import COMPRESSION, Floats, read_scores
from pet_pipeline.units import Info, Result, Unit


@dataclass(frozen=True)
class Growth:
    """How training sets grow from generation to generation (2001.07676, section 3.4)."""

    fraction: float = 0.25  # of the other models that label
    scale: float = 5.0  # d
    candidates: int = 100  # from no labels: most confident rows per label
    first_rows: int = 10  # from no labels: size of the first training set


def grow(
    run: Run,
    task: Task,
    scores: Sequence[Scores],
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int,
) -> dict[str, Result]:
    """Rows of the pool with labels, for each model of generation `generation` a set of its own.

    A random quarter of the other models labels them (2001.07676, section 3.4).
    """
    tables, ipet = need_inputs(inputs, "grow").tables, settings.ipet
    growth = Growth(ipet.fraction, ipet.scale, ipet.candidates, ipet.first_rows)
    names = {
        f"{pattern.name}-{seed}": pattern.name
        for pattern in task.patterns
        for seed in settings.finetune.seeds
    }
    units = {
        name: Grow(
            name=name,
            labels=task.labels,
            pool=tables.need_pool("grow"),
            labelled=tables.labelled,
            teachers=tuple(
                s.shards
                for s in choose_teachers(name, _others(pattern, scores), growth, generation)
            ),
            growth=growth,
            generation=generation,
        )
        for name, pattern in names.items()
    }
    return run.do(f"gen-{generation}/grow", units)


@dataclass(frozen=True)
class Grow(Unit):
    """Rows of the pool, labelled by some models, to be added to the training set of another."""

    name: str  # of the model they are for
    labels: tuple[str, ...]
    pool: Result
    labelled: Result | None
    teachers: tuple[tuple[Result, ...], ...]  # of each, the scores of the pool's shards
    growth: Growth
    generation: int
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write table.parquet."""
        counts = self.labelled.info["labels"] if self.labelled else None
        wanted = new_rows(counts, self.labels, self.growth, self.generation)
        drawn = self._draw_unlabelled(wanted) if self._from_nothing else self._draw(wanted)
        write_rows(out / TABLE, self.pool, drawn, self.labels)
        added = {label: len(rows.rows) for label, rows in zip(self.labels, drawn, strict=True)}
        short = [f"{n} {added[n]} of {wanted[n]}" for n in self.labels if added[n] < wanted[n]]
        probs = np.concatenate([rows.probs for rows in drawn])
        return {
            "rows": len(probs),
            "mean_confidence": float(probs.mean()) if len(probs) else 0.0,
            "added": added,
            **({"short": ", ".join(short)} if short else {}),
        }

    @property
    def _from_nothing(self) -> bool:
        return self.labelled is None and self.generation == 1

    def _draw(self, wanted: Mapping[str, int]) -> list[Drawn]:
        """For each label rows that are predicted as it, in one pass over the pool."""
        rngs = [self._rng(name) for name in self.labels]
        drawn = [Drawn.none() for _ in self.labels]
        for shard, probs in _mean_probs(self.teachers):
            predicted = probs.argmax(1)
            for label, name in enumerate(self.labels):
                found = Drawn.of(shard, np.flatnonzero(predicted == label), probs[:, label])
                drawn[label] = drawn[label].merged(found.with_keys(rngs[label]), wanted[name])
        return [rows.in_order() for rows in drawn]

    def _draw_unlabelled(self, wanted: Mapping[str, int]) -> list[Drawn]:
        """For each label some of its most probable rows, and no row for two labels."""
        best = [Drawn.none() for _ in self.labels]
        for shard, probs in _mean_probs(self.teachers):
            for label in range(len(self.labels)):
                found = Drawn.of(shard, np.arange(len(probs)), probs[:, label])
                best[label] = best[label].merged(found.with_probs_as_keys(), self.growth.candidates)
        taken: set[tuple[int, int]] = set()
        drawn = []
        for name, rows in zip(self.labels, best, strict=True):
            free = rows.without(taken).with_keys(self._rng(name))
            drawn.append(Drawn.none().merged(free, wanted[name]).in_order())
            taken |= drawn[-1].locations
        return drawn

    def _rng(self, label: str) -> np.random.Generator:
        return np.random.default_rng(seed_from("draw", self.name, label, self.generation))


@dataclass(frozen=True)
class Drawn:
    """Rows of the pool: shard, row, probability of a label, and a key; the smallest keys are kept.

    Exponential keys over probabilities draw without replacement, each time in proportion to the
    probability (Efraimidis and Spirakis 2006, algorithm A).
    """

    shards: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    probs: Floats
    keys: Floats

    @classmethod
    def none(cls) -> Drawn:
        """No rows."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, np.zeros(0), np.zeros(0))

    @classmethod
    def of(cls, shard: int, rows: npt.NDArray[np.int64], probs: Floats) -> Drawn:
        """Some rows of a shard; probs: (rows of the shard,)."""
        own = np.asarray(probs[rows], float)
        return cls(np.full(len(rows), shard), rows, own, np.zeros(len(rows)))

    @property
    def locations(self) -> set[tuple[int, int]]:
        """Shard and row of each."""
        return set(zip(self.shards.tolist(), self.rows.tolist(), strict=True))

    def with_keys(self, rng: np.random.Generator) -> Drawn:
        """The rows with keys that draw in proportion to their probabilities."""
        keys = rng.exponential(size=len(self.rows)) / np.maximum(self.probs, 1e-12)
        return Drawn(self.shards, self.rows, self.probs, keys)

    def with_probs_as_keys(self) -> Drawn:
        """The rows with keys by which the most probable ones are kept."""
        return Drawn(self.shards, self.rows, self.probs, -self.probs)

    def merged(self, other: Drawn, size: int) -> Drawn:
        """The rows of both with the smallest keys; of equal ones, the first."""
        both = Drawn(
            np.concatenate([self.shards, other.shards]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.probs, other.probs]),
            np.concatenate([self.keys, other.keys]),
        )
        return both._take(np.argsort(both.keys, kind="stable")[:size])

    def without(self, taken: set[tuple[int, int]]) -> Drawn:
        """The rows that are not at some locations."""
        locations = zip(self.shards.tolist(), self.rows.tolist(), strict=True)
        free = [n for n, location in enumerate(locations) if location not in taken]
        return self._take(np.array(free, np.int64))

    def in_order(self) -> Drawn:
        """The rows in the order of the pool."""
        return self._take(np.lexsort((self.rows, self.shards)))

    def _take(self, numbers: npt.NDArray[np.int64]) -> Drawn:
        return Drawn(
            self.shards[numbers], self.rows[numbers], self.probs[numbers], self.keys[numbers]
        )


def _others(pattern: str, scores: Sequence[Scores]) -> Sequence[Scores]:
    """The models without the untuned one of a pattern: it is what a model of it starts from."""
    return [s for s in scores if s.model.tuned or s.model.pattern.name != pattern] or scores


def choose_teachers(
    name: str, scores: Sequence[Scores], growth: Growth, generation: int
) -> list[Scores]:
    """max(1, round(fraction * others)) of the other models, at random; itself if it is alone.

    Models of the same pattern count as others, as in PET.
    """
    others = [s for s in scores if s.model.name != name] or list(scores)
    size = max(1, round(growth.fraction * len(others)))
    rng = np.random.default_rng(seed_from("grow", name, generation))
    return [others[n] for n in sorted(rng.choice(len(others), size, replace=False))]


def new_rows(
    labelled: Mapping[str, int] | None, labels: Sequence[str], growth: Growth, generation: int
) -> dict[str, int]:
    """How many rows to draw of each label in a generation, counted from 1.

    With labels n * (d^k - 1), without 10 / |labels| in the first and d times more in each later
    (2001.07676, section 3.4 and appendix B).

    >>> new_rows({"a": 4, "b": 8}, ["a", "b"], Growth(), 1)
    {'a': 16, 'b': 32}
    >>> new_rows(None, ["a", "b"], Growth(), 2)
    {'a': 25, 'b': 25}
    """
    if labelled:
        factor = growth.scale**generation - 1
        return {label: math.floor(labelled[label] * factor) for label in labels}
    first = growth.first_rows / len(labels)
    return dict.fromkeys(labels, max(1, round(first * growth.scale ** (generation - 1))))


def write_rows(file: Path, pool: Result, drawn: Sequence[Drawn], labels: Sequence[str]) -> None:
    """The drawn rows of each label as a labelled table, shard by shard."""
    tables = []
    for shard in sorted({shard for rows in drawn for shard in rows.shards.tolist()}):
        inside = [rows.rows[rows.shards == shard] for rows in drawn]
        table = pq.read_table(shard_file(pool, shard)).take(pa.array(np.concatenate(inside)))
        names = [label for label, rows in zip(labels, inside, strict=True) for _ in rows]
        tables.append(table.append_column("label", pa.array(names, pa.string())))
    if not tables:
        schema = pq.read_schema(shard_file(pool, 0)).append(pa.field("label", pa.string()))
        tables.append(schema.empty_table())
    pq.write_table(pa.concat_tables(tables), file, compression=COMPRESSION)


def _mean_probs(teachers: Sequence[Sequence[Result]]) -> Iterator[tuple[int, Floats]]:
    """For each shard the probabilities (rows, labels) of the mean of some models' scores."""
    for shard in range(len(teachers[0])):
        scores = [read_scores(parts[shard].dir / SCORES)[1] for parts in teachers]
        yield shard, np.asarray(softmax(np.mean(scores, axis=0), axis=-1))
