"""Data sets of the `datasets` library, on the hub, in its cache or in a local folder.

A source is `datasets:NAME:SPLIT` or `datasets:NAME:CONFIG:SPLIT`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from pet_pipeline.errors import UserError
from pet_pipeline.formats import first_line, is_hidden
from pet_pipeline.progress import say

DATASETS = "datasets:"
COMMIT = re.compile(r"[0-9a-f]{40}")


def load_dataset(source: str, version: str = "") -> ds.Dataset:
    """A split as an Arrow dataset; from the cache if the hub cannot be reached.

    version: as `dataset_version` gives it; a commit is loaded as it was, else the newest
    Raises `UserError` if there is no such split, or it cannot be loaded.
    """
    name, config, split = _parts(source)
    try:
        revision = version if COMMIT.fullmatch(version) else None
        loaded = _datasets().load_dataset(name, config, split=split, revision=revision)
    except _errors() as error:
        raise UserError(f"{source}: {_problem(error)}") from None
    return ds.dataset(loaded.with_format("arrow")[:])


def dataset_version(source: str) -> str:
    """What tells versions of a data set apart: its commit, or a hash of a folder's file stats.

    Without the hub, it is the commit of the copy in the cache, which is said. Raises `UserError`
    if there is none.
    """
    name, config, _ = _parts(source)
    folder = Path(name)
    return _folder_version(folder) if folder.is_dir() else _hub_version(source, name, config)


def _parts(source: str) -> tuple[str, str | None, str]:
    """Name, configuration and split."""
    match source.removeprefix(DATASETS).split(":"):
        case [name, split] if name:
            return name, None, split
        case [name, config, split] if name:
            return name, config, split
    raise UserError(f"{source}: write {DATASETS}NAME:SPLIT or {DATASETS}NAME:CONFIG:SPLIT")


def _folder_version(folder: Path) -> str:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    stats = [
        f"{name} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for name, file in sorted(files.items())
        if not is_hidden(name)
    ]
    return hashlib.sha256("\n".join(stats).encode()).hexdigest()[:16]


def _hub_version(source: str, name: str, config: str | None) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.dataset_info(name).sha)
    except _errors() as error:
        version = _cached_version(name, config)
        if version is None:
            raise UserError(f"{source}: {_problem(error)}") from None
    _say_once(f"  {source}: the hub cannot be reached; the cached copy is used")
    return version


def _cached_version(name: str, config: str | None) -> str | None:
    """The commit of the newest copy in the cache, if there is one."""
    try:
        return str(_datasets().load_dataset_builder(name, config).hash)
    except _errors():
        return None


def _datasets() -> Any:
    """The `datasets` library, without its own warnings of what is said here."""
    import datasets

    datasets.logging.set_verbosity_error()
    return datasets


def _errors() -> tuple[type[Exception], ...]:
    """What `datasets` and the hub's client raise for names, networks and disks."""
    from datasets.exceptions import DatasetsError

    return (DatasetsError, _http_error(), OSError, RuntimeError, ValueError)


def _http_error() -> type[Exception]:
    """The base of the errors of the hub's HTTP client, which is not the same in all versions."""
    from huggingface_hub import errors

    client_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    return client_error


def _problem(error: Exception) -> str:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error, RepositoryNotFoundError):
        return "no such data set on the hub, or no access to it"
    answered = isinstance(error, HfHubHTTPError)
    unreachable = (ConnectionError, TimeoutError, LocalEntryNotFoundError, _http_error())
    if isinstance(error, unreachable) and not answered:
        return "the hub cannot be reached, and the data set is not in the cache"
    return first_line(error)


@functools.cache
def _say_once(line: str) -> None:
    say(line)
