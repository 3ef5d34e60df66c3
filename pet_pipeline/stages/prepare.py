"""Check and copy the tables, check the patterns against the model, put rows into patterns."""

from __future__ import annotations

import math
from collections import Counter
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
    write_shards,
)
from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Task
from pet_pipeline.progress import say
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.encode import check_call, check_patterns
from pet_pipeline.stages.results import TABLE, Tables, info_of

TABLES = ("labelled", "test", "development")


def prepare(run: Run, task: Task, settings: Settings) -> Tables:
    """The tables of the settings, checked, and the task's patterns checked on them.

    Raises `UserError` with the problems of all tables, then with those of all patterns, before
    any model is loaded.
    """
    base = resolve_model(settings.model, settings.revision)
    distill, examples, search = settings.distill, settings.demonstrations, settings.search
    student = _resolve("distill.model", distill.model, needed=distill.enabled)
    others = {
        "examples": _resolve("demonstrations.encoder", examples.encoder, needed=examples.enabled),
        "t5": _resolve(
            "search.t5", search.t5, needed=search.templates and "t5" in search.generators
        ),
    }
    rows = _check_tables(task, settings)
    calls = {name: _table_call(task, settings, name) for name in (*TABLES, "pool")}
    used = {name: call for name, call in calls.items() if call}
    done = dict(zip(used, run.do("prepare", _prepare, used), strict=True))
    raise_all(_fold_problems(settings, info_of(done.get("labelled")).get("labels", {})))
    longest = settings.distill.max_tokens if student else 0
    models = {"base": base, "student": student, "student_tokens": longest, **others}
    run.do("prepare", _check_models, {"models": models})
    call = check_call(base, task.patterns, done["pool"], settings)
    return Tables(
        pool=done["pool"],
        n_shards=math.ceil(rows / settings.data.shard_rows),
        labelled=done.get("labelled"),
        test=done.get("test"),
        development=done.get("development"),
        checked=tuple(run.do("prepare", check_patterns, {"patterns": call})),
    )


def _by_t5(settings: Settings) -> bool:
    return settings.search.templates and "t5" in settings.search.generators


def _resolve(setting: str, name: str, *, needed: bool) -> Pretrained | None:
    """The model of a setting, if it names one and that is needed."""
    if not (needed and name):
        return None
    with _said_of(setting):
        return resolve_model(name)


@contextmanager
def _said_of(setting: str) -> Iterator[None]:
    """Messages about a model name the setting that it comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("model:", f"{setting}:", 1)) from None


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
    yield from _search_problems(settings)
    if settings.finetune.max_tokens < 8:
        yield f"finetune.max_tokens: {settings.finetune.max_tokens} is too few; 8 is the least"


def _search_problems(settings: Settings) -> Iterator[str]:
    search, demonstrations = settings.search, settings.demonstrations
    if not settings.data.labelled:
        for name, on in (
            ("search.templates", search.templates),
            ("search.label_words", search.label_words != "none"),
            ("demonstrations.enabled", demonstrations.enabled),
        ):
            if on:
                yield f"{name}: needs labelled texts, data.labelled"
    if _by_t5(settings) and not search.t5:
        yield "search.t5: not set; the generator 't5' needs a model with sentinels, such as t5-base"
    if demonstrations.enabled and demonstrations.max_tokens <= settings.finetune.max_tokens:
        yield (
            f"demonstrations.max_tokens: {demonstrations.max_tokens} leaves no room beside an "
            f"input of finetune.max_tokens = {settings.finetune.max_tokens}"
        )


def _fold_problems(settings: Settings, counts: Mapping[str, int]) -> Iterator[str]:
    fitted = settings.ensemble.weights == "fitted" and settings.ensemble.fit_on == "folds"
    few = bool(counts) and max(counts.values()) < 2
    if few and fitted:
        yield (
            "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and "
            "no label has two; add rows, or take 'uniform'"
        )
    missing = [label for label, count in counts.items() if not count]
    if missing and settings.search.label_words != "none":
        yield f"search.label_words: no row is labelled {listed(missing)}; add rows"
    if few and settings.search.templates:
        yield (
            "search.templates: compares templates on some rows of a label after tuning on the "
            "others, and no label has two; add rows"
        )


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


def _check_models(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    student: Pretrained | None,
    student_tokens: int,
    examples: Pretrained | None,
    t5: Pretrained | None,
) -> dict[str, Any]:
    # Loading takes seconds; a model that is broken would be noticed after hours of other work.
    from pet_pipeline.pretrained import (
        check_seq2seq,
        load_encoder,
        load_mlm,
        load_tokenizer,
        new_classifier,
    )
    from pet_pipeline.search.seq2seq import sentinels_of

    _check_fit(base, load_mlm(base), load_tokenizer(base))
    if student:
        with _said_of("distill.model"):
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
    if examples:
        with _said_of("demonstrations.encoder"):
            _check_fit(examples, load_encoder(examples), load_tokenizer(examples))
    if t5:
        with _said_of("search.t5"):
            check_seq2seq(t5)
            sentinels_of(load_tokenizer(t5))
    return {"models": 1 + sum(model is not None for model in (student, examples, t5))}


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
