"""Finished runs that several tests read and plan on, each run once in a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testing import run

from pet_pipeline.config import Settings
from pet_pipeline.keys import fingerprint, key_of


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A folder of runs, and the names of those that are finished."""
    return tmp_path_factory.mktemp("runs"), set()


@pytest.fixture
def finished(
    tiny_settings: Callable[..., Settings], finished_runs: tuple[Path, set[str]]
) -> Callable[..., Settings]:
    """A function from sections to the settings of a finished run, which must not be changed.

    until: the stage that it stopped after
    """
    folder, names = finished_runs

    def make(*, until: str = "evaluate", **sections: Any) -> Settings:
        name = key_of({"until": until, "sections": fingerprint(sections)})
        settings = tiny_settings(output=str(folder / name), **sections)
        if name not in names:
            run(settings, until=until)
            names.add(name)
        return settings

    return make


@pytest.fixture(scope="session")
def long_words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task with label words of several tokens, which are decoded in one way or another."""
    folder = tmp_path_factory.mktemp("tasks") / "long"
    folder.mkdir()
    (folder / "task.toml").write_text('columns = ["text"]\nlabels = ["sad", "happy"]\n')
    (folder / "back.toml").write_text(
        'template = "{text} i will {mask}."\n'
        '[verbalizer]\nsad = ["never come back"]\nhappy = ["gladly come back", "come again"]\n'
    )
    return str(folder)
