"""Foreign tables: find, check and read the sources that the settings name.

A source is a file, a folder of shards or an fsspec URL with Parquet, CSV or JSON lines,
or `datasets:NAME[:CONFIG]:SPLIT`. Tables are streamed; a batch at a time is in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.files import replace_file
from pet_pipeline.formats import FORMATS, list_files, open_file, reading
from pet_pipeline.hub_datasets import DATASETS, dataset_version, load_dataset
from pet_pipeline.tables import COMPRESSION

BATCH_ROWS = 8192
MAPPING = 'data.columns = {text = "..."}'


@dataclass(frozen=True)
class Folder:
    """A local folder of shards, and the files of it that are read, in order."""

    path: Path
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return str(self.path)

    def in_key(self) -> list[list[object]]:
        """What the key of a unit depends on: the name and the content of every file."""
        return [[file.relative_to(self.path).as_posix(), file] for file in self.files]


@dataclass(frozen=True)
class Remote:
    """A table elsewhere: a URL or `datasets:` name, and what tells its versions apart."""

    url: str
    version: str

    def __str__(self) -> str:
        return self.url


Source = Path | Folder | Remote


def find_source(source: str, version: str = "") -> Source:
    """A source as the key of a unit needs it: local files, or a remote table's version.

    version: the one of a data set to stay with, instead of the newest
    Raises `UserError` for a remote table that does not exist or cannot be reached.
    """
    if source.startswith(DATASETS):
        return Remote(source, version or dataset_version(source))
    if "://" in source:
        return Remote(source, _remote_version(source))
    path = Path(source).expanduser()
    if not path.is_dir():
        return path
    return Folder(path, tuple(path / name for name in list_files(source).paths))


def source_files(source: str) -> list[str]:
    """The paths of the files that are read, in order; none for a `datasets:` source.

    Raises `UserError` if there is no such file or folder.
    """
    return [] if source.startswith(DATASETS) else list(list_files(source).paths.values())


def check_source(
    source: str,
    columns: Sequence[str],
    names: Mapping[str, str],
    *,
    labelled: bool,
    place: str,
    mapping: str = MAPPING,
) -> list[str]:
    """The problems that keep a source from being read as a table; reads schemas, no rows.

    columns: the task's text columns; names: the names that the source has for some of them;
    place: what messages begin with; mapping: how such names are given
    """
    try:
        shards = _open(source)
    except UserError as error:
        return [f"{place}: {problem}" for problem in error.problems]
    layout = _Layout(tuple(columns), dict(names), labelled=labelled)
    hint = "" if names else f"; or map it: {mapping}"
    return [f"{place}: {problem}" for problem in _column_problems(source, shards, layout, hint)]


def count_rows(source: Source) -> int:
    """The number of rows of a source; from the metadata if it is Parquet.

    Raises `UserError` if it cannot be read.
    """
    total = 0
    for shard in _open(str(source), _version(source)):
        with reading(shard.place):
            total += int(shard.dataset.count_rows())
    return total


def read_batches(
    source: Source, columns: Sequence[str], names: Mapping[str, str], labels: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """Batches of `id`, the text columns, and `label` if labels are given, in the source's order.

    Texts are strings, nulls empty; labels are names. Ids are strings or integers, made from the
    row number where there are none. Raises `UserError` for a column that is missing, a file that
    cannot be read and, after the last batch, for labels that are not among `labels`.
    """
    shards = _open(str(source), _version(source))
    layout = _Layout(tuple(columns), dict(names), labelled=labels is not None)
    raise_all(_column_problems(str(source), shards, layout))
    integers = all(pa.types.is_integer(s.type_of(layout.id) or pa.int64()) for s in shards)
    unknown: Counter[str] = Counter()
    start = 0
    for shard in shards:
        for batch in _read_shard(shard, layout, start, integers=integers):
            start += batch.num_rows
            if labels is not None:
                unknown.update(v for v in batch["label"].to_pylist() if v not in labels)
            yield batch
    raise_all(_unknown_labels(source, unknown, labels or ()))


def save_table(table: object, folder: Path | str, name: str, *, column: str = "text") -> str:
    """The path of a table in memory, saved as a Parquet file in `folder`, to be used as a source.

    table: Arrow table, pandas frame, list of dicts, mapping of lists, or list of texts (which
    become the column `column`). Raises `UserError` for anything else.
    """
    arrow = _arrow_table(table, name, column)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.parquet"
    partial = folder / f".{name}.partial"
    pq.write_table(arrow, partial, compression=COMPRESSION)
    replace_file(partial, file)
    return str(file)


def _arrow_table(table: Any, name: str, column: str) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, Mapping):
        return pa.table(dict(table))
    if isinstance(table, list):
        if table and all(isinstance(text, str) for text in table):
            return pa.table({column: table})
        return pa.Table.from_pylist(table)
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        return pa.Table.from_pandas(table, preserve_index=False)
    raise UserError(
        f"{name}: an object of type {type(table).__name__} is not a table; give an Arrow table, "
        "a pandas frame, a list of dicts or a list of texts"
    )


@dataclass(frozen=True)
class _Layout:
    """The columns to read, by the names that a source has for them."""

    columns: tuple[str, ...]
    names: Mapping[str, str]
    labelled: bool

    @property
    def id(self) -> str:
        return self.names.get("id", "id")

    @property
    def label(self) -> str:
        return self.names.get("label", "label")

    @property
    def texts(self) -> dict[str, str]:
        return {column: self.names.get(column, column) for column in self.columns}

    @property
    def needed(self) -> list[str]:
        """The columns that every shard must have."""
        return list(dict.fromkeys([*self.texts.values(), *[self.label] * self.labelled]))


@dataclass(frozen=True)
class _Shard:
    """One file of a source; name and place are what messages call it in and out of its folder."""

    name: str
    place: str
    dataset: ds.Dataset

    @property
    def columns(self) -> list[str]:
        return list(self.dataset.schema.names)

    def type_of(self, column: str) -> pa.DataType | None:
        """The type of a column, if the shard has it."""
        schema = self.dataset.schema
        return dict(zip(schema.names, schema.types, strict=True)).get(column)


def _column_problems(
    source: str, shards: Sequence[_Shard], layout: _Layout, hint: str = ""
) -> Iterator[str]:
    for column in layout.needed:
        if all(column not in shard.columns for shard in shards):
            yield f"{source} has no column {column!r}{nearest(column, shards[0].columns)}{hint}"
        else:
            yield from _uneven(source, shards, column, "every shard needs it")
    yield from _uneven(source, shards, layout.id, "give all shards ids or none")


def _uneven(source: str, shards: Sequence[_Shard], column: str, remedy: str) -> Iterator[str]:
    """The problem of a column that some shards have and others lack."""
    having = [shard.name for shard in shards if column in shard.columns]
    lacking = [shard.name for shard in shards if column not in shard.columns]
    if having and lacking:
        such = f" ({len(lacking)} such shards)" if len(lacking) > 1 else ""
        yield (
            f"{source}: {lacking[0]} has no column {column!r} but {having[0]} has{such}; {remedy}"
        )


def _read_shard(
    shard: _Shard, layout: _Layout, start: int, *, integers: bool
) -> Iterator[pa.RecordBatch]:
    """The batches of a shard; start: its first row's number; integers: whether ids are."""
    has_ids = layout.id in shard.columns
    wanted = list(dict.fromkeys([*layout.needed, *[layout.id] * has_ids]))
    classes = _class_names(shard.dataset.schema, layout.label)
    with reading(shard.place):
        for batch in shard.dataset.to_batches(columns=wanted, batch_size=BATCH_ROWS):
            if not batch.num_rows:
                continue
            if has_ids:
                ids = batch[layout.id].cast(pa.int64() if integers else pa.string())
            else:
                ids = pa.array(range(start, start + batch.num_rows))
            texts = {column: _text(batch[name]) for column, name in layout.texts.items()}
            arrays = {"id": ids, **texts}
            if layout.labelled:
                arrays["label"] = _labels(batch[layout.label], classes)
            start += batch.num_rows
            table = pa.RecordBatch.from_pydict(arrays)
            table.validate(full=True)  # Arrow reads JSON without a look at its encoding
            yield table


def _text(column: pa.Array) -> pa.Array:
    return pc.fill_null(column.cast(pa.string()), "")


def _labels(column: pa.Array, classes: list[str] | None) -> pa.Array:
    if classes and pa.types.is_integer(column.type):
        known = pc.if_else(pc.less(column, 0), None, column)  # -1: no label, for `datasets`
        column = pa.array(classes, pa.string()).take(known)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return _text(column)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names of integer labels, if `datasets` left them in the schema."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(label, {}).get("names")
    return list(names) if names else None


def _unknown_labels(source: Source, unknown: Counter[str], labels: Sequence[str]) -> Iterator[str]:
    for label, count in unknown.most_common(10):
        rows = "row" if count == 1 else "rows"
        if label:
            yield (
                f"{source}: {label!r} ({count} {rows}) is not a label of the task"
                f"{nearest(label, labels)}"
            )
        else:
            yield f"{source}: {count} {rows} without a label; the pool is for those"


def _version(source: Source) -> str:
    return source.version if isinstance(source, Remote) else ""


def _open(source: str, version: str = "") -> list[_Shard]:
    """The files of a source, each with its own schema, in order; at least one."""
    if source.startswith(DATASETS):
        return [_Shard(source, source, load_dataset(source, version))]
    listing = list_files(source)
    kinds = {FORMATS[Path(path).suffix] for path in listing.paths.values()}
    if len(kinds) != 1:
        found = listed(sorted(kinds)) if kinds else "no table"
        raise UserError(f"{source}: {found} found; one of {listed(FORMATS)} is needed")
    shards = []
    for name, path in listing.paths.items():
        place = f"{source}: {name}" if name else source
        with reading(place):
            shards.append(_Shard(name or source, place, open_file(path, listing.filesystem)))
    return shards


def _remote_version(source: str) -> str:
    """What the filesystem of a URL tells versions of the files apart by."""
    listing = list_files(source)
    with reading(source):
        return " ".join(listing.filesystem.ukey(path) for path in listing.paths.values())
