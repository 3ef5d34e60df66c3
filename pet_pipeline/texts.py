"""Texts that a user gives in Python become rows: a dict of strings for each text.

Any library's table will do that gives its columns by name; none is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as short
from typing import Any

from pet_pipeline.errors import UserError, listed, nearest

FORMS = "a string, a list of strings or of dicts, or an Arrow or pandas column or table"


def text_rows(
    texts: object, columns: Sequence[str], *, place: str = "texts"
) -> list[dict[str, str]]:
    """A row for each text, with the columns that are asked for; missing values become "".

    texts: a string, a dict, a list of either; a column or a table of Arrow, pandas or `datasets`;
    an array of strings; place: what messages call them
    Raises `UserError` for a column that is not there and for values that are not texts.

    >>> text_rows(["a text", None], ["text"])
    [{'text': 'a text'}, {'text': ''}]
    >>> text_rows({"title": ["a", "b"], "body": ["c", "d"]}, ["title", "body"])
    [{'title': 'a', 'body': 'c'}, {'title': 'b', 'body': 'd'}]
    """
    if table_columns(texts) is None:
        values = _values(texts, place)
        return [_row(value, columns, f"{place}[{n}]") for n, value in enumerate(values)]
    if isinstance(texts, Mapping) and all(_is_one(value) for value in texts.values()):
        return [_row(texts, columns, place)]
    return _table_rows(texts, columns, place)


def is_empty(row: Mapping[str, str], columns: Sequence[str]) -> bool:
    """Whether a row has no text in any of these columns.

    >>> is_empty({"text": " "}, ["text"])
    True
    """
    return not any(row[column].strip() for column in columns)


def table_columns(table: Any) -> list[Any] | None:
    """The names of a table's columns, a mapping's keys; None for what is not a table."""
    if isinstance(table, Mapping):
        return list(table)
    for attribute in ("column_names", "columns"):  # of Arrow and `datasets`; of pandas
        names = getattr(table, attribute, None)
        if names is not None and not callable(names):
            return list(names)
    return None


def _table_rows(table: Any, columns: Sequence[str], place: str) -> list[dict[str, str]]:
    found = {}
    for column in columns:
        _check_column(place, column, table_columns(table) or [])
        inner = f"{place}[{column!r}]"
        values = _values(table[column], inner)
        found[column] = [_text(value, f"{inner}[{n}]") for n, value in enumerate(values)]
    lengths = {column: len(values) for column, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{place}: the columns have different numbers of rows, {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*found.values(), strict=True)]


def _row(value: object, columns: Sequence[str], place: str) -> dict[str, str]:
    """The row of a text, or of a dict of texts."""
    if isinstance(value, Mapping):
        for column in columns:
            _check_column(place, column, list(value))
        return {column: _text(value[column], f"{place}[{column!r}]") for column in columns}
    text = _text(value, place)
    if len(columns) > 1:
        raise UserError(
            f"{place}: one text; the classifier reads {listed(columns)}: give dicts, or a table "
            "with these columns"
        )
    return {columns[0]: text}


def _check_column(place: str, column: str, names: Sequence[object]) -> None:
    if column not in names:
        known = [str(name) for name in names]
        raise UserError(f"{place}: no column {column!r}{nearest(column, known)}")


def _text(value: object, place: str) -> str:
    if isinstance(value, str):
        return str(value)  # a plain one, also of an array's
    if _is_missing(value):
        return ""
    raise UserError(f"{place}: found {short(value)} ({type(value).__name__}); a text is needed")


def _is_one(value: object) -> bool:
    return isinstance(value, str) or _is_missing(value)


def _is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or what pandas has in its place."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def _values(texts: Any, place: str) -> list[object]:
    """The elements of a column, a list or an array, as Python's own."""
    if isinstance(texts, str):
        return [texts]
    for method in ("to_pylist", "tolist", "to_list"):  # of Arrow; numpy and pandas; others
        if hasattr(texts, method):
            values = getattr(texts, method)()
            break
    else:
        values = texts
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise UserError(
            f"{place}: an object of type {type(texts).__name__} has no texts; give {FORMS}"
        )
    return list(values)


def shortened(text: str, limit: int) -> str:
    """A text of at most so many characters, with an ellipsis where it was cut.

    >>> shortened("long words", 6)
    'long …'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"
