"""A unit of work as a value, the folder that it fills, and the record that says it is finished."""

from __future__ import annotations

import json
import platform
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from pet_pipeline.files import sync, sync_file
from pet_pipeline.keys import Change, Identity, changes, field_fingerprints, key_of

Info = dict[str, Any]  # what a unit says of its result, as JSON

RECORD = "unit.json"  # written last: a folder without it is not a result
SOME_ROWS = 50.0  # what a unit costs that says nothing of it
PACKAGES = ("pet_pipeline", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


class Unit(ABC):
    """One kind of work; its subclasses are frozen dataclasses.

    The fields are all that can change the result. `version` is raised by hand when the work
    changes. A resumable unit finds in `out` what a killed attempt left there.
    """

    version: ClassVar[int] = 1
    resumable: ClassVar[bool] = False
    figure: ClassVar[str] = ""  # the entry of the info that sums up a stage, as a mean of its units

    @abstractmethod
    def work(self, out: Path, compute: Any) -> Info:
        """Do the work, write into the folder `out`, and say something about the result.

        compute: where and how fast; it does not change the result beyond rounding
        """

    def size(self) -> str:
        """How much work it is, for a plan; empty if there is nothing to say."""
        return ""

    def cost(self) -> float:
        """How long it takes, as the number of rows that a model reads in that time, about."""
        return SOME_ROWS


@dataclass(frozen=True)
class Result:
    """The folder of a finished unit. As a field of another unit it counts by its key."""

    dir: Path
    key: str
    info: Info = field(hash=False)

    def in_key(self) -> dict[str, str]:
        """The key of the unit that made it."""
        return {"result": self.key}


@dataclass(frozen=True)
class PlannedUnit:
    """A unit, the folder that it fills, and how often it was forced."""

    dir: Path
    stage: str
    unit: Unit
    attempt: int = 0

    @cached_property
    def identity(self) -> Identity:
        """What the key is made of; kept in the record, so that two can be compared."""
        # The stage's name, not the class's: moving code must not cost a day of training.
        params = field_fingerprints(self.unit)
        identity: Identity = {"stage": self.stage, "version": self.unit.version, "params": params}
        return identity | ({"attempt": self.attempt} if self.attempt else {})

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that are the same exactly when the identity is."""
        return key_of(self.identity)

    def result(self) -> Result | None:
        """The result in the folder, if this unit made it."""
        found = read_record(self.dir)
        same = found is not None and found["key"] == self.key
        return Result(self.dir, self.key, found["info"]) if found and same else None

    def changes(self) -> list[Change]:
        """What differs between this unit and the result in the folder; empty if nothing does."""
        found = read_record(self.dir)
        return changes(found["identity"], self.identity) if found else []

    def run(self, compute: Any) -> Result:
        """Do the work in a folder of its own, and only then move it into place."""
        partial = self._partial()
        start = time.time()
        info = self.unit.work(partial, compute)
        entry = {
            "key": self.key,
            "identity": self.identity,
            "info": info,
            "seconds": time.time() - start,
            "made_by": environment(compute),
        }
        sync(partial)  # before the record: after a power cut it must not be there alone
        (partial / RECORD).write_text(json.dumps(entry, indent=2), "utf-8")
        sync_file(partial / RECORD)
        sync_file(partial)
        self._replace(partial)
        return Result(self.dir, self.key, info)

    def _partial(self) -> Path:
        """The folder to work in; what a killed attempt left there is kept only if it helps."""
        folder = self.dir.with_name(f".partial-{self.key}")
        if not self.unit.resumable:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _replace(self, partial: Path) -> None:
        if self.dir.exists():  # a stale result; `rename` does not replace a folder with content
            stale = self.dir.with_name(f".stale-{self.key}")
            shutil.rmtree(stale, ignore_errors=True)
            self.dir.rename(stale)
            partial.rename(self.dir)
            shutil.rmtree(stale, ignore_errors=True)
        else:
            partial.rename(self.dir)
        sync_file(self.dir.parent)


def read_record(folder: Path) -> Info | None:
    """The record of the finished unit in a folder: key, identity, info, seconds, made_by."""
    try:
        entry: Info = json.loads((folder / RECORD).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return entry


def environment(compute: Any) -> Info:
    """Versions of Python and of packages, and where the work is done; recorded, never hashed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    described = getattr(compute, "describe", dict)
    return {"python": platform.python_version(), **versions, "machine": described()}
