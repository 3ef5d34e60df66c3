"""Our own tables: shards, prepared rows, label scores and soft labels, all in Parquet."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.errors import UserError

COMPRESSION = "zstd"

Floats = npt.NDArray[np.floating[Any]]


def part_name(index: int) -> str:
    """The file name of a shard.

    >>> part_name(3)
    'part-00003.parquet'
    """
    return f"part-{index:05d}.parquet"


def shard_files(folder: Path) -> list[Path]:
    """The shards in a folder, in order; empty if there are none."""
    return sorted(folder.glob("part-*.parquet"), key=lambda file: (len(file.name), file.name))


def write_shards(
    batches: Iterable[pa.RecordBatch],
    folder: Path,
    rows: int,
    *,
    keep: Callable[[pa.Table], npt.NDArray[np.bool_]] | None = None,
) -> int:
    """Write batches as shards of `rows` rows each; returns the number of rows written.

    keep: which rows (rows,) of a shard are written; shards are cut as if all were
    """
    total = 0
    for index, table in enumerate(resized(batches, rows)):
        if keep is not None:
            table = table.filter(pa.array(keep(table)))
        pq.write_table(table, folder / part_name(index), compression=COMPRESSION)
        total += table.num_rows
    return total


def resized(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The rows of the batches in tables of `rows` rows; the last may have fewer."""
    buffer: list[pa.RecordBatch] = []
    buffered = 0
    for batch in batches:
        buffer.append(batch)
        buffered += batch.num_rows
        while buffered >= rows:
            table = pa.Table.from_batches(buffer)
            yield table.slice(0, rows)
            rest = table.slice(rows)
            buffer, buffered = rest.to_batches(), rest.num_rows
    if buffered:
        yield pa.Table.from_batches(buffer)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All rows of a prepared table or shard."""
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def labels_of(file: Path, labels: Sequence[str]) -> list[int]:
    """The label numbers of a prepared table, one per row."""
    numbers = {label: n for n, label in enumerate(labels)}
    return [numbers[label] for label in pq.read_table(file, columns=["label"])["label"].to_pylist()]


def check_ids(source: object, ids: Iterable[pa.Array]) -> None:
    """Nothing, if every row has an id of its own.

    source: what messages call the table. Raises `UserError` for a missing or a duplicate id.
    """
    hashes = array("Q")  # 8 bytes per row, so that a large pool fits
    for chunk in ids:
        if chunk.null_count:
            rows = "row has" if chunk.null_count == 1 else "rows have"
            raise UserError(f"{source}: {chunk.null_count} {rows} no id; fill or drop the column")
        hashes.extend(_hash(value) for value in chunk.to_pylist())
    rows_by_hash = np.frombuffer(hashes, np.uint64)
    values, counts = np.unique(rows_by_hash, return_counts=True)
    n_extra = len(hashes) - len(values)
    if n_extra:
        row = int(np.flatnonzero(rows_by_hash == values[counts > 1][0])[1])
        raise UserError(
            f"{source}: row {row} has a duplicate id ({n_extra} such "
            f"{'row' if n_extra == 1 else 'rows'}); ids must be unique; "
            "without the column, row numbers serve"
        )


def _hash(value: object) -> int:
    digest = hashlib.blake2b(str(value).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def write_scores(file: Path, ids: pa.Array, scores: Floats, labels: Sequence[str]) -> None:
    """Write label scores (rows, labels), as a fixed-size list per row."""
    table = pa.table({"id": ids, "scores": _lists(scores)})
    pq.write_table(_with_labels(table, labels), file, compression=COMPRESSION)


def read_scores(file: Path) -> tuple[pa.Array, Floats]:
    """Ids (rows,) and label scores (rows, labels)."""
    table = pq.read_table(file).combine_chunks()
    return table["id"].combine_chunks(), _matrix(table["scores"])


def soft_label_table(ids: pa.Array, probs: Floats, labels: Sequence[str]) -> pa.Table:
    """Soft labels: id, label, confidence, entropy (nats) and probs (rows, labels)."""
    safe = np.clip(probs, 1e-30, 1)
    table = pa.table(
        {
            "id": ids,
            "label": pa.array(np.asarray(labels, dtype=object)[probs.argmax(1)], pa.string()),
            "confidence": pa.array(probs.max(1), pa.float32()),
            "entropy": pa.array(-(safe * np.log(safe)).sum(1), pa.float32()),
            "probs": _lists(probs),
        }
    )
    return _with_labels(table, labels)


def write_soft_labels(file: Path, ids: pa.Array, probs: Floats, labels: Sequence[str]) -> None:
    """Write the soft labels of a shard, from probabilities (rows, labels)."""
    pq.write_table(soft_label_table(ids, probs, labels), file, compression=COMPRESSION)


def read_probs(file: Path) -> Floats:
    """The probabilities (rows, labels) of a shard of soft labels."""
    return _matrix(pq.read_table(file, columns=["probs"])["probs"])


def _lists(values: Floats) -> pa.Array:
    """A matrix as an Arrow column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _matrix(column: pa.ChunkedArray) -> Floats:
    """An Arrow column of fixed-size lists as a matrix (rows, width)."""
    width = column.type.list_size
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)


def _with_labels(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    return table.replace_schema_metadata({"labels": json.dumps(list(labels))})
