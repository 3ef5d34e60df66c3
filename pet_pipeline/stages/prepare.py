"""Check and copy the tables, check the patterns against the model, put rows into patterns."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.config import Machine, Settings
from pet_pipeline.data import (
    COMPRESSION,
    Source,
    check_ids,
    check_source,
    count_rows,
    find_source,
    read_batches,
    read_rows,
    write_shards,
)
from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.progress import say
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import ENCODED, TABLE, Tables, info_of, shard_file

SHOWN_ROWS = 3  # rows that the report shows in each pattern
CHECKED_ROWS = 200  # rows of the pool in which truncation is counted
TABLES = ("labelled", "test", "development")


def prepare(run: Run, task: Task, settings: Settings) -> Tables:
    """The tables of the settings, checked, and their rows put into each pattern.

    Raises `UserError` with the problems of all tables, then with those of all patterns, before
    any model is loaded.
    """
    base, student = resolve_model(settings.model, settings.revision), _student(settings)
    rows = _check_tables(task, settings)
    calls = {name: _table_call(task, settings, name) for name in (*TABLES, "pool")}
    used = {name: call for name, call in calls.items() if call}
    done = dict(zip(used, run.do("prepare", _prepare, used), strict=True))
    raise_all(_fold_problems(settings, info_of(done.get("labelled")).get("labels", {})))
    longest = settings.distill.max_tokens if student else 0
    models = {"base": base, "student": student, "student_tokens": longest}
    run.do("prepare", _check_models, {"models": models})
    checked = run.do(
        "prepare",
        _check_patterns,
        {
            "patterns": {
                "base": base,
                "patterns": task.patterns,
                "pool": done["pool"],
                "max_tokens": settings.finetune.max_tokens,
                "longest": _longest_inputs(settings),
            }
        },
    )[0]
    n_shards = math.ceil(rows / settings.data.shard_rows)
    shards = [f"{n:05d}" for n in range(n_shards)]
    places = [*shards, *(name for name in ("test", "development") if name in done)]
    units = [(pattern, place) for pattern in task.patterns for place in places]
    results = run.do(
        "encode",
        _encode,
        {
            f"{pattern.name}-{place}": {
                "base": base,
                "pattern": pattern,
                "table": done.get(place, done["pool"]),
                "shard": int(place) if place in shards else None,
                "max_tokens": settings.finetune.max_tokens,
            }
            for pattern, place in units
        },
    )
    encoded: dict[str, list[Result]] = defaultdict(list)
    extra: dict[tuple[str, str], Result] = {}
    for (pattern, place), result in zip(units, results, strict=True):
        if place in shards:
            encoded[pattern.name].append(result)
        else:
            extra[pattern.name, place] = result
    return Tables(n_shards=n_shards, checked=checked, encoded=encoded, encoded_extra=extra, **done)


def _student(settings: Settings) -> Pretrained | None:
    """The encoder of the classifier, if the settings name another one for it."""
    if not (settings.distill.enabled and settings.distill.model):
        return None
    with _said_of_the_student():
        return resolve_model(settings.distill.model)


@contextmanager
def _said_of_the_student() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"distill.{error}") from None  # it begins with "model: "


def labels_of(file: Path, labels: Sequence[str]) -> list[int]:
    """The label numbers of a prepared table."""
    numbers = {label: n for n, label in enumerate(labels)}
    return [numbers[label] for label in pq.read_table(file, columns=["label"])["label"].to_pylist()]


def _check_tables(task: Task, settings: Settings) -> int:
    """Rows of the pool that will be used; raises `UserError` with what the schemas show."""
    data = settings.data
    raise_all(_setting_problems(task, settings))
    problems = []
    for name in (*TABLES, "pool"):
        source = getattr(data, name)
        if source:
            problems += check_source(
                source,
                task.columns,
                data.columns,
                labelled=name != "pool",
                place=f"data.{name}",
            )
    raise_all(problems)
    rows = count_rows(find_source(data.pool))
    raise_all([f"data.pool: {data.pool} has no rows"] if not rows else [])
    return min(rows, data.pool_rows or rows)


def _setting_problems(task: Task, settings: Settings) -> Iterator[str]:
    data = settings.data
    if not data.pool:
        yield "data.pool: not set; give the table of unlabelled texts, --pool FILE"
    for column in data.columns:
        known = (*task.columns, "id", "label")
        if column not in known:
            yield f"data.columns: {column!r} is no column of the task{nearest(column, known)}"
    if settings.ensemble.weights == "fitted" and not data.labelled:
        yield "ensemble.weights: 'fitted' needs labelled texts, data.labelled; 'uniform' does not"
    if settings.ensemble.weights == "wmean" and not data.labelled:
        yield "ensemble.weights: 'wmean' needs labelled texts, data.labelled; 'uniform' does not"
    fitted_on_development = settings.ensemble.fit_on == "development"
    if settings.ensemble.weights == "fitted" and fitted_on_development and not data.development:
        yield "ensemble.fit_on: 'development' needs data.development; 'folds' does not"
    if settings.finetune.max_tokens < 8:
        yield f"finetune.max_tokens: {settings.finetune.max_tokens} is too few; 8 is the least"


def _fold_problems(settings: Settings, counts: Mapping[str, int]) -> Iterator[str]:
    fitted = settings.ensemble.weights == "fitted" and settings.ensemble.fit_on == "folds"
    if fitted and counts and max(counts.values()) < 2:
        yield (
            "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and "
            "no label has two; add rows, or take 'uniform'"
        )


def _longest_inputs(settings: Settings) -> dict[str, int]:
    """By setting, the tokens that the model will be given at most."""
    longest = {"finetune.max_tokens": settings.finetune.max_tokens}
    if settings.baseline.enabled and settings.data.labelled:
        longest["baseline.max_tokens"] = settings.baseline.max_tokens
    if settings.distill.enabled and not settings.distill.model:
        longest["distill.max_tokens"] = settings.distill.max_tokens
    return longest


def _table_call(task: Task, settings: Settings, name: str) -> dict[str, Any]:
    data = settings.data
    if not getattr(data, name):
        return {}
    call = {
        "name": name,
        "source": find_source(getattr(data, name)),
        "columns": task.columns,
        "names": data.columns,
        "labels": task.labels if name != "pool" else None,
    }
    if name == "pool":
        sample = {"rows": data.pool_rows, "seed": data.seed if data.pool_rows else None}
        return {**call, **sample, "shard_rows": data.shard_rows}
    k = data.k if name == "labelled" else 0
    return {**call, "rows": k, "seed": data.seed if k else None, "shard_rows": None}


def _prepare(
    out: Path,
    machine: Machine,
    *,
    name: str,
    source: Source,
    columns: tuple[str, ...],
    names: dict[str, str],
    labels: tuple[str, ...] | None,
    rows: int,
    seed: int | None,
    shard_rows: int | None,
) -> dict[str, Any]:
    batches = read_batches(source, columns, names, labels)
    if labels is None:
        ids: list[pa.Array] = []
        chosen = _sample(batches, rows, count_rows(source), seed)
        total = write_shards(_remember(chosen, ids), out, shard_rows or 1)
        check_ids(source, ids)
        return {"rows": total}
    read = list(batches)
    raise_all([f"data.{name}: {source} has no rows"] if not read else [])
    table = pa.Table.from_batches(read)
    check_ids(source, table["id"].chunks)
    empty = [
        n for n, row in enumerate(table.to_pylist()) if not any(row[c].strip() for c in columns)
    ]
    if empty:
        raise UserError(
            f"{source}: row {empty[0]} has no text in {listed(columns)} ({len(empty)} such rows); "
            "drop them"
        )
    if rows:
        table = table.take(_draw(source, table["label"].to_pylist(), labels, rows, seed or 0))
    counts = Counter(table["label"].to_pylist())
    missing = [label for label in labels if not counts[label]]
    if name == "labelled" and missing:
        say(f"  {source}: no row is labelled {listed(missing)}; its words alone speak for it")
    pq.write_table(table, out / TABLE, compression=COMPRESSION)
    return {"rows": table.num_rows, "labels": {label: counts[label] for label in labels}}


def _remember(batches: Iterable[pa.RecordBatch], ids: list[pa.Array]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        ids.append(batch["id"])
        yield batch


def _sample(
    batches: Iterable[pa.RecordBatch], rows: int, total: int, seed: int | None
) -> Iterator[pa.RecordBatch]:
    """The batches, or the rows of them that a seeded sample takes, in their order."""
    if not rows or rows >= total:
        yield from batches
        return
    rng = np.random.default_rng(seed_from("pool", seed or 0))
    chosen = np.sort(rng.choice(total, rows, replace=False))
    start = 0
    for batch in batches:
        inside = chosen[(chosen >= start) & (chosen < start + batch.num_rows)] - start
        start += batch.num_rows
        if len(inside):
            yield batch.take(pa.array(inside))


def _draw(source: Source, labels: list[str], names: Sequence[str], k: int, seed: int) -> list[int]:
    """Numbers of k rows of each label, in the table's order."""
    rng = np.random.default_rng(seed_from("k-shot", seed))
    chosen: list[int] = []
    for name in names:
        rows = [n for n, label in enumerate(labels) if label == name]
        if len(rows) < k:
            raise UserError(
                f"{source}: {name!r} has {len(rows)} rows, data.k = {k}; lower data.k or add rows"
            )
        chosen += rng.choice(rows, k, replace=False).tolist()
    return sorted(chosen)


def _check_patterns(
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


def _check_models(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    student: Pretrained | None,
    student_tokens: int,
) -> dict[str, Any]:
    # Loading takes seconds; a model that is broken would be noticed after hours of other work.
    from pet_pipeline.pretrained import load_mlm, load_tokenizer, new_classifier

    _check_fit(base, load_mlm(base), load_tokenizer(base))
    if student:
        with _said_of_the_student():
            tokenizer, model = load_tokenizer(student), new_classifier(student, ("a", "b"))
            _check_fit(student, model, tokenizer)
            if model.config.pad_token_id is None:  # decoders find a text's end by it
                raise UserError(
                    f"model: a {model.config.model_type} model without a padding token; "
                    "name one such as bert or roberta"
                )
        limit = getattr(model.config, "max_position_embeddings", None) or student_tokens
        limit = min(limit, tokenizer.model_max_length)
        if student_tokens > limit:
            raise UserError(
                f"distill.max_tokens: {student_tokens} is more than distill.model reads, {limit}"
            )
    return {"models": 1 + bool(student)}


def _check_fit(base: Pretrained, model: Any, tokenizer: Any) -> None:
    """Raise `UserError` if a model and its tokenizer do not belong together."""
    name = base if isinstance(base, Path) else base.name
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(f"model: {name} has no tokenizer; it belongs in the same folder")
    if len(tokenizer) > known:
        raise UserError(
            f"model: {name} has {known} tokens, its tokenizer {len(tokenizer)}; "
            "they are not of the same model"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"model: {name} has no padding token; name one such as bert or roberta")


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
