"""Check and copy the tables; then check models and patterns, before anything long starts."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.duplicates import is_known, known_texts, text_hashes
from pet_pipeline.errors import UserError, at_place, listed, raise_all
from pet_pipeline.patterns import Task
from pet_pipeline.progress import say
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.sources import Source, check_source, count_rows, read_batches
from pet_pipeline.stages.check_adapt import source_problems, teacher_unit
from pet_pipeline.stages.check_data import CheckData, label_conflicts, say_warnings
from pet_pipeline.stages.check_models import check_models
from pet_pipeline.stages.check_patterns import CheckPatterns, longest_inputs
from pet_pipeline.stages.check_settings import label_count_problems, setting_problems
from pet_pipeline.stages.from_settings import (
    base_model,
    pinned_source,
    soft_tokens,
    student_model,
    view_pattern,
)
from pet_pipeline.stages.merge_labels import with_own_labelled
from pet_pipeline.stages.results import TABLE, Tables
from pet_pipeline.tables import COMPRESSION, check_ids, write_shards
from pet_pipeline.units import Info, Result, Unit

LABELLED_TABLES = ("labelled", "test", "development")


def prepare(run: Run, task: Task, settings: Settings) -> Tables:
    """The tables of the settings, checked, and the task's patterns checked on them.

    Raises `UserError` with the problems of all tables, then with those of all patterns, before
    any model is tuned.
    """
    settings = with_own_labelled(run, settings)
    raise_all(setting_problems(task, settings))
    base = base_model(run, settings)
    models = check_models(run, settings)
    pool_rows = _check_sources(run, task, settings)
    units = {
        name: _labelled_unit(run, task, settings, name)
        for name in LABELLED_TABLES
        if getattr(settings.data, name)
    }
    done = run.do("prepare", units)
    labelled, test, development = (done.get(name) for name in LABELLED_TABLES)
    counts = [table.info.get("labels", {}) if table else {} for table in (labelled, development)]
    raise_all(label_count_problems(settings, *counts))
    pool: Result | None = None
    checked: tuple[Result, ...] = ()
    if settings.data.pool:
        pool = run.do("prepare", {"pool": _pool_unit(run, task, settings, test)})["pool"]
    else:
        _say_no_pool(run.root)
    run.do("prepare", {"models": models, **teacher_unit(run, settings)})
    if pool:
        view = view_pattern(task, settings)
        patterns = (*task.patterns, view) if view else task.patterns
        check = CheckPatterns(
            base=base,
            patterns=tuple(dict.fromkeys(patterns)),
            soft=soft_tokens(settings),
            pool=pool,
            max_tokens=settings.finetune.max_tokens,
            longest=longest_inputs(settings),
        )
        checked = tuple(run.do("prepare", {"patterns": check}).values())
    check_data = CheckData(
        columns=task.columns,
        tables=done,
        pool=pool,
        balanced=settings.finetune.balanced,
        checked=checked,
        student=student_model(run, settings) if settings.distill.enabled else None,
        student_tokens=settings.distill.max_tokens,
    )
    data_checks = run.do("prepare", {"data": check_data})["data"]
    if not run.plan:  # also those that an earlier run found
        say_warnings("Data checks", [data_checks])
    return Tables(
        pool=pool,
        pool_rows=pool_rows,
        n_shards=math.ceil(pool_rows / settings.data.shard_rows),
        labelled=labelled,
        test=test,
        development=development,
        checked=checked,
        data_checks=data_checks,
    )


@dataclass(frozen=True)
class PrepareLabelled(Unit):
    """A labelled table as the stages read it: id, the task's text columns, label."""

    name: str
    source: Source
    columns: tuple[str, ...]
    names: Mapping[str, str] = field(hash=False)  # of the columns in the source, if they differ
    labels: tuple[str, ...]
    k: int = 0  # rows drawn per label; 0 takes all
    seed: int | None = None  # of that draw
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write table.parquet; count the rows of each label."""
        table = self._read()
        numbers: Sequence[int] = range(table.num_rows)
        if self.k:
            numbers = self._draw(table["label"].to_pylist())
            table = table.take(numbers)
        raise_all(label_conflicts(self.source, table.to_pylist(), self.columns, numbers))
        counts = Counter(table["label"].to_pylist())
        missing = [label for label in self.labels if not counts[label]]
        if self.name == "labelled" and missing:
            raise UserError(
                f"{self.source}: no row is labelled {listed(missing)}, and a label without rows "
                "is never predicted after tuning; label one row, or leave the label out of "
                "task.toml"
            )
        pq.write_table(table, out / TABLE, compression=COMPRESSION)
        return {"rows": table.num_rows, "labels": {label: counts[label] for label in self.labels}}

    def _read(self) -> pa.Table:
        read = list(read_batches(self.source, self.columns, self.names, self.labels))
        if not read:
            raise UserError(f"data.{self.name}: {self.source} has no rows")
        table = pa.Table.from_batches(read)
        check_ids(self.source, table["id"].chunks)
        empty = [
            n
            for n, row in enumerate(table.to_pylist())
            if not any(row[column].strip() for column in self.columns)
        ]
        if empty:
            raise UserError(
                f"{self.source}: row {empty[0]} has no text in {listed(self.columns)} "
                f"({len(empty)} such rows); drop them"
            )
        return table

    def _draw(self, labels: Sequence[str]) -> list[int]:
        """Numbers of k rows of each label, in the table's order."""
        rng = np.random.default_rng(seed_from("k-shot", self.seed or 0))
        chosen: list[int] = []
        for name in self.labels:
            rows = [n for n, label in enumerate(labels) if label == name]
            if len(rows) < self.k:
                raise UserError(
                    f"{self.source}: {name!r} has {len(rows)} rows, data.k = {self.k}; "
                    "lower data.k or add rows"
                )
            chosen += rng.choice(rows, self.k, replace=False).tolist()
        return sorted(chosen)


@dataclass(frozen=True)
class PreparePool(Unit):
    """The pool in shards: id and the task's text columns.

    Texts that are in the excluded tables too are left out. Shards are cut as if they were not, so
    that a plan knows their number: a shard may have fewer rows than others, or none.
    """

    source: Source
    columns: tuple[str, ...]
    names: Mapping[str, str] = field(hash=False)
    shard_rows: int
    rows: int = 0  # of a sample; 0 takes all
    seed: int | None = None  # of that sample
    excluded: tuple[Result, ...] = ()
    version = 3

    def work(self, out: Path, compute: Compute) -> Info:
        """Write part-00000.parquet and so on."""
        ids: list[pa.Array] = []
        batches = self._sample(read_batches(self.source, self.columns, self.names, None))
        excluded = known_texts(
            [text_hashes(pq.read_table(t.dir / TABLE), self.columns) for t in self.excluded]
        )

        def keep(table: pa.Table) -> npt.NDArray[np.bool_]:
            return ~is_known(text_hashes(table, self.columns), excluded)

        rows = write_shards(
            _remember(batches, ids), out, self.shard_rows, keep=keep if len(excluded) else None
        )
        check_ids(self.source, ids)
        total = sum(map(len, ids))
        if not rows:
            raise UserError(
                f"data.pool: all {total} texts of {self.source} are in data.test too, and copies "
                "of test texts are left out of the pool; give other texts"
            )
        return {"rows": rows, "left_out": total - rows}

    def _sample(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, or the rows of them that a seeded sample takes, in their order."""
        total = count_rows(self.source, self.columns, self.names) if self.rows else 0
        if not self.rows or self.rows >= total:
            yield from batches
            return
        rng = np.random.default_rng(seed_from("pool", self.seed or 0))
        chosen = np.sort(rng.choice(total, self.rows, replace=False))
        start = 0
        for batch in batches:
            inside = chosen[(chosen >= start) & (chosen < start + batch.num_rows)] - start
            start += batch.num_rows
            if len(inside):
                yield batch.take(pa.array(inside))


def _check_sources(run: Run, task: Task, settings: Settings) -> int:
    """Rows of the pool that will be used, if any; raises `UserError` with what the schemas show."""
    data = settings.data
    problems: list[str] = []
    for name in (*LABELLED_TABLES, "pool"):
        source = getattr(data, name)
        if source:
            problems += check_source(
                source,
                task.columns,
                data.columns,
                labelled=name != "pool",
                place=f"data.{name}",
            )
    problems += source_problems(run, task, settings)
    raise_all(problems)
    if not data.pool:
        return 0
    with at_place("data.pool"):
        rows = count_rows(pinned_source(run, data.pool), task.columns, _pool_names(settings))
    if not rows:
        raise UserError(f"data.pool: {data.pool} has no rows")
    return min(rows, data.pool_rows or rows)


def _labelled_unit(run: Run, task: Task, settings: Settings, name: str) -> PrepareLabelled:
    data = settings.data
    k = data.k if name == "labelled" else 0
    return PrepareLabelled(
        name=name,
        source=pinned_source(run, getattr(data, name)),
        columns=task.columns,
        names=data.columns,
        labels=task.labels,
        k=k,
        seed=data.seed if k else None,
    )


def _pool_unit(run: Run, task: Task, settings: Settings, test: Result | None) -> PreparePool:
    data = settings.data
    return PreparePool(
        source=pinned_source(run, data.pool),
        columns=task.columns,
        names=_pool_names(settings),
        shard_rows=data.shard_rows,
        rows=data.pool_rows,
        seed=data.seed if data.pool_rows else None,
        excluded=(test,) if test else (),
    )


def _pool_names(settings: Settings) -> dict[str, str]:
    """The names of the pool's columns; what the label is called does not matter there."""
    return {column: name for column, name in settings.data.columns.items() if column != "label"}


@functools.cache
def _say_no_pool(root: Path) -> None:
    """Say once for a run's folder, however often it is planned, that it is about the baseline."""
    say(
        "data.pool: not set, so there is nothing to annotate and distil: only the baseline is "
        "trained, an ordinary classifier on the labelled rows alone; patterns are not used. "
        "Give unlabelled texts of the same kind, --pool FILE, for a better one"
    )


def _remember(batches: Iterable[pa.RecordBatch], ids: list[pa.Array]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        ids.append(batch["id"])
        yield batch
