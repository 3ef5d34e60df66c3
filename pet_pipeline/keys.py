"""What a result is made from: fingerprints of values, keys, and why two identities differ.

Keys depend on parameters, on contents of files and on keys of earlier results, never on outputs,
so they are known before anything is run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Identity = dict[str, Any]  # JSON: stage, version, attempt and fingerprinted parameters

REASONS = {"result": "made by a unit that has changed", "sha256": "its content has changed"}


@runtime_checkable
class Keyed(Protocol):
    """A value that says itself what it counts by; a result counts by its key, for example."""

    def in_key(self) -> object:
        """What to take the fingerprint of."""


def fingerprint(value: object) -> Any:
    """What a value is, as JSON: a file by its content, a dataclass by its fields, else by value.

    Raises `TypeError` for values without a stable form.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Keyed):
        return fingerprint(value.in_key())
    if isinstance(value, Path):
        return {"sha256": digest(value)}
    if isinstance(value, list | tuple):
        return [fingerprint(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): fingerprint(v) for k, v in value.items()}
    if is_dataclass(value):
        return {f.name: fingerprint(getattr(value, f.name)) for f in fields(value)}
    raise TypeError(
        f"a {type(value).__name__} cannot be a parameter of a unit; use None, bool, int, float, "
        "str, Path, Result, and lists, dicts and dataclasses of these"
    )


def key_of(identity: Identity) -> str:
    """16 hexadecimal digits that are the same exactly when the identity is."""
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(old: Identity, new: Identity) -> list[str]:
    """What differs between two identities, a line for each difference."""
    return list(_changes(old, new, ""))


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of a folder without hidden ones."""
    if not path.is_dir():
        status = path.stat()
        return _file_digest(os.path.realpath(path), status.st_size, status.st_mtime_ns)
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            whole.update(f"{name.as_posix()}\0{digest(file)}\0".encode())
    return whole.hexdigest()


@functools.cache
def _file_digest(path: str, size: int, mtime: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Absent:
    """Stands for a value that only the other identity has."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _changes(old: object, new: object, where: str) -> Iterator[str]:
    place = where.removeprefix("params.")
    kind = _kind(old)
    if kind and kind == _kind(new):
        if old != new:
            yield f"{place}: {REASONS[kind]}"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            inner = f"{where}.{key}" if where else key
            yield from _changes(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, f"{where}[{n}]")
    elif where == "attempt":
        if old != new:
            old, new = (0 if n is _ABSENT else n for n in (old, new))
            yield f"attempt: {old} -> {new} (forced)"
    elif repr(old) != repr(new):  # 1, 1.0 and True are equal; the keys made from them are not
        yield f"{place}: {_brief(old)} -> {_brief(new)}"


def _kind(value: object) -> str | None:
    """Whether a fingerprint is that of a result or of a file, by the name of its only entry."""
    if isinstance(value, dict) and len(value) == 1:
        kind, content = next(iter(value.items()))
        if kind in REASONS and isinstance(content, str):
            return str(kind)
    return None


def _brief(value: object, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
