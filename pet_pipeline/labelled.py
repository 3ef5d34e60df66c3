"""What a labelled table says of a task: its text columns, its labels, and the metric that fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from pet_pipeline.columns import LABEL_NAMES, how_to_map, likely_columns
from pet_pipeline.errors import UserError, listed, raise_all
from pet_pipeline.formats import reading
from pet_pipeline.label_names import in_order
from pet_pipeline.patterns import RESERVED, SLOTS
from pet_pipeline.sources import Source, open_datasets, read_batches, text_values

MOST_LABELS = 200
LONGEST_LABEL = 60  # characters, beyond which a column of unique values is one of texts
FEWEST_UNIQUE = 20  # labels, likewise
LARGEST_RATIO = 3  # of the rows of two labels, before accuracy hides the rarer one


def labels_of_table(source: Source, column: str) -> dict[str, int]:
    """The labels in a column of a table, in a fixed order, with their numbers of rows.

    Raises `UserError` if a row has none, or the column does not look like one of labels.
    """
    counts: dict[str, int] = {}
    for batch in read_batches(source, (), {"label": column}, ()):
        for label in batch["label"].to_pylist():
            counts[label] = counts.get(label, 0) + 1
    place, rows = f"{source}: column {column!r}", sum(counts.values())
    if missing := counts.pop("", 0):
        lacking = "row has" if missing == 1 else "rows have"
        raise UserError(f"{place}: {missing} {lacking} no label; the pool is for those")
    if len(counts) < 2:
        found = f"one label, {next(iter(counts))!r}" if counts else "no rows"
        raise UserError(f"{place} has {found}; a classifier needs two labels or more")
    unique = len(counts) == rows and (rows > FEWEST_UNIQUE or max(map(len, counts)) > LONGEST_LABEL)
    if unique or len(counts) > MOST_LABELS:
        raise UserError(
            f"{place} has {len(counts)} different values in {rows} rows, too many for labels; "
            "name the column of the labels, --label-column NAME"
        )
    return {label: counts[label] for label in in_order(counts)}


def first_values(source: Source, rows: int = 1000) -> dict[str, list[str]]:
    """The values of a table's first rows as strings, by column; without columns of lists and such.

    Raises `UserError` if it cannot be read.
    """
    place, dataset = open_datasets(source, (), {})[0]
    kinds = zip(dataset.schema.names, dataset.schema.types, strict=True)
    columns = [name for name, kind in kinds if not (pa.types.is_nested(kind) or _is_binary(kind))]
    with reading(place):
        head = dataset.head(rows, columns=columns)
        return {name: text_values(head[name]).to_pylist() for name in columns}


def likely_text(values: Mapping[str, Sequence[str]], others: Sequence[str]) -> str:
    """The column that probably has the texts: `text`, or the one with the longest; "" if none.

    >>> likely_text({"id": ["1", "2"], "message": ["Where is it?", "Thanks"]}, [])
    'message'
    """
    lengths = {name: sum(map(len, v)) for name, v in values.items() if name not in (*others, "id")}
    return "text" if "text" in lengths else max(lengths, key=lambda n: lengths[n], default="")


def likely_label(values: Mapping[str, Sequence[str]], others: Sequence[str]) -> str:
    """The column that probably has the labels: few values, and best a usual name; "" if none.

    >>> likely_label({"message": ["a", "b", "c"], "kind": ["x", "y", "x"]}, [])
    'kind'
    """
    n_values = {name: len({*v}) for name, v in values.items() if name not in (*others, "id")}
    few = {name: n for name, n in n_values.items() if 1 < n < len(values[name])}
    usual = [name for known in LABEL_NAMES for name in few if name.lower() == known]
    return (usual or sorted(few, key=lambda name: few[name]) or [""])[0]


def fitting_metric(counts: Mapping[str, int]) -> str:
    """The metric for labels with these numbers of rows.

    >>> fitting_metric({"ham": 40, "spam": 8}), fitting_metric({"ham": 9, "spam": 8})
    ('f1_macro', 'accuracy')
    """
    uneven = max(counts.values()) > LARGEST_RATIO * min(counts.values())
    return "f1_macro" if uneven else "accuracy"


def text_columns(source: Source, names: Mapping[str, str]) -> tuple[str, ...]:
    """A task's text columns, as settings name them, or as a table has them.

    Those that `names` maps; else `text`; else the only column of strings besides id and label.
    Raises `UserError` if there are several, or none.
    """
    if mapped := tuple(column for column in names if column not in ("id", "label")):
        return mapped
    strings, others = _string_columns(source, names)
    if "text" in strings:
        return ("text",)
    if len(strings) == 1:
        raise_all(column_problems(strings))
        return tuple(strings)
    likely = likely_columns(["text"], strings or others)
    if not strings:
        raise UserError(f"{source} has no column of texts; it has {listed(others)}")
    way = how_to_map("text", {"text": "text"}, likely)
    raise UserError(f"{source} has no column 'text'; one of {listed(strings)} may be it: add {way}")


def task_columns(names: Sequence[str]) -> dict[str, str]:
    """Names for columns that a template can have, and those that a table has for them.

    >>> task_columns(["message", "a:b"])
    {'message': 'message', 'text': 'a:b'}
    """
    free = iter(["text", *(f"text_{n}" for n in range(2, len(names) + 2))])
    free = iter([name for name in free if name not in names])
    return {name if not [*column_problems([name])] else next(free): name for name in names}


def column_problems(columns: Iterable[str]) -> Iterator[str]:
    """What keeps columns from being named in a template."""
    for column in columns:
        if column in (*SLOTS, *RESERVED):
            yield f"columns: {column!r} has a meaning of its own in patterns; {_mapped(column)}"
        elif not column.strip() or re.search(r"[{}\[\]:!\n]", column):
            yield f"columns: {column!r} cannot stand in a pattern; {_mapped(column)}"


def _mapped(column: str) -> str:
    return f"add {how_to_map('text', {'text': 'text'}, {'text': column})}"


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _string_columns(source: Source, names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The columns that may hold texts, and all others."""
    _, dataset = open_datasets(source, (), names)[0]
    schema = dataset.schema
    taken = {names.get("id", "id"), names.get("label", "label")}
    if "label" not in names and "label" not in schema.names:
        taken |= {
            *likely_columns(["label"], [n for n in schema.names if n in LABEL_NAMES]).values()
        }
    strings = [
        name
        for name, kind in zip(schema.names, schema.types, strict=True)
        if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and name not in taken
    ]
    return strings, [name for name in schema.names if name not in strings]
