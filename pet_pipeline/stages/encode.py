"""Put the rows of the tables into each pattern, as tokens; embed them where that is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.encoded import write_encoded
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.run import Run
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.stages.check_data import say_warnings
from pet_pipeline.stages.check_patterns import CheckPatterns, longest_inputs
from pet_pipeline.stages.from_settings import (
    base_model,
    demonstration_encoder,
    precision,
    soft_tokens,
)
from pet_pipeline.stages.results import (
    ENCODED,
    LOADING,
    TABLE,
    VECTORS,
    FoundPattern,
    Inputs,
    Part,
    Tables,
    rows_of,
    shard_file,
)
from pet_pipeline.tables import read_rows, write_scores
from pet_pipeline.units import Info, Result, Unit

LARGE_SHARD = 5000  # rows


def encode(run: Run, task: Task, tables: Tables, settings: Settings) -> Inputs:
    """The rows of all tables in each pattern, and their embeddings if those are needed.

    Without a pool nothing is encoded: no model reads the tables through a pattern.
    """
    if tables.pool is None:
        return Inputs(tables, {})
    base, max_tokens = base_model(run, settings), settings.finetune.max_tokens
    soft = soft_tokens(settings)
    found = tuple(p for p in task.patterns if isinstance(p, FoundPattern))
    if found:
        check = CheckPatterns(base, found, soft, tables.pool, max_tokens, longest_inputs(settings))
        checked = run.do("encode", {"patterns": check})
        if not run.plan:
            say_warnings("Checks of the found patterns", list(checked.values()))
        tables = replace(tables, checked=(*tables.checked, *checked.values()))
    locations = _locations(tables)
    encoded = run.do(
        "encode",
        {
            f"{pattern.name}-{name}": EncodeTable(base, pattern, soft, table, shard, max_tokens)
            for pattern in task.patterns
            for name, (table, shard) in locations.items()
        },
    )
    vectors = _embed(run, task, tables, settings)
    parts = {
        pattern.name: tuple(
            Part(name, encoded[f"{pattern.name}-{name}"], shard, vectors.get(name))
            for name, (_, shard) in locations.items()
        )
        for pattern in task.patterns
    }
    return Inputs(tables, parts, vectors.get("labelled"))


@dataclass(frozen=True)
class EncodeTable(Unit):
    """The rows of a table, or of a shard of the pool, as tokens of one pattern."""

    base: Pretrained
    pattern: Pattern
    soft: SoftTokens | None
    table: Result
    shard: int | None  # None for a table in one file
    max_tokens: int
    version = 3

    def work(self, out: Path, compute: Compute) -> Info:
        """Write tokens.parquet."""
        from pet_pipeline.pretrained import load_tokenizer

        file = _file(self.table, self.shard)
        tokenizer = load_tokenizer(self.base)
        encoder = PatternEncoder(self.pattern, tokenizer, self.max_tokens, self.soft)
        rows = encoder.encode(read_rows(file))
        write_encoded(out / ENCODED, _ids(file), rows)
        return {"rows": len(rows), "tokens": sum(len(row) for row in rows)}

    def cost(self) -> float:
        """By the rows, which no model reads."""
        return 5 + 0.02 * _rows(self.table, self.shard)


@dataclass(frozen=True)
class EmbedTable(Unit):
    """Embeddings of the rows of a table, or of a shard of the pool."""

    encoder: Pretrained
    columns: tuple[str, ...]
    table: Result
    shard: int | None
    max_tokens: int
    precision: str

    def work(self, out: Path, compute: Compute) -> Info:
        """Write vectors.parquet."""
        from pet_pipeline.embedding import embed_texts

        file = _file(self.table, self.shard)
        compute = compute.at(self.precision)
        vectors = embed_texts(self.encoder, read_rows(file), self.columns, self.max_tokens, compute)
        write_scores(out / VECTORS, _ids(file), vectors, ())
        return {"rows": len(vectors)}

    def cost(self) -> float:
        """By the rows."""
        return LOADING + _rows(self.table, self.shard)


def _embed(run: Run, task: Task, tables: Tables, settings: Settings) -> dict[str, Result]:
    """Embeddings of all rows, by part, if demonstrations are drawn from the most similar."""
    chosen = settings.demonstrations
    if not chosen.enabled or chosen.filter == 1:
        return {}
    locations = _locations(tables)
    if tables.labelled:
        locations["labelled"] = (tables.labelled, None)
    encoder, computed = demonstration_encoder(run, settings), precision(run, settings)
    return run.do(
        "embed",
        {
            name: EmbedTable(
                encoder, task.columns, table, shard, settings.finetune.max_tokens, computed
            )
            for name, (table, shard) in locations.items()
        },
    )


def _locations(tables: Tables) -> dict[str, tuple[Result, int | None]]:
    """The pool's shards, by number, and the other tables that models score."""
    pool = tables.need_pool("encode")
    shards: dict[str, tuple[Result, int | None]] = {
        f"{n:05d}": (pool, n) for n in range(tables.n_shards)
    }
    return shards | {name: (table, None) for name, table in tables.measured.items()}


def _file(table: Result, shard: int | None) -> Path:
    return table.dir / TABLE if shard is None else shard_file(table, shard)


def _rows(table: Result, shard: int | None) -> int:
    """About how many rows are encoded; a shard is a part of the table."""
    rows = rows_of(table)
    return rows if shard is None else min(rows, LARGE_SHARD)


def _ids(file: Path) -> object:
    return pq.read_table(file, columns=["id"])["id"].combine_chunks()
