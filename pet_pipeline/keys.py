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
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Kind = Literal["value", "added", "removed", "order", "content", "result"]

Identity = dict[str, Any]  # JSON: stage, version, attempt and fingerprinted parameters

KINDS: dict[str, Kind] = {"result": "result", "sha256": "content"}  # by a fingerprint's only entry


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


def content_key(value: object) -> str:
    """The key of one value, such as a model by what its files contain."""
    return key_of({"value": fingerprint(value)})


@dataclass(frozen=True)
class Change:
    """A difference between two identities.

    kind: "result" is one that another unit made, "content" that of files
    thing: the named part that it is in, with the field or the list: ("pattern", "colon")
    """

    path: tuple[str, ...]
    kind: Kind
    old: Any = None
    new: Any = None
    thing: tuple[str, str] | None = None


def changes(old: Identity, new: Identity) -> list[Change]:
    """What differs between two identities; empty exactly if their keys are equal."""
    return list(_changes(old, new, (), None))


def results_in(fingerprinted: object) -> Iterator[str]:
    """The keys of the results in a fingerprint or an identity."""
    if isinstance(fingerprinted, dict):
        if _kind(fingerprinted) == "result":
            yield from fingerprinted.values()
            return
        for value in fingerprinted.values():
            yield from results_in(value)
    elif isinstance(fingerprinted, list):
        for value in fingerprinted:
            yield from results_in(value)


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

    __str__ = __repr__


_ABSENT = _Absent()


def _changes(
    old: object, new: object, path: tuple[str, ...], thing: tuple[str, str] | None
) -> Iterator[Change]:
    if _ABSENT not in (old, new) and _written(old) == _written(new):
        return
    if (kind := _kind(old)) and kind == _kind(new):
        yield Change(path, kind, old, new, thing)
    elif len(path) > 1 and (_has_files(old) or _has_files(new)):
        yield Change(path, "content", old, new, thing)
    elif isinstance(old, dict) and isinstance(new, dict) and "result" in (_kind(old), _kind(new)):
        yield Change(path, "content", old, new, thing)  # made by a unit, or no longer
    elif len(path) > 1 and _name(old) and _name(new) and _name(old) != _name(new):
        yield Change(path, "value", _name(old), _name(new), thing)
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            one, other = old.get(key, _ABSENT), new.get(key, _ABSENT)
            same = _name(one) if path and _name(one) == _name(other) else ""
            yield from _changes(one, other, (*path, key), thing or ((key, same) if same else None))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_changes(old, new, path, thing)
    else:
        yield Change(path, _plain_kind(old, new), old, new, thing)


def _list_changes(
    old: list[Any], new: list[Any], path: tuple[str, ...], thing: tuple[str, str] | None
) -> Iterator[Change]:
    before, after = _by_name(old), _by_name(new)
    if before and after:
        for name in before | after:
            one, other = before.get(name, _ABSENT), after.get(name, _ABSENT)
            named = thing or (path[-1].removesuffix("s") if path else "", name)
            yield from _changes(one, other, (*path, name), named)
        if list(before) != list(after) and set(before) == set(after):
            yield Change(path, "order", list(before), list(after), thing)
    elif len(old) == len(new):
        for n, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, (*path, str(n)), thing)
    else:
        results = old + new and all(_kind(value) == "result" for value in old + new)
        yield Change(path, "result" if results else "value", old, new, thing)


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # 1, 1.0 and True are equal; their keys are not


def _kind(value: object) -> Kind | None:
    """Whether a fingerprint is that of a result or of a file, by the name of its only entry."""
    if isinstance(value, dict) and len(value) == 1:
        name, content = next(iter(value.items()))
        return KINDS.get(name) if isinstance(content, str) else None
    return None


def _has_files(value: object) -> bool:
    """Whether a fingerprint is that of a folder's files, by name."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(_kind(content) == "content" for content in value.values())
    )


def _plain_kind(old: object, new: object) -> Kind:
    """Whether a value became another one, or a part with values of its own came or went."""
    if (old is None or old is _ABSENT) and isinstance(new, dict | list):
        return "added"
    if (new is None or new is _ABSENT) and isinstance(old, dict | list):
        return "removed"
    return "value"


def _name(value: object) -> str:
    """The name of a part that has one."""
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _by_name(values: list[Any]) -> dict[str, Any]:
    """The items of a list by their names; empty unless each has one of its own."""
    named = {name: value for value in values if (name := _name(value))}
    return named if len(named) == len(values) else {}
