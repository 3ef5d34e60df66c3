"""The final classifier from the soft labels, and the baseline that never sees the pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from pet_pipeline.config import Baseline, Distill, Machine, Settings
from pet_pipeline.data import Floats, part_name, read_probs, read_rows
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Task
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import TABLE, Tables, labels_of, shard_file

if TYPE_CHECKING:
    from pet_pipeline.classifier import Encodings


def distill(
    run: Run, task: Task, soft: Result, tables: Tables, settings: Settings
) -> Result | None:
    """A classifier trained on the pool's soft labels; None if the settings stop before it."""
    if not settings.distill.enabled:
        return None
    name = settings.distill.model
    base = resolve_model(name) if name else resolve_model(settings.model, settings.revision)
    call = {
        "base": base,
        "labels": task.labels,
        "columns": task.columns,
        "soft": soft,
        "pool": tables.pool,
        "labelled": tables.labelled if settings.distill.gold_weight else None,
        "settings": settings.distill.model_copy(update={"model": ""}),
    }
    return run.do("distill", _distill, {"classifier": call}, resumable=True)[0]


def baseline(run: Run, task: Task, tables: Tables, settings: Settings) -> Result | None:
    """The same encoder trained on the labelled rows alone; None without any, or if turned off."""
    if not settings.baseline.enabled or tables.labelled is None:
        return None
    call = {
        "base": resolve_model(settings.model, settings.revision),
        "labels": task.labels,
        "columns": task.columns,
        "labelled": tables.labelled,
        "settings": settings.baseline,
    }
    return run.do("baseline", _baseline, {"classifier": call})[0]


def _distill(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    soft: Result,
    pool: Result,
    labelled: Result | None,
    settings: Distill,
) -> dict[str, Any]:
    from pet_pipeline.batches import batch_rows
    from pet_pipeline.classifier import distill_classifier, encode_texts, save_classifier
    from pet_pipeline.pretrained import load_tokenizer

    seed = seed_from("distill")
    model, tokenizer = _new_model(base, labels, seed), load_tokenizer(base)
    n_rows = soft.info["rows"]
    batches = [
        batch_rows(n_rows, settings.batch_size, seed=seed, step=step)
        for step in range(settings.steps)
    ]
    used = sorted({row for batch in batches for row in batch})
    rows, probs = _pool_rows(soft, pool, used)
    place = {row: n for n, row in enumerate(used)}
    gold_rows, gold = _gold(labelled, labels)
    loss = distill_classifier(
        model,
        encode_texts(tokenizer, rows, columns, settings.max_tokens),
        probs,
        [[place[row] for row in batch] for batch in batches],
        encode_texts(tokenizer, gold_rows, columns, settings.max_tokens) if gold else None,
        gold,
        tokenizer.pad_token_id,
        settings=settings,
        seed=seed,
        machine=machine,
        what="distill",
        checkpoints=out,
    )
    save_classifier(model, tokenizer, out, columns, settings.max_tokens)
    return {"rows": len(used), "loss": loss}


def _baseline(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    labelled: Result,
    settings: Baseline,
) -> dict[str, Any]:
    from pet_pipeline.classifier import encode_texts, save_classifier, tune_classifier
    from pet_pipeline.pretrained import load_tokenizer

    seed = seed_from("baseline")
    model, tokenizer = _new_model(base, labels, seed), load_tokenizer(base)
    rows, gold = _gold(labelled, labels)
    encodings: Encodings = encode_texts(tokenizer, rows, columns, settings.max_tokens)
    loss = tune_classifier(
        model,
        encodings,
        gold,
        tokenizer.pad_token_id,
        optimiser=settings,
        steps=settings.steps,
        seed=seed,
        machine=machine,
        what="baseline",
    )
    save_classifier(model, tokenizer, out, columns, settings.max_tokens)
    return {"rows": len(rows), "loss": loss}


def _new_model(base: Pretrained, labels: tuple[str, ...], seed: int) -> Any:
    import torch

    from pet_pipeline.pretrained import new_classifier

    torch.manual_seed(seed)  # the new head starts at random
    return new_classifier(base, labels)


def _gold(
    labelled: Result | None, labels: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[int]]:
    if labelled is None:
        return [], []
    return read_rows(labelled.dir / TABLE), labels_of(labelled.dir / TABLE, labels)


def _pool_rows(soft: Result, pool: Result, used: list[int]) -> tuple[list[dict[str, Any]], Floats]:
    """The rows that training will see, and their soft labels, read shard by shard."""
    rows: list[dict[str, Any]] = []
    probs: list[Floats] = []
    numbers = np.array(used)
    start = 0
    for n in range(len(list(soft.dir.glob("part-*.parquet")))):
        file = shard_file(pool, n)
        size = pq.read_metadata(file).num_rows
        inside = numbers[(numbers >= start) & (numbers < start + size)] - start
        rows += pq.read_table(file).take(inside).to_pylist()
        probs.append(read_probs(soft.dir / part_name(n))[inside])
        start += size
    return rows, np.concatenate(probs)
