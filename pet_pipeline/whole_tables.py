"""Foreign tables with every column that they have, and lines of text as such a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.json

from pet_pipeline.errors import UserError
from pet_pipeline.formats import BLOCK_MB, as_written, delimiter_of, reading
from pet_pipeline.sources import BATCH_ROWS, Source, open_datasets, text_values

LINES_BYTES = 2**20  # of standard input that are read at once, where they are there at once


@dataclass(frozen=True)
class Batch:
    """Some rows of a table: its own columns as they are, and the text columns as strings."""

    own: pa.RecordBatch
    texts: pa.RecordBatch


@dataclass(frozen=True)
class WholeTable:
    """The columns of a table, batches of its rows in their order, and the delimiter if it is CSV.

    rows: None if they are not known before they are read
    """

    schema: pa.Schema
    batches: Iterator[Batch]
    rows: int | None = None
    delimiter: str | None = None


def read_whole(source: Source, columns: Sequence[str], names: Mapping[str, str]) -> WholeTable:
    """All columns of a source, a batch at a time; nulls where one of its files lacks a column.

    columns, names: the text columns, and the names that the source has for some of them
    Raises `UserError` if it cannot be read, or its files have columns of different types.
    """
    files = open_datasets(source, columns, names)
    schemas, rows = [], 0
    for place, dataset in files:
        with reading(place):
            schemas.append(_schema(dataset).remove_metadata())
            rows += dataset.count_rows()
    with reading(str(source)):
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    texts = {column: names.get(column, column) for column in columns}
    return WholeTable(schema, _batches(files, schema, texts), rows, delimiter_of(files[0][1]))


def read_lines(file: BinaryIO, column: str) -> WholeTable:
    """Lines of UTF-8 text as the rows of a table; what is there is read, without waiting for more.

    An empty line is a row too. Raises `UserError` for lines that are not UTF-8.
    """
    schema = pa.schema([(column, pa.string())])
    batches = (pa.record_batch([lines], schema) for lines in _lines(file))
    return WholeTable(schema, (Batch(batch, batch) for batch in batches))


def _batches(
    files: Sequence[tuple[str, ds.Dataset]], schema: pa.Schema, texts: Mapping[str, str]
) -> Iterator[Batch]:
    for place, dataset in files:
        with reading(place):
            for batch in _read(dataset, schema):
                batch.validate(full=True)  # Arrow reads JSON without a look at its encoding
                columns = {column: text_values(batch[name]) for column, name in texts.items()}
                if batch.num_rows:
                    yield Batch(batch, pa.RecordBatch.from_pydict(columns))


def _read(dataset: ds.Dataset, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a file, with the columns of a schema."""
    form = getattr(dataset, "format", None)
    if isinstance(form, ds.JsonFileFormat):  # a dataset has only the columns of the first block
        options = pyarrow.json.ParseOptions(schema, unexpected_field_behavior="ignore")
        for lines in _json_blocks(dataset):
            yield from _parsed(lines, options).to_batches(BATCH_ROWS)
        return
    parts = dataset.get_fragments()
    if isinstance(form, ds.ParquetFileFormat):  # or else a slow reader gets it all into memory
        parts = (group for file in parts for group in file.split_by_row_group())
    for part in parts:
        yield from part.to_batches(schema=schema, batch_size=BATCH_ROWS)


def _schema(dataset: ds.Dataset) -> pa.Schema:
    """The schema of a file; of JSON lines, with the columns that only later blocks have."""
    schemas = [dataset.schema]
    if isinstance(getattr(dataset, "format", None), ds.JsonFileFormat):
        for lines in _json_blocks(dataset):
            inferred = _parsed(lines, pyarrow.json.ParseOptions()).schema
            schemas.append(pa.schema([f.with_type(as_written(f.type)) for f in inferred]))
    return pa.unify_schemas(schemas, promote_options="permissive")


def _json_blocks(dataset: ds.Dataset) -> Iterator[bytes]:
    """Whole lines of a file, as many at a time as Arrow is to parse at once."""
    (path,) = dataset.files
    with dataset.filesystem.open_input_stream(path) as stream:
        blocks = iter(lambda: stream.read(BLOCK_MB * 2**20), b"")
        yield from filter(bytes.strip, _whole_lines(blocks))


def _parsed(lines: bytes, options: pyarrow.json.ParseOptions) -> pa.Table:
    whole = pyarrow.json.ReadOptions(block_size=len(lines) + 1)
    return pyarrow.json.read_json(pa.BufferReader(lines), whole, options)


def _lines(file: BinaryIO) -> Iterator[list[str]]:
    """The lines of a file, without their ends, in parts that are read at once."""
    read = getattr(file, "read1", file.read)  # returns what there is
    number = 1
    for lines in _whole_lines(iter(lambda: read(LINES_BYTES), b"")):
        try:
            text = lines.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            line = number + lines.count(b"\n", 0, error.start)
            raise UserError(f"standard input: line {line} is not UTF-8 text") from None
        part = text.removesuffix("\n").split("\n")
        number += len(part)
        yield [line.removesuffix("\r") for line in part]


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks that end where a line ends, the last one excepted; none is empty."""
    rest = b""
    for block in blocks:
        lines, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield lines + newline
    if rest:
        yield rest
