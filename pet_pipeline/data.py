"""Tables in and out: sources, columns, labels, ids, shards, soft labels.

A source is a file, a folder of shards or an fsspec URL with Parquet, CSV or JSON lines,
or `datasets:NAME[:CONFIG]:SPLIT`. Tables are streamed; a batch at a time is in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from pet_pipeline.errors import UserError, listed, nearest

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
COMPRESSION = "zstd"
BATCH_ROWS = 8192
DATASETS = "datasets:"
ARROW_PREAMBLE = re.compile(r"Error creating dataset\. .* input source '.*?': (Invalid: )?")

Floats = npt.NDArray[np.floating[Any]]


def check_source(
    source: str,
    columns: Sequence[str],
    names: Mapping[str, str],
    *,
    labelled: bool,
    place: str,
    mapping: str = 'data.columns = {text = "..."}',
) -> list[str]:
    """What keeps a source from being read as a table of a task; opens it, reads no rows.

    columns: the task's text columns; names: the names that the source has for some of them
    mapping: how such names are given
    """
    try:
        present = _open(source).schema.names
    except UserError as error:
        return [f"{place}: {error}"]
    needed = [names.get(column, column) for column in (*columns, *(["label"] * labelled))]
    return [
        f"{place}: {source} has no column {name!r}{nearest(name, present)}"
        + (f"; or map it: {mapping}" if not names else "")
        for name in needed
        if name not in present
    ]


@dataclass(frozen=True)
class Remote:
    """A table elsewhere: a URL or `datasets:` name, and what tells its versions apart."""

    url: str
    version: str

    def __str__(self) -> str:
        return self.url


Source = Path | Remote


def find_source(source: str) -> Source:
    """What a source of the settings is for a key: a local path, or a remote table's version."""
    if source.startswith(DATASETS):
        return Remote(source, _datasets_version(source.removeprefix(DATASETS).split(":")[0]))
    if "://" not in source:
        return Path(source)
    filesystem, path = url_to_fs(source)
    return Remote(source, " ".join(filesystem.ukey(file) for file in sorted(filesystem.find(path))))


def count_rows(source: Source) -> int:
    """Rows of a source; from the metadata if it is Parquet."""
    with _reading(source):
        return int(_open(str(source)).count_rows())


def read_batches(
    source: Source, columns: Sequence[str], names: Mapping[str, str], labels: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """Batches of `id`, the text columns, and `label` if labels are given, in the source's order.

    Texts are strings, nulls empty; labels are names. Ids are strings or integers, made from the
    row number where there are none. Raises `UserError` for a label that is not among `labels`.
    """
    dataset = _open(str(source))
    wanted = [names.get(column, column) for column in columns]
    label = names.get("label", "label")
    identifier = names.get("id", "id")
    made = identifier not in dataset.schema.names
    wanted += ([] if made else [identifier]) + ([label] if labels is not None else [])
    classes = _class_names(dataset.schema, label)
    unknown: Counter[str] = Counter()
    start = 0
    with _reading(source):
        for batch in dataset.to_batches(columns=list(dict.fromkeys(wanted)), batch_size=BATCH_ROWS):
            if not batch.num_rows:
                continue
            ids = pa.array(range(start, start + len(batch))) if made else _ids(batch[identifier])
            arrays = {"id": ids} | {c: _text(batch[names.get(c, c)]) for c in columns}
            if labels is not None:
                arrays["label"] = _labels(batch[label], classes)
                unknown.update(v for v in arrays["label"].to_pylist() if v not in labels)
            start += batch.num_rows
            table = pa.RecordBatch.from_pydict(arrays)
            table.validate(full=True)  # Arrow reads JSON without a look at its encoding
            yield table
    if unknown:
        raise UserError("\n".join(_unknown_labels(source, unknown, labels or ())))


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All rows of a prepared table or shard."""
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def check_ids(source: Source, ids: Iterable[pa.Array]) -> None:
    """Raise `UserError` if an id stands twice or is missing."""
    hashes = array("Q")  # 8 bytes a row, so that a large pool fits
    for chunk in ids:
        if chunk.null_count:
            raise UserError(
                f"{source}: {chunk.null_count} rows have no id; fill or drop the column"
            )
        for value in chunk.to_pylist():
            digest = hashlib.blake2b(str(value).encode(), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "big"))
    values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    if len(values) < len(hashes):
        twice = int(np.flatnonzero(np.frombuffer(hashes, np.uint64) == values[counts > 1][0])[1])
        extra = len(hashes) - len(values)
        raise UserError(
            f"{source}: row {twice} has an id that stands there before ({extra} such rows); "
            "ids must be unique; without the column, row numbers serve"
        )


def write_shards(batches: Iterable[pa.RecordBatch], folder: Path, rows: int) -> int:
    """Write batches as part-00000.parquet and so on, `rows` each; returns the number of rows."""
    buffer: list[pa.RecordBatch] = []
    held = total = part = 0

    def write(table: pa.Table) -> None:
        nonlocal part
        pq.write_table(table, folder / part_name(part), compression=COMPRESSION)
        part += 1

    for batch in batches:
        buffer.append(batch)
        held += batch.num_rows
        total += batch.num_rows
        while held >= rows:
            table = pa.Table.from_batches(buffer)
            write(table.slice(0, rows))
            rest = table.slice(rows)
            buffer, held = rest.to_batches(), rest.num_rows
    if held:
        write(pa.Table.from_batches(buffer))
    return total


def part_name(index: int) -> str:
    """The file of a shard.

    >>> part_name(3)
    'part-00003.parquet'
    """
    return f"part-{index:05d}.parquet"


def write_scores(file: Path, ids: pa.Array, scores: Floats, labels: Sequence[str]) -> None:
    """Label scores (rows, labels) of a shard, as a fixed-size list for each row."""
    table = pa.table({"id": ids, "scores": _fixed(scores)})
    pq.write_table(_named(table, labels), file, compression=COMPRESSION)


def read_scores(file: Path) -> tuple[pa.Array, Floats]:
    """Ids and scores (rows, labels) of a shard."""
    table = pq.read_table(file).combine_chunks()
    return table["id"].combine_chunks(), _unfixed(table["scores"])


def soft_label_table(ids: pa.Array, probs: Floats, labels: Sequence[str]) -> pa.Table:
    """Soft labels: id, label, confidence, entropy (nats), probs (rows, labels)."""
    safe = np.clip(probs, 1e-30, 1)
    table = pa.table(
        {
            "id": ids,
            "label": pa.array(np.asarray(labels, dtype=object)[probs.argmax(1)], pa.string()),
            "confidence": pa.array(probs.max(1), pa.float32()),
            "entropy": pa.array(-(safe * np.log(safe)).sum(1), pa.float32()),
            "probs": _fixed(probs),
        }
    )
    return _named(table, labels)


def write_soft_labels(file: Path, ids: pa.Array, probs: Floats, labels: Sequence[str]) -> None:
    """Write the soft labels of a shard."""
    pq.write_table(soft_label_table(ids, probs, labels), file, compression=COMPRESSION)


def read_probs(file: Path) -> Floats:
    """The probabilities (rows, labels) of a shard of soft labels."""
    return _unfixed(pq.read_table(file, columns=["probs"])["probs"])


def save_table(table: Any, folder: Path | str, name: str, *, column: str = "text") -> str:
    """A table in memory as a Parquet file in `folder`; returns its path, to be used as a source.

    table: Arrow table, pandas frame, list of dicts, mapping of lists, or list of texts (which
    become the column `column`)
    """
    if isinstance(table, list) and table and all(isinstance(text, str) for text in table):
        table = {column: table}
    if isinstance(table, pa.Table):
        arrow = table
    elif isinstance(table, Mapping):
        arrow = pa.table(dict(table))
    elif isinstance(table, list):
        arrow = pa.Table.from_pylist(table)
    elif hasattr(table, "columns") and hasattr(table, "iloc"):
        arrow = pa.Table.from_pandas(table, preserve_index=False)
    else:
        raise UserError(
            f"{name}: a {type(table).__name__} is no table; give an Arrow table, a pandas frame, "
            "a list of dicts or a list of texts"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.parquet"
    beside = folder / f".{name}.partial"
    pq.write_table(arrow, beside, compression=COMPRESSION)
    os.replace(beside, file)
    return str(file)


def _open(source: str) -> ds.Dataset:
    """A source as an Arrow dataset; every column of a CSV file is text, as it stands there."""
    if source.startswith(DATASETS):
        return _open_datasets(source)
    try:
        filesystem, path = url_to_fs(source)
        if not filesystem.exists(path):
            near = _neighbours(source)
            raise UserError(f"{source}: no such file or folder{near}")
        files = [path] if filesystem.isfile(path) else sorted(filesystem.find(path))
    except (ValueError, ImportError) as error:
        raise UserError(f"{source}: {_first_line(error)}") from None
    files = [f for f in files if Path(f).suffix in FORMATS and not Path(f).name.startswith(".")]
    kinds = {FORMATS[Path(file).suffix] for file in files}
    if len(kinds) != 1:
        found = listed(sorted(kinds)) if kinds else "no table"
        raise UserError(f"{source}: {found} found; one of {listed(FORMATS)} is needed")
    kind = kinds.pop()
    with _reading(source):
        dataset = ds.dataset(files, format=_format(kind, ()), filesystem=filesystem)
        if kind in ("csv", "tsv"):
            form = _format(kind, tuple(dataset.schema.names))
            dataset = ds.dataset(files, format=form, filesystem=filesystem)
        return dataset


@contextmanager
def _reading(source: Source | str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UserError(f"{source}: cannot be read: {_first_line(error)}") from None


def _format(kind: str, strings: tuple[str, ...]) -> Any:
    if kind not in ("csv", "tsv"):
        return kind
    return ds.CsvFileFormat(
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in strings}, strings_can_be_null=False
        ),
    )


def _open_datasets(source: str) -> ds.Dataset:
    name, *rest = source.removeprefix(DATASETS).split(":")
    if not rest or not name:
        raise UserError(f"{source}: write {DATASETS}NAME:SPLIT or {DATASETS}NAME:CONFIG:SPLIT")
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        loaded = load_dataset(name, *rest[:-1], split=rest[-1], trust_remote_code=None)
    except (DatasetNotFoundError, ValueError, OSError) as error:
        raise UserError(f"{source}: {_first_line(error)}") from None
    return ds.dataset(loaded.with_format("arrow")[:])


def _datasets_version(name: str) -> str:
    folder = Path(name)
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        facts = [
            f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    from huggingface_hub import dataset_info

    return str(dataset_info(name).sha)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Names behind integer labels, if `datasets` left them in the schema."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(label, {}).get("names")
    return list(names) if names else None


def _ids(column: pa.Array) -> pa.Array:
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    return column.cast(pa.string())


def _text(column: pa.Array) -> pa.Array:
    return pc.fill_null(column.cast(pa.string()), "")


def _labels(column: pa.Array, classes: list[str] | None) -> pa.Array:
    if classes and pa.types.is_integer(column.type):
        known = pc.if_else(pc.less(column, 0), None, column)  # -1 is no label in `datasets`
        column = pa.array(classes, pa.string()).take(known)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pc.fill_null(column.cast(pa.string()), "")


def _unknown_labels(source: Source, unknown: Counter[str], labels: Sequence[str]) -> Iterator[str]:
    for label, count in unknown.most_common(10):
        rows = "row" if count == 1 else "rows"
        if label:
            yield (
                f"{source}: {label!r} ({count} {rows}) is no label of the task"
                f"{nearest(label, labels)}"
            )
        else:
            yield f"{source}: {count} {rows} without a label; the pool is for those"


def _fixed(values: Floats) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _unfixed(column: pa.ChunkedArray) -> Floats:
    width = column.type.list_size
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)


def _named(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    return table.replace_schema_metadata({"labels": json.dumps(list(labels))})


def _neighbours(source: str) -> str:
    remote = "://" in source
    return "" if remote else nearest(source, sorted(map(str, Path(source).parent.glob("*"))))


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ARROW_PREAMBLE.sub("", line)
