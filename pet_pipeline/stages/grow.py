"""iPET: for each model a larger training set, labelled by a few of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from pet_pipeline.config import Ipet, Machine, Settings
from pet_pipeline.data import COMPRESSION, Floats, read_scores
from pet_pipeline.patterns import Task
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import SCORES, TABLE, Scores, Tables, shard_file


def grow(
    run: Run,
    task: Task,
    scores: list[Scores],
    tables: Tables,
    settings: Settings,
    *,
    generation: int,
) -> dict[str, Result]:
    """Rows of the pool with labels, for each model of generation `generation` a set of its own.

    A random quarter of the other models labels them (2001.07676, section 3.4).
    """
    ipet = settings.ipet
    seeds = settings.finetune.seeds
    names = [f"{pattern.name}-{seed}" for pattern in task.patterns for seed in seeds]
    calls = {
        name: {
            "labels": task.labels,
            "pool": tables.pool,
            "labelled": tables.labelled,
            "teachers": [s.shards for s in choose_teachers(name, scores, ipet, generation)],
            "ipet": ipet.model_copy(update={"generations": 0}),
            "generation": generation,
            "name": name,
        }
        for name in names
    }
    results = run.do(f"gen-{generation}/grow", _grow, calls)
    return dict(zip(names, results, strict=True))


def choose_teachers(
    name: str, scores: Sequence[Scores], ipet: Ipet, generation: int
) -> list[Scores]:
    """max(1, round(fraction * others)) of the other models, at random; itself if it is alone.

    Models of the same pattern count as others, as in PET.
    """
    others = [s for s in scores if s.model.name != name] or list(scores)
    size = max(1, round(ipet.fraction * len(others)))
    rng = np.random.default_rng(seed_from("grow", name, generation))
    return [others[n] for n in sorted(rng.choice(len(others), size, replace=False))]


def new_rows(
    labelled: dict[str, int] | None, labels: Sequence[str], ipet: Ipet, generation: int
) -> dict[str, int]:
    """How many rows to draw of each label in a generation, counted from 1.

    With labels n * (d^k - 1), without 10 / |labels| in the first and d times more in each later
    (2001.07676, section 3.4 and appendix B).

    >>> new_rows({"a": 4, "b": 8}, ["a", "b"], Ipet(), 1)
    {'a': 16, 'b': 32}
    >>> new_rows(None, ["a", "b"], Ipet(), 2)
    {'a': 25, 'b': 25}
    """
    if labelled:
        factor = ipet.scale**generation - 1
        return {label: math.floor(labelled[label] * factor) for label in labels}
    first = ipet.first_rows / len(labels)
    return dict.fromkeys(labels, max(1, round(first * ipet.scale ** (generation - 1))))


def _grow(
    out: Path,
    machine: Machine,
    *,
    labels: tuple[str, ...],
    pool: Result,
    labelled: Result | None,
    teachers: list[tuple[Result, ...]],
    ipet: Ipet,
    generation: int,
    name: str,
) -> dict[str, Any]:
    wanted = new_rows(labelled.info["labels"] if labelled else None, labels, ipet, generation)
    from_nothing = labelled is None and generation == 1
    chosen: list[tuple[int, int, int, float]] = []
    for label, label_name in enumerate(labels):
        rng = np.random.default_rng(seed_from("draw", name, label_name, generation))
        limit = ipet.candidates if from_nothing else None
        # The likeliest rows of two labels may be the same ones: none is drawn for both.
        taken = {(shard, row) for shard, row, *_ in chosen}
        candidates = [c for c in _candidates(teachers, label, limit) if c[:2] not in taken]
        drawn = draw(candidates, wanted[label_name], rng)
        chosen += [(shard, row, label, p) for shard, row, p in drawn]
    _write(out / TABLE, pool, chosen, labels)
    added = dict.fromkeys(labels, 0)
    for *_, label, _ in chosen:
        added[labels[label]] += 1
    short = {n: (added[n], wanted[n]) for n in labels if added[n] < wanted[n]}
    confidence = float(np.mean([p for *_, p in chosen])) if chosen else 0.0
    note = {"short": ", ".join(f"{n} {a} of {w}" for n, (a, w) in short.items())} if short else {}
    return {"rows": len(chosen), "mean_confidence": confidence, "added": added, **note}


def draw(
    candidates: Sequence[tuple[int, int, float]], size: int, rng: np.random.Generator
) -> list[tuple[int, int, float]]:
    """Up to `size` candidates without replacement, each draw in proportion to the probability.

    candidates: shard, row and probability of each. Sorted by exponential keys, which gives the
    same distribution as drawing one by one (Efraimidis and Spirakis 2006, algorithm A).
    """
    probs = np.array([p for *_, p in candidates])
    keys = rng.exponential(size=len(candidates)) / np.maximum(probs, 1e-12)
    return [candidates[n] for n in sorted(np.argsort(keys, kind="stable")[:size])]


def _candidates(
    teachers: list[tuple[Result, ...]], label: int, limit: int | None
) -> list[tuple[int, int, float]]:
    """Shard, row and probability of the rows predicted as a label, or of the likeliest for it."""
    found: list[tuple[int, int, float]] = []
    for shard, probs in _teacher_probs(teachers):
        inside = np.arange(len(probs)) if limit else np.flatnonzero(probs.argmax(1) == label)
        found += [(shard, int(row), float(probs[row, label])) for row in inside]
        if limit:
            found = sorted(found, key=lambda place: (-place[2], place[:2]))[:limit]
    return found


def _teacher_probs(teachers: list[tuple[Result, ...]]) -> Iterator[tuple[int, Floats]]:
    for shard in range(len(teachers[0])):
        scores = [read_scores(parts[shard].dir / SCORES)[1] for parts in teachers]
        yield shard, np.asarray(softmax(np.mean(scores, axis=0), axis=-1))


def _write(
    file: Path, pool: Result, chosen: list[tuple[int, int, int, float]], labels: Sequence[str]
) -> None:
    tables = []
    for shard in sorted({place[0] for place in chosen}):
        inside = [place for place in chosen if place[0] == shard]
        table = pq.read_table(shard_file(pool, shard)).take(
            pa.array([row for _, row, *_ in inside])
        )
        names = pa.array([labels[label] for _, _, label, _ in inside])
        tables.append(table.append_column("label", names))
    if not tables:
        schema = pq.read_schema(shard_file(pool, 0)).append(pa.field("label", pa.string()))
        tables.append(schema.empty_table())
    pq.write_table(pa.concat_tables(tables), file, compression=COMPRESSION)
