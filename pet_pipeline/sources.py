"""Foreign tables: find, check and read the sources that the settings name.

A source is a file, a folder of shards or an fsspec URL with Parquet, CSV or JSON lines,
or `datasets:NAME[:CONFIG]:SPLIT`. Tables are streamed; a batch at a time is in memory.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pet_pipeline.columns import how_to_map, likely_columns
from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.formats import (
    DELIMITERS,
    FORMATS,
    delimiter_of,
    list_files,
    open_file,
    reading,
    suffix_of,
)
from pet_pipeline.hub_datasets import DATASETS, dataset_version, load_dataset

BATCH_ROWS = 8192
SEEN = 20  # columns of a table that a message names


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


def check_source(
    source: str,
    columns: Sequence[str],
    names: Mapping[str, str],
    *,
    labelled: bool,
    place: str,
    mapping: str = "",
) -> list[str]:
    """The problems that keep a source from being read as a table; reads schemas, no rows.

    columns: the task's text columns; names: the names that the source has for some of them;
    place: what messages begin with; mapping: how a NAME is given for a COLUMN, if not
    with the options of `pet run`
    """
    layout = _Layout(tuple(columns), dict(names), labelled=labelled)
    try:
        shards = _open(source, layout)
    except UserError as error:
        return [f"{place}: {problem}" for problem in error.problems]
    return [f"{place}: {problem}" for problem in _column_problems(source, shards, layout, mapping)]


def count_rows(
    source: Source, columns: Sequence[str] = (), names: Mapping[str, str] | None = None
) -> int:
    """The number of rows of a source; from the metadata if it is Parquet.

    columns, names: as for `read_batches`, so that a CSV file is read with the same delimiter.
    Raises `UserError` if it cannot be read.
    """
    total = 0
    layout = _Layout(tuple(columns), dict(names or {}), labelled=False)
    for shard in _open(str(source), layout, _version(source)):
        with reading(shard.place):
            total += int(shard.dataset.count_rows())
    return total


def read_batches(
    source: Source, columns: Sequence[str], names: Mapping[str, str], labels: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """Batches of `id`, the text columns, and `label` if labels are given, in the source's order.

    labels: those that are allowed; () allows any
    Texts are strings, nulls empty; labels are names. Ids are strings or integers, made from the
    row number where there are none. Raises `UserError` for a column that is missing, a file that
    cannot be read and, after the last batch, for labels that are not among `labels`.
    """
    layout = _Layout(tuple(columns), dict(names), labelled=labels is not None)
    shards = _open(str(source), layout, _version(source))
    raise_all(_column_problems(str(source), shards, layout))
    integers = all(pa.types.is_integer(s.type_of(layout.id) or pa.int64()) for s in shards)
    unknown: Counter[str] = Counter()
    start = 0
    for shard in shards:
        for batch in _read_shard(shard, layout, start, integers=integers):
            start += batch.num_rows
            if labels:
                unknown.update(v for v in batch["label"].to_pylist() if v not in labels)
            yield batch
    raise_all(_unknown_labels(source, unknown, labels or ()))


def open_datasets(
    source: Source, columns: Sequence[str], names: Mapping[str, str]
) -> list[tuple[str, ds.Dataset]]:
    """The files of a source, in order: what messages call each, and its Arrow dataset.

    columns, names: as for `read_batches`. Raises `UserError` if there is none that can be read.
    """
    layout = _Layout(tuple(columns), dict(names), labelled=False)
    return [(s.place, s.dataset) for s in _open(str(source), layout, _version(source))]


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
    def wanted(self) -> set[str]:
        """The columns that tell which delimiter a CSV file has, labelled or not."""
        return {*self.texts.values(), self.label, self.id}

    @property
    def needed(self) -> list[str]:
        """The columns that every shard must have."""
        return list(dict.fromkeys([*self.texts.values(), *[self.label] * self.labelled]))

    def column_of(self, name: str) -> str:
        """The column that a source's column is read as: a text column's name, or label."""
        return next((c for c, own in self.texts.items() if own == name), "label")


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
    source: str, shards: Sequence[_Shard], layout: _Layout, mapping: str | None = None
) -> Iterator[str]:
    """What keeps the shards from being one table; mapping: as of `check_source`, if it is said."""
    missing = [n for n in layout.needed if all(n not in shard.columns for shard in shards)]
    for name in layout.needed:
        if name in missing:
            remedy = "" if mapping is None else _remedy(layout, name, missing, shards[0], mapping)
            yield f"{source} has no column {name!r}; {_seen(shards[0])}{remedy}"
        else:
            yield from _uneven(source, shards, name, "every shard needs it")
    yield from _uneven(source, shards, layout.id, "give all shards ids or none")


def _seen(shard: _Shard) -> str:
    """The columns of a shard; of CSV, with the delimiter that they were read with."""
    names, delimiter = shard.columns, delimiter_of(shard.dataset)
    more = f" and {len(names) - SEEN} more" if len(names) > SEEN else ""
    seen = f"it has {listed(names[:SEEN])}{more}"
    if delimiter is None:
        return seen
    if len(names) == 1:
        return f"no delimiter ({listed(DELIMITERS)}) was found, and {seen}"
    return f"with the delimiter {delimiter!r} {seen}"


def _remedy(layout: _Layout, name: str, missing: Sequence[str], shard: _Shard, mapping: str) -> str:
    """How to say which column of a table is meant by one that it does not have."""
    column, names = layout.column_of(name), shard.columns
    if column in layout.names:
        close = difflib.get_close_matches(name, names, n=1)
        shared = "" if mapping else "; data.columns is for all tables: rename it in this one"
        return f"; did you mean {close[0]!r}?" if close else shared
    taken = {layout.id, layout.label, *layout.texts.values()} & set(names)
    if not set(names) - taken:
        return ""
    likely = likely_columns(map(layout.column_of, missing), names, taken)
    if mapping:
        way = mapping.replace("COLUMN", column).replace("NAME", likely.get(column, "NAME"))
    else:
        known = {c: own if own in names else "NAME" for c, own in layout.texts.items()}
        way = how_to_map(column, known, likely)
    return f"; if it is {likely[column]!r}, add {way}" if column in likely else f"; name it: {way}"


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
            texts = {column: text_values(batch[name]) for column, name in layout.texts.items()}
            arrays = {"id": ids, **texts}
            if layout.labelled:
                arrays["label"] = _labels(batch[layout.label], classes)
            start += batch.num_rows
            table = pa.RecordBatch.from_pydict(arrays)
            table.validate(full=True)  # Arrow reads JSON without a look at its encoding
            yield table


def text_values(column: pa.Array) -> pa.Array:
    """The values of a column as strings; nulls are empty."""
    return pc.fill_null(column.cast(pa.string()), "")


def _labels(column: pa.Array, classes: list[str] | None) -> pa.Array:
    if classes and pa.types.is_integer(column.type):
        known = pc.if_else(pc.less(column, 0), None, column)  # -1: no label, for `datasets`
        column = pa.array(classes, pa.string()).take(known)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return text_values(column)


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


def _open(source: str, layout: _Layout, version: str = "") -> list[_Shard]:
    """The files of a source, each with its own schema, in order; at least one."""
    if source.startswith(DATASETS):
        return [_Shard(source, source, load_dataset(source, version))]
    listing = list_files(source)
    kinds = {FORMATS[suffix_of(path)] for path in listing.paths.values()}
    if len(kinds) != 1:
        found = listed(sorted(kinds)) if kinds else "no table"
        raise UserError(f"{source}: {found} found; one of {listed(FORMATS)} is needed")
    shards = []
    for name, path in listing.paths.items():
        place = f"{source}: {name}" if name else source
        with reading(place):
            opened = open_file(path, listing.filesystem, layout.wanted)
            shards.append(_Shard(name or source, place, opened))
    return shards


def _remote_version(source: str) -> str:
    """What the filesystem of a URL tells versions of the files apart by."""
    listing = list_files(source)
    with reading(source):
        return " ".join(listing.filesystem.ukey(path) for path in listing.paths.values())
