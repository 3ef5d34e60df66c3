"""Results that are written as JSON: frozen dataclasses, with one way to write and to read them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")


def write_record(file: Path, record: DataclassInstance) -> None:
    """Write a dataclass of plain values, and of dataclasses, as JSON."""
    file.write_text(json.dumps(asdict(record), indent=1), "utf-8")


def read_record(file: Path, kind: type[Record]) -> Record:
    """The dataclass of a kind that `write_record` wrote to a file."""
    return TypeAdapter(kind).validate_json(file.read_bytes())


def write_records(file: Path, records: list[Record]) -> None:
    """Write several dataclasses of one kind as a JSON list."""
    file.write_text(json.dumps([asdict(record) for record in records], indent=1), "utf-8")


def read_records(file: Path, kind: type[Record]) -> list[Record]:
    """The dataclasses that `write_records` wrote to a file."""
    adapter: TypeAdapter[list[Record]] = TypeAdapter(list[kind])  # type: ignore[valid-type]
    return adapter.validate_json(file.read_bytes())
