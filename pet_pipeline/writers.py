"""Tables that are written batch by batch, in the formats that tables are read in."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pet_pipeline.errors import UserError, first_line, listed
from pet_pipeline.files import replace_file
from pet_pipeline.formats import FORMATS, USUAL, suffix_of
from pet_pipeline.tables import COMPRESSION, resized

STANDARD = "-"  # standard input or output, in the place of a file
GROUP_ROWS = 8192  # of a row group of Parquet
BINARY_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
JSON_TYPES = (  # whose values JSON has, or that are made of such
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_nested,
)


def output_format(file: str) -> str:
    """The format of a file to write, by its suffix. Raises `UserError` for another suffix."""
    suffix = suffix_of(file)
    if suffix not in FORMATS:
        found = f"{suffix!r} is not a suffix of tables" if suffix else "it has no suffix"
        raise UserError(f"--output: {file}: {found}; name a file that ends in {listed(FORMATS)}")
    return FORMATS[suffix]


def check_columns(schema: pa.Schema, form: str) -> None:
    """Raise `UserError` if there are columns that a format, one of `FORMATS`, cannot have."""
    if form == "parquet":
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), schema).close()
        except pa.ArrowException as error:
            raise UserError(f"cannot be written as Parquet: {first_line(error)}") from None
        return
    binary = [field.name for field in schema if _has_binary(field.type)]
    if binary:
        raise UserError(
            f"binary data, in {listed(binary)}, cannot be written as text; name a .parquet file, "
            "or leave it out of the table"
        )


def write_batches(
    file: BinaryIO,
    form: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    delimiter: str | None = None,
) -> None:
    """Write batches of a schema to a file, text as soon as it comes.

    form: one of `FORMATS`; delimiter: of CSV, instead of the usual one
    Parquet keeps every type. In CSV and JSON lines, dates are text, and in CSV lists are JSON.
    """
    if form == "parquet":
        with pq.ParquetWriter(file, schema, compression=COMPRESSION) as writer:
            for table in resized(batches, GROUP_ROWS):
                writer.write_table(table)
        return
    for text in _texts(form, schema, batches, delimiter):
        file.write(text.encode())
        file.flush()


def _texts(
    form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], delimiter: str | None
) -> Iterator[str]:
    """The text of each batch; the first of CSV is the header."""
    if form == "json":
        for batch in batches:
            columns = [_json_values(column) for column in batch.columns]
            rows = (dict(zip(schema.names, row, strict=True)) for row in zip(*columns, strict=True))
            yield "".join(f"{_json(row)}\n" for row in rows)
        return
    delimiter = delimiter or USUAL[form]
    yield _csv_line(schema.names, delimiter)
    for batch in batches:
        columns = [_csv_values(column) for column in batch.columns]
        yield "".join(_csv_line(row, delimiter) for row in zip(*columns, strict=True))


def _csv_line(fields: Iterable[str], delimiter: str) -> str:
    """A line of CSV. Arrow takes a lone carriage return for an end; `csv` does not quote it."""
    special = re.compile(f'[{re.escape(delimiter)}"\r\n]')
    quoted = ('"' + f.replace('"', '""') + '"' if special.search(f) else f for f in fields)
    return delimiter.join(quoted) + "\n"


def _csv_values(column: pa.Array) -> list[str]:
    """The values of a column as text; nulls are empty."""
    column = _stored(column)
    if pa.types.is_nested(column.type):
        return ["" if value is None else _json(value) for value in column.to_pylist()]
    return [value or "" for value in column.cast(pa.string()).to_pylist()]


def _json_values(column: pa.Array) -> list[Any]:
    """The values of a column as JSON has them; dates and the like are text."""
    column = _stored(column)
    if pa.types.is_float32(column.type):
        column = column.cast(pa.string()).cast(pa.float64())  # 0.1, not 0.10000000149
    elif not any(test(column.type) for test in JSON_TYPES):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _stored(column: pa.Array) -> pa.Array:
    """A column without extension types and dictionaries."""
    if isinstance(column.type, pa.BaseExtensionType):
        return _stored(column.storage)
    if pa.types.is_dictionary(column.type):
        return pc.dictionary_decode(column)
    return column


def _has_binary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_binary(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_binary(kind.value_type)
    inner = [kind.field(n).type for n in range(kind.num_fields)]
    return any(test(kind) for test in BINARY_TYPES) or any(map(_has_binary, inner))


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    """A value in which numbers that JSON does not have are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


@contextmanager
def opened_output(output: str) -> Iterator[BinaryIO]:
    """A file beside the output, which replaces it at the end; or standard output.

    Raises `UserError` if it cannot be written.
    """
    if output == STANDARD:
        yield sys.stdout.buffer
        return
    partial = _beside(Path(output))
    try:
        with partial.open("wb") as file:
            yield file
        replace_file(partial, Path(output))
    except OSError as error:
        raise UserError(f"--output: {output}: {error.strerror}; name another file") from None
    finally:
        partial.unlink(missing_ok=True)


def _beside(output: Path) -> Path:
    """An empty file beside the output, to write into; raises `UserError` if there cannot be one."""
    partial = output.with_name(f".{output.name}.partial")
    if output.parent.is_file():
        raise UserError(f"--output: {output.parent} is a file; name a file in a folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise UserError(f"--output: {output}: {error.strerror}; name another file") from None
    return partial
