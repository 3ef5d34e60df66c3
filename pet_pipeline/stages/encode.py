"""Put the rows of the tables into each pattern, as tokens; check the patterns on real rows."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pet_pipeline.config import Machine, Settings
from pet_pipeline.data import read_rows, write_scores
from pet_pipeline.errors import raise_all
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.progress import say
from pet_pipeline.run import Result, Run
from pet_pipeline.stages.results import (
    ENCODED,
    TABLE,
    VECTORS,
    FoundPattern,
    Tables,
    shard_file,
)

SHOWN_ROWS = 3  # rows that the report shows in each pattern
CHECKED_ROWS = 200  # rows of the pool in which truncation is counted


def encode(run: Run, task: Task, tables: Tables, settings: Settings) -> Tables:
    """The tables with their rows in each pattern, and with embeddings if those are needed."""
    base = resolve_model(settings.model, settings.revision)
    max_tokens = settings.finetune.max_tokens
    found = tuple(p for p in task.patterns if isinstance(p, FoundPattern))
    checked = tables.checked
    if found:
        call = check_call(base, found, tables.pool, settings)
        checked += tuple(run.do("encode", check_patterns, {"patterns": call}))
    places = _places(tables)
    units = [(pattern, place) for pattern in task.patterns for place in places]
    results = run.do(
        "encode",
        _encode,
        {
            f"{pattern.name}-{place}": {
                "base": base,
                "pattern": pattern,
                "table": table,
                "shard": shard,
                "max_tokens": max_tokens,
            }
            for pattern in task.patterns
            for place, (table, shard) in places.items()
        },
        version=2,
    )
    encoded: dict[str, list[Result]] = defaultdict(list)
    extra: dict[tuple[str, str], Result] = {}
    for (pattern, place), result in zip(units, results, strict=True):
        if places[place][1] is None:
            extra[pattern.name, place] = result
        else:
            encoded[pattern.name].append(result)
    vectors = _embed_tables(run, task, tables, settings)
    return replace(tables, checked=checked, encoded=encoded, encoded_extra=extra, vectors=vectors)


def check_call(
    base: Pretrained, patterns: tuple[Pattern, ...], pool: Result, settings: Settings
) -> dict[str, Any]:
    """The parameters of `check_patterns`."""
    return {
        "base": base,
        "patterns": patterns,
        "pool": pool,
        "max_tokens": settings.finetune.max_tokens,
        "longest": _longest_inputs(settings),
    }


def _longest_inputs(settings: Settings) -> dict[str, int]:
    """By setting, the tokens that the model will be given at most."""
    longest = {"finetune.max_tokens": settings.finetune.max_tokens}
    if settings.demonstrations.enabled:
        longest["demonstrations.max_tokens"] = settings.demonstrations.max_tokens
    if settings.baseline.enabled and settings.data.labelled:
        longest["baseline.max_tokens"] = settings.baseline.max_tokens
    if settings.distill.enabled and not settings.distill.model:
        longest["distill.max_tokens"] = settings.distill.max_tokens
    return longest


def check_patterns(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    patterns: tuple[Pattern, ...],
    pool: Result,
    max_tokens: int,
    longest: dict[str, int],
) -> dict[str, Any]:
    """Every pattern with this tokenizer: problems raise, the rest is written for the report."""
    from pet_pipeline.encoding import PatternEncoder, check_encoders, describe_words
    from pet_pipeline.pretrained import check_mlm, device_of, load_tokenizer

    device_of(machine)
    limit = check_mlm(base)
    tokenizer = load_tokenizer(base)
    limit = min(limit, tokenizer.model_max_length)
    raise_all(
        f"{setting}: {tokens} is more than the model reads, {limit}"
        for setting, tokens in longest.items()
        if tokens > limit
    )
    encoders = [PatternEncoder(pattern, tokenizer, max_tokens) for pattern in patterns]
    raise_all(check_encoders(encoders))
    rows = read_rows(shard_file(pool, 0))[:CHECKED_ROWS]
    described = []
    for encoder in encoders:
        cut = encoder.count_truncated(rows)
        if cut:
            say(f"  {encoder.pattern.name}: {cut} of {len(rows)} texts cut to {max_tokens} tokens")
        described.append(
            {
                "name": encoder.pattern.name,
                "rendered": [encoder.pattern.render(row) for row in rows[:SHOWN_ROWS]],
                "words": describe_words(encoder),
                "masks": encoder.words.n_masks,
                "truncated": cut,
                "checked": len(rows),
            }
        )
    (out / "patterns.json").write_text(json.dumps(described, indent=1), "utf-8")
    return {"patterns": len(patterns)}


def _places(tables: Tables, *names: str) -> dict[str, tuple[Result, int | None]]:
    """The pool's shards, by number, and the other tables that are there."""
    shards: dict[str, tuple[Result, int | None]] = {
        f"{n:05d}": (tables.pool, n) for n in range(tables.n_shards)
    }
    others = {name: getattr(tables, name) for name in (*names, "test", "development")}
    return shards | {name: (table, None) for name, table in others.items() if table}


def _embed_tables(run: Run, task: Task, tables: Tables, settings: Settings) -> dict[str, Result]:
    """Embeddings of all rows, by place, if demonstrations are drawn from the most similar."""
    chosen = settings.demonstrations
    if not chosen.enabled or chosen.filter == 1:
        return {}
    calls = {
        place: {
            "encoder": encoder_of(settings),
            "columns": task.columns,
            "table": table,
            "shard": shard,
            "max_tokens": settings.finetune.max_tokens,
        }
        for place, (table, shard) in _places(tables, "labelled").items()
    }
    return dict(zip(calls, run.do("embed", _embed, calls), strict=True))


def encoder_of(settings: Settings) -> Pretrained:
    """The encoder that compares rows for demonstrations."""
    name = settings.demonstrations.encoder
    return resolve_model(name) if name else resolve_model(settings.model, settings.revision)


def embed_texts(
    encoder: Pretrained,
    rows: list[dict[str, Any]],
    columns: tuple[str, ...],
    max_tokens: int,
    machine: Machine,
) -> Any:
    """Embeddings (rows, dimensions) of rows, each of length 1."""
    from pet_pipeline.classifier import encode_texts
    from pet_pipeline.inference import embed_rows
    from pet_pipeline.pretrained import load_encoder, load_tokenizer

    tokenizer = load_tokenizer(encoder)
    encodings = encode_texts(tokenizer, rows, columns, max_tokens)
    model = load_encoder(encoder)
    return embed_rows(model, encodings, tokenizer.pad_token_id, machine=machine, what="embed")


def _embed(
    out: Path,
    machine: Machine,
    *,
    encoder: Pretrained,
    columns: tuple[str, ...],
    table: Result,
    shard: int | None,
    max_tokens: int,
) -> dict[str, Any]:
    file = table.dir / TABLE if shard is None else shard_file(table, shard)
    vectors = embed_texts(encoder, read_rows(file), columns, max_tokens, machine)
    ids = pq.read_table(file, columns=["id"])["id"].combine_chunks()
    write_scores(out / VECTORS, ids, vectors, ())
    return {"rows": len(vectors)}


def _encode(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    pattern: Pattern,
    table: Result,
    shard: int | None,
    max_tokens: int,
) -> dict[str, Any]:
    from pet_pipeline.encoding import PatternEncoder, write_encoded
    from pet_pipeline.pretrained import load_tokenizer

    file = table.dir / TABLE if shard is None else shard_file(table, shard)
    encoder = PatternEncoder(pattern, load_tokenizer(base), max_tokens)
    encoded = encoder.encode(read_rows(file))
    write_encoded(out / ENCODED, encoded)
    return {"rows": len(encoded), "tokens": sum(len(row.ids) for row in encoded)}
