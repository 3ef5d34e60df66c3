"""A file is whole or not there, and on the disk before it is renamed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pet_pipeline import files
from pet_pipeline.files import replace_file, sync, write_text


def test_text_is_never_half_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "two \ud800")
    assert (tmp_path / "a").read_text() == "one"


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    replace = os.replace
    monkeypatch.setattr(files, "sync_file", lambda path: events.append(("sync", path.name)))

    def renamed(new: Path, file: Path) -> None:
        events.append(("rename", file.name))
        replace(new, file)

    monkeypatch.setattr(os, "replace", renamed)
    new = tmp_path / "new"
    new.write_text("text")
    replace_file(new, tmp_path / "file")
    assert events == [("sync", "new"), ("rename", "file"), ("sync", tmp_path.name)]
    assert (tmp_path / "file").read_text() == "text"


def test_all_below_a_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner" / "most").mkdir(parents=True)
    for name in ("a", "inner/b", "inner/most/c"):
        (tmp_path / name).touch()
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_file", synced.append)
    sync(tmp_path)
    assert sorted(synced) == sorted([tmp_path, *tmp_path.rglob("*")])
    assert synced.index(tmp_path / "inner/most/c") < synced.index(tmp_path / "inner/most")
