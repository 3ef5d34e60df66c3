"""The run's own labelled table: labels that were given to rows of its pool, added to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from pet_pipeline.config import Settings
from pet_pipeline.duplicates import is_known, known_texts, text_hashes
from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.in_memory import save_table
from pet_pipeline.patterns import Task
from pet_pipeline.progress import say
from pet_pipeline.run import CONFIG, LOCK, Run
from pet_pipeline.sources import find_source, read_batches
from pet_pipeline.stages.results import FROM_POOL, TABLE
from pet_pipeline.tables import shard_files
from pet_pipeline.texts import shortened
from pet_pipeline.units import Result

OWN = "labelled"  # the name of the table in the run's folder, without its suffix
LABEL = "label"
NAMED = 10  # problems of one kind that a message names
SHOWN_CHARACTERS = 60


def own_labelled(run: Run) -> Path:
    """Where the run's own labelled table is, if there is one."""
    return run.root / f"{OWN}.parquet"


def with_own_labelled(run: Run, settings: Settings) -> Settings:
    """The settings with the run's own labelled table in place of `data.labelled`.

    It was begun with the rows that `data.k` drew, and is taken as it is. A run says so.
    """
    file = own_labelled(run)
    if not file.exists():
        return settings
    if not run.plan:
        run.log("own labelled table", file=str(file))
        say(f"labelled rows: {file}, in place of data.labelled")
    data = settings.data.model_copy(update={"labelled": str(file), "k": 0})
    return settings.model_copy(update={"data": data})


@dataclass(frozen=True)
class Merged:
    """What came of a table that was filled in."""

    file: Path  # the run's own labelled table
    added: int
    known: int  # rows that were merged before, with the same label
    empty: int  # rows without a label
    counts: dict[str, int]  # rows per label, of all


def merge_labels(run: Run, task: Task, settings: Settings, filled: Path) -> Merged:
    """Add the rows with a label of a table like `choose_rows`' to the run's own labelled table.

    That begins as a copy of the run's labelled rows, has the column names of the settings, and is
    read by the next run of the folder. Rows are recognised by their texts; a table that is merged
    again adds nothing. Raises `UserError` with all problems: labels that are not the task's, texts
    that are not the pool's, texts that have another label.

    run: a plan of the whole pipeline; its `prepare` must be done
    """
    try:
        with FileLock(run.root / LOCK, timeout=0):
            return _merge(run, task, settings, filled)
    except Timeout:
        raise UserError(
            f"{run.root}: another process is at work on this run; merge when it is finished"
        ) from None


@dataclass(frozen=True)
class _Row:
    """A row of a filled table that has a label."""

    place: str  # what messages call it
    label: str
    text: int  # its hash


def _merge(run: Run, task: Task, settings: Settings, filled: Path) -> Merged:
    table = _read_filled(filled, task.columns)
    rows = _rows(filled, table, task.columns)
    if not rows:
        raise UserError(
            f"{filled}: no row has a label; fill the column {LABEL!r} with {listed(task.labels)}"
        )
    raise_all(_unknown_labels(filled, [row.label for row in rows], task.labels))
    before = _labelled_rows(run, task, settings)
    hashes = text_hashes(before, task.columns).tolist()
    known = dict(zip(hashes, before[LABEL].to_pylist(), strict=True))
    pool = _find(_prepared(run, "pool"), task.columns, [row.text for row in rows])
    raise_all(_problems(filled, rows, pool, known))
    first = {row.text: row for row in reversed(rows)}
    new = [row for row in reversed(first.values()) if row.text not in known]
    ids = set(before["id"].to_pylist())
    added = [
        {**pool[row.text], "id": _new_id(pool[row.text]["id"], ids), LABEL: row.label}
        for row in new
    ]
    merged = pa.concat_tables([before, pa.Table.from_pylist(added, before.schema)])
    if new:
        names = settings.data.columns
        renamed = merged.rename_columns([names.get(name, name) for name in merged.column_names])
        save_table(renamed, run.root, OWN)
        run.log("labelled", added=len(new), rows=merged.num_rows, merged=str(filled))
    counts = Counter(merged[LABEL].to_pylist())
    return Merged(
        file=own_labelled(run),
        added=len(new),
        known=len(first) - len(new),
        empty=table.num_rows - len(rows),
        counts={label: counts[label] for label in task.labels},
    )


def _read_filled(filled: Path, columns: Sequence[str]) -> pa.Table:
    """The texts and labels of a table, as strings; the id only names a row in messages."""
    batches = list(read_batches(find_source(str(filled)), (*columns, LABEL), {}, None))
    if not batches:
        raise UserError(f"{filled}: has no rows")
    return pa.Table.from_batches(batches)


def _rows(filled: Path, table: pa.Table, columns: Sequence[str]) -> list[_Row]:
    """The rows that have a label."""
    texts = text_hashes(table, columns).tolist()
    rows = []
    for n, (row, text) in enumerate(zip(table.to_pylist(), texts, strict=True)):
        label = row[LABEL].strip()
        if label:
            shown = " | ".join(" ".join(row[column].split()) for column in columns)
            shown = shortened(shown, SHOWN_CHARACTERS)
            rows.append(_Row(f"{filled}: row {n} (id {row['id']}, {shown!r})", label, text))
    return rows


def _problems(
    filled: Path, rows: Sequence[_Row], pool: Mapping[int, object], known: Mapping[int, str]
) -> Iterator[str]:
    """Texts that are not the pool's, and those with two labels, a few of them named."""
    labels: dict[int, str] = {}
    problems = []
    for row in rows:
        first = labels.setdefault(row.text, row.label)
        before = known.get(row.text, row.label)
        if row.text not in pool and row.text not in known:
            problem = "not a text of this run's pool; restore the text as it was written"
        elif before != row.label:
            problem = f"labelled {row.label!r}, but {before!r} before; clear it to keep that"
        elif first != row.label:
            problem = f"labelled {row.label!r}, but {first!r} in an earlier row; keep one"
        else:
            continue
        problems.append(f"{row.place}: {problem}")
    yield from problems[:NAMED]
    if len(problems) > NAMED:
        yield f"{filled}: {len(problems) - NAMED} more such rows"


def _unknown_labels(filled: Path, found: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    unknown = Counter(label for label in found if label not in labels)
    for label, count in unknown.most_common(NAMED):
        rows = "row" if count == 1 else "rows"
        yield (
            f"{filled}: {label!r} ({count} {rows}) is not a label of the task"
            f"{nearest(label, labels)}"
        )
    if len(unknown) > NAMED:
        yield f"{filled}: {len(unknown) - NAMED} more values are not labels of the task"


def _labelled_rows(run: Run, task: Task, settings: Settings) -> pa.Table:
    """The labelled rows so far: id, the text columns, label, all as strings."""
    file = own_labelled(run)
    columns = ("id", *task.columns, LABEL)
    schema = pa.schema([(column, pa.string()) for column in columns])
    if file.exists():
        names = settings.data.columns
        batches = read_batches(find_source(str(file)), task.columns, names, task.labels)
        table = pa.Table.from_batches(list(batches))
    elif settings.data.labelled:
        table = pq.read_table(_prepared(run, "labelled").dir / TABLE)
    else:
        return schema.empty_table()
    return table.select(columns).cast(schema)


def _prepared(run: Run, name: str) -> Result:
    """A prepared table; raises `UserError` if it is not that of the settings."""
    if name == "pool" and not any(unit.dir.name == "pool" for unit in run.units):
        raise UserError(
            f"{run.root}: this run has no pool that rows were chosen from; add rows to "
            "data.labelled"
        )
    for unit in run.units:
        result = unit.result() if (unit.stage, unit.dir.name) == ("prepare", name) else None
        if result:
            return result
    raise UserError(
        f"{run.root}: prepare/{name} is not done, or the table has changed since; run it first: "
        f"pet run {run.root / CONFIG} --until prepare"
    )


def _find(pool: Result, columns: Sequence[str], texts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The rows of the pool with some texts, by the texts' hashes; of equal ones, the first."""
    wanted = known_texts([np.array(texts, np.uint64)])
    found: dict[int, dict[str, Any]] = {}
    for file in shard_files(pool.dir):
        table = pq.read_table(file, columns=["id", *columns])
        hashes = text_hashes(table, columns)
        numbers = np.flatnonzero(is_known(hashes, wanted))
        rows = table.take(pa.array(numbers)).to_pylist()
        for text, row in zip(hashes[numbers].tolist(), rows, strict=True):
            found.setdefault(text, row)
    return found


def _new_id(pool_id: object, ids: set[str]) -> str:
    """An id for a row of the pool that no labelled row has; it is added to these."""
    name, n = f"{FROM_POOL}{pool_id}", 1
    while name in ids:
        n += 1
        name = f"{FROM_POOL}{pool_id}#{n}"
    ids.add(name)
    return name
