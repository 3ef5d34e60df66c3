"""Files that are never seen half-written, and that are on the disk before they count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Write a file beside its place, then rename it."""
    beside = file.with_name(f".{file.name}.partial")
    beside.write_text(text, "utf-8")
    replace_file(beside, file)


def replace_file(new: Path, file: Path) -> None:
    """Put a finished file in the place of another, or where none is."""
    sync_file(new)
    os.replace(new, file)
    sync_file(file.parent)


def sync(folder: Path) -> None:
    """Wait until all files and folders below a folder are on the disk."""
    for path in _walk(folder):
        sync_file(path)


def sync_file(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file():
            yield path
    yield folder
