"""Tables that a program has in memory become Arrow tables, and files that a run reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.errors import UserError, first_line, listed
from pet_pipeline.files import replace_file
from pet_pipeline.tables import COMPRESSION
from pet_pipeline.texts import table_columns, text_rows


def save_table(table: object, folder: Path | str, name: str, *, column: str = "text") -> str:
    """The path of a table in memory, saved as a Parquet file in `folder`, to be used as a source.

    table: an Arrow or pandas table, a list of dicts, a mapping of lists, a `datasets.Dataset`; or
    texts alone, a list or a column of strings, which become the column `column`
    A file that has the table already stays as it is. Raises `UserError` for anything else.
    """
    arrow = arrow_table(table, name, column)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.parquet"
    if not _has_table(file, arrow):
        partial = folder / f".{name}.partial"
        pq.write_table(arrow, partial, compression=COMPRESSION)
        replace_file(partial, file)
    return str(file)


def arrow_table(table: object, name: str, column: str = "text") -> pa.Table:
    """A table in memory as an Arrow table.

    table: as for `save_table`; name: what messages call it; column: the name of texts alone
    Raises `UserError` for anything else.
    """
    given: Any = table
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if hasattr(given, "with_format"):  # of `datasets`: keeps the names of integer labels
        return given.with_format("arrow")[:]
    names = table_columns(given)
    if names is not None:
        repeated = [key for key, count in Counter(map(str, names)).items() if count > 1]
        if repeated:
            raise UserError(f"{name}: several columns are called {listed(repeated)}; rename them")
        return _from_columns({str(key): given[key] for key in names}, name)
    if not is_texts(given):
        return _from_rows(given, name)
    if isinstance(given, str | bytes | Path) or not hasattr(given, "__iter__"):
        raise UserError(
            f"{name}: an object of type {type(given).__name__} is not a table; give an Arrow or "
            "pandas table, a list of dicts or a list of texts"
        )
    texts = [row[column] for row in text_rows(given, [column], place=name)]
    return pa.table({column: pa.array(texts, pa.string())})


def is_texts(table: object) -> bool:
    """Whether a table in memory has no columns of its own: it is texts alone."""
    rows = isinstance(table, list | tuple) and any(isinstance(row, Mapping) for row in table)
    return not rows and table_columns(table) is None


def _from_rows(rows: Sequence[object], name: str) -> pa.Table:
    keys: dict[str, None] = {}
    for n, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}[{n}]: found {short(row)}, where other rows are dicts")
        keys |= dict.fromkeys(row)
    found: Any = rows
    return _from_columns({str(key): [row.get(key) for row in found] for key in keys}, name)


def _from_columns(columns: Mapping[str, Any], name: str) -> pa.Table:
    arrays = {column: _array(values, f"{name}[{column!r}]") for column, values in columns.items()}
    lengths = {column: len(values) for column, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{name}: the columns have different numbers of rows, {lengths}")
    return pa.table(arrays)


def _array(values: Any, place: str) -> pa.Array:
    """A column; values that are missing, as pandas has them, are null; categories are decoded."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, str | bytes):
        raise UserError(f"{place}: found {short(values)}; a list is needed")
    try:
        array = pa.array(values, from_pandas=True)
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    except (pa.ArrowException, TypeError) as error:
        raise UserError(f"{place}: not a column of a table: {first_line(error)}") from None


def _has_table(file: Path, table: pa.Table) -> bool:
    """Whether a file has these rows; another version of Arrow would write it differently."""
    try:
        return bool(pq.read_table(file).equals(table, check_metadata=True))
    except (OSError, pa.ArrowException):
        return False
