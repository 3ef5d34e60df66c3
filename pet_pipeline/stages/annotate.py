"""Every model scores every shard of the pool, and the tables to measure on."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from pet_pipeline.config import Annotate, Machine, Settings
from pet_pipeline.data import read_scores, write_scores
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.demonstrate import (
    Calibration,
    Examples,
    calibration_of,
    draws_of,
    examples_of,
    score_calibrated,
)
from pet_pipeline.stages.results import (
    ENCODED,
    SCORES,
    TABLE,
    VECTORS,
    Model,
    Scores,
    Tables,
    shard_file,
    weights_of,
)

if TYPE_CHECKING:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.scoring import Draws


def annotate(
    run: Run,
    task: Task,
    models: list[Model],
    tables: Tables,
    settings: Settings,
    *,
    generation: int = 0,
) -> list[Scores]:
    """The models' scores of the pool, a shard a unit, and of the test and development tables."""
    examples = examples_of(tables.labelled, task.columns, settings)
    units: dict[str, tuple[Model, str]] = {}
    calls: dict[str, dict[str, Any]] = {}
    for model in models:
        parts: list[tuple[str, Result, Result, int | None]] = [
            (f"{n:05d}", encoded, tables.pool, n)
            for n, encoded in enumerate(tables.encoded[model.pattern.name])
        ]
        for place in ("test", "development"):
            table = getattr(tables, place)
            if table:
                encoded = tables.encoded_extra[model.pattern.name, place]
                parts.append((place, encoded, table, None))
        for place, encoded, table, number in parts:
            units[f"{model.name}-{place}"] = (model, place)
            calls[f"{model.name}-{place}"] = {
                "base": model.base,
                "model": model.result,
                "pattern": model.pattern,
                "encoded": encoded,
                "table": table,
                "shard": number,
                "settings": settings.annotate,
                "max_tokens": settings.finetune.max_tokens,
                "examples": examples,
                "vectors": _vectors(tables, place) if examples else None,
                "calibration": calibration_of(tables, task.columns, model.pattern, settings),
            }
    results = run.do(f"gen-{generation}/annotate", _annotate, calls, version=2)
    shards: dict[str, list[Result]] = {model.name: [] for model in models}
    extra: dict[str, dict[str, Result]] = {model.name: {} for model in models}
    for (model, place), result in zip(units.values(), results, strict=True):
        if place.isdigit():
            shards[model.name].append(result)
        else:
            extra[model.name][place] = result
    return [Scores(model, tuple(shards[model.name]), extra[model.name]) for model in models]


def _annotate(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    model: Result,
    pattern: Pattern,
    encoded: Result,
    table: Result,
    shard: int | None,
    settings: Annotate,
    max_tokens: int,
    examples: Examples | None,
    vectors: tuple[Result, Result] | None,
    calibration: Calibration | None,
) -> dict[str, Any]:
    from pet_pipeline.encoding import read_encoded

    loaded, encoder = _load(weights_of(model, base), model.key, pattern, max_tokens)
    rows = read_encoded(encoded.dir / ENCODED)
    start = time.perf_counter()
    scores = score_calibrated(
        loaded,
        encoder,
        rows,
        calibration,
        machine=machine,
        what=f"annotate {model.dir.name}",
        draws=_draws(examples, encoder, vectors, pattern, shard) if examples else None,
        decoding=settings.decoding,
    )
    seconds = time.perf_counter() - start
    file = table.dir / TABLE if shard is None else shard_file(table, shard)
    ids = pq.read_table(file, columns=["id"])["id"].combine_chunks()
    write_scores(out / SCORES, ids, scores, pattern.labels)
    return {"rows": len(rows), "rows_per_second": round(len(rows) / max(seconds, 1e-9), 1)}


def _vectors(tables: Tables, place: str) -> tuple[Result, Result] | None:
    """Embeddings of the labelled rows and of those of a place, if there are any."""
    return (tables.vectors["labelled"], tables.vectors[place]) if tables.vectors else None


def _draws(
    examples: Examples,
    encoder: PatternEncoder,
    vectors: tuple[Result, Result] | None,
    pattern: Pattern,
    shard: int | None,
) -> Draws:
    """How the rows of a shard, or of a table, are shown: the same whichever model reads them."""
    labelled, own = [read_scores(v.dir / VECTORS)[1] for v in vectors] if vectors else (None, None)
    return draws_of(
        examples,
        encoder,
        support=range(examples.labelled.info["rows"]),
        labelled_vectors=labelled,
        vectors=own,
        own=None,
        seed=seed_from("annotate", pattern.name, "table" if shard is None else shard),
    )


@functools.lru_cache(maxsize=1)  # the shards of a model come one after the other
def _load(
    weights: Pretrained, key: str, pattern: Pattern, max_tokens: int
) -> tuple[Any, PatternEncoder]:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.pretrained import load_mlm, load_tokenizer

    return load_mlm(weights), PatternEncoder(pattern, load_tokenizer(weights), max_tokens)
