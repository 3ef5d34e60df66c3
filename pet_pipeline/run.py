"""Do each piece of work once: units, their keys, and the folders they fill.

A unit's work is called as `work(out, machine, **params)`, writes into the folder `out` and
returns a small dict. `params` is all that can change the result; `machine` changes nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from pydantic import BaseModel

from pet_pipeline.config import Machine, Settings, read_settings, write_settings
from pet_pipeline.errors import UserError, raise_all
from pet_pipeline.progress import duration, progress, say

Work = Callable[..., dict[str, Any]]

RECORD = "unit.json"  # written last: a folder without it is no result
CONFIG = "config.toml"
IN_KEY = "in_key"  # False in the metadata of a dataclass's field: what follows from the others
REASONS = {"result": "made by a unit that has changed", "sha256": "its content has changed"}
PACKAGES = ("pet_pipeline", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


@dataclass(frozen=True)
class Result:
    """The folder of a finished unit. As a parameter of another unit it counts by its key."""

    dir: Path
    key: str
    info: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Unit:
    """One call of `work`, and the folder that call fills."""

    dir: Path
    stage: str
    work: Work
    params: Mapping[str, Any]
    version: int
    resumable: bool = False

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is made of; kept in the record, so that two can be compared."""
        # The stage's name, not the function's: moving code must not cost a day of training.
        params = fingerprint(dict(self.params))
        return {"stage": self.stage, "version": self.version, "params": params}

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that are the same exactly when the identity is."""
        text = json.dumps(self.identity, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def result(self) -> Result | None:
        """The result that is there, if it is this unit's."""
        found = record(self.dir)
        same = found is not None and found["key"] == self.key
        return Result(self.dir, self.key, found["info"]) if found and same else None

    def why(self) -> list[str]:
        """What differs between this unit and the result that is there; empty if none is."""
        found = record(self.dir)
        return list(_changes(found["identity"], self.identity)) if found else []

    def run(self, machine: Machine) -> Result:
        """Do the work in a folder of its own, and only then put it in its place."""
        partial = self._partial()
        start = time.time()
        info = self.work(partial, machine, **self.params)
        seconds = time.time() - start
        entry = {
            "key": self.key,
            "identity": self.identity,
            "info": info,
            "seconds": seconds,
            "made_by": _maker(machine),
        }
        (partial / RECORD).write_text(json.dumps(entry, indent=2), "utf-8")
        if self.dir.exists():  # a stale result; `rename` does not replace a folder with content
            stale = self.dir.with_name(f".stale-{self.key}")
            shutil.rmtree(stale, ignore_errors=True)
            self.dir.rename(stale)
            partial.rename(self.dir)
            shutil.rmtree(stale, ignore_errors=True)
        else:
            partial.rename(self.dir)
        return Result(self.dir, self.key, info)

    def _partial(self) -> Path:
        """The folder to work in; what a killed attempt left there stays only if it helps."""
        folder = self.dir.with_name(f".partial-{self.key}")
        if not self.resumable:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Run:
    """A run directory, held by one process.

    With `plan`, nothing is run or written: every unit is only looked up, so that a pipeline
    shows what it would do. `until` and `force` name a stage, "finetune", or a stage of one
    generation, "gen-1/finetune".
    """

    def __init__(
        self,
        root: Path,
        *,
        machine: Machine | None = None,
        config: str = "",
        plan: bool = False,
        until: str | None = None,
        force: tuple[str, ...] = (),
    ):
        self.root, self.plan, self.until, self.force = root, plan, until, force
        self.machine = machine or Machine()
        self.units: list[Unit] = []
        self._last: str | None = None  # the stage to stop after, once it was reached
        self._config = config
        self._lock = FileLock(root / ".lock", timeout=0)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        plan: bool = False,
        until: str | None = None,
        force: tuple[str, ...] = (),
    ) -> Self:
        """The run that settings describe, in its folder `settings.output`."""
        root = Path(settings.output)
        _check_folder(root, settings)
        return cls(
            root,
            machine=settings.machine,
            config=write_settings(settings),
            plan=plan,
            until=until,
            force=force,
        )

    def do(
        self,
        stage: str,
        work: Work,
        calls: Mapping[str, Mapping[str, Any]],
        *,
        version: int = 1,
        resumable: bool = False,
    ) -> list[Result]:
        """One unit for each call, run unless it is done; the results in the order of the calls.

        stage: the folder the units are in, below the run's: "gen-0/finetune"
        calls: for each unit its name and the parameters of `work`
        resumable: the work finds what a killed attempt left in its folder
        """
        verb = stage.rpartition("/")[2]
        if self._last not in (None, stage):  # a stage may take more than one call
            raise _Until
        units = [
            Unit(self.root / stage / name, verb, work, params, version, resumable)
            for name, params in calls.items()
        ]
        self.units += units
        forced = verb in self.force or stage in self.force
        done = {unit.dir: None if forced else unit.result() for unit in units}
        if self.plan:
            return [done[unit.dir] or Result(unit.dir, unit.key, {}) for unit in units]
        self._run(stage, [unit for unit in units if not done[unit.dir]], done)
        if self.until in (verb, stage):
            self._last = stage
        return [result for unit in units if (result := done[unit.dir])]

    def log(self, event: str, **values: Any) -> None:
        """Append one event to log.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        with (self.root / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _run(self, stage: str, units: list[Unit], done: dict[Path, Result | None]) -> None:
        if not units:
            return
        self.log("stage", stage=stage, units=len(units), skipped=len(done) - len(units))
        start = time.monotonic()
        jobs = min(self.machine.jobs, len(units))
        options = {"initializer": _keep_worker} if jobs > 1 and _on_loky() else {}
        workers = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered", **options)
        attempts = workers(delayed(_attempt)(unit, self.machine, Path.cwd()) for unit in units)
        problems: list[str] = []
        with progress(stage, len(units), "units", lines=False) as advance:
            for n, (folder, result, seconds, problem) in enumerate(attempts, 1):
                advance(1)
                if problem is not None:
                    problems += problem.splitlines()[1:] or [problem]
                    continue
                done[folder] = result
                self.log("unit", stage=stage, unit=folder.name, seconds=round(seconds, 3))
                left = (time.monotonic() - start) / n * (len(units) - n)
                say(_line(stage, folder, result, seconds, f"{n}/{len(units)}", left))
        raise_all(p.removeprefix("  - ") for p in problems)

    def __enter__(self) -> Self:
        if self.plan:
            return self
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{self.root}: another process is at work on this run") from None
        except OSError as error:
            raise UserError(f"output: {self.root}: {error.strerror}; name another folder") from None
        write_text(self.root / CONFIG, self._config)
        self.log("start", config=str(self.root / CONFIG), made_by=_maker(self.machine))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        stopped = kind is _Until
        if not self.plan:
            if kind is None:
                self._sweep()
            self.log("end", error=None if kind is None or stopped else repr(error))
            self._lock.release()
        return stopped

    def _sweep(self) -> None:
        """Remove what killed attempts and replaced results left behind."""
        for pattern in ("**/.partial-*", "**/.stale-*"):
            for folder in list(self.root.glob(pattern)):
                shutil.rmtree(folder, ignore_errors=True)


class _Until(Exception):
    """The stage the user wanted to stop at is done."""


def fingerprint(value: Any) -> Any:
    """What a parameter is, as JSON: a file by its content, a result by its key, else by value."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Result):
        return {"result": value.key}
    if isinstance(value, Path):
        return {"sha256": _digest(value)}
    if isinstance(value, list | tuple):
        return [fingerprint(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): fingerprint(v) for k, v in value.items()}
    if isinstance(value, BaseModel):
        return fingerprint(dict(value))
    if is_dataclass(value):
        counted = (f for f in fields(value) if f.metadata.get(IN_KEY, True))
        return {f.name: fingerprint(getattr(value, f.name)) for f in counted}
    raise TypeError(
        f"a {type(value).__name__} cannot be a parameter of a unit; use None, bool, int, float, "
        "str, Path, Result, and lists, dicts and dataclasses of these"
    )


def record(folder: Path) -> dict[str, Any] | None:
    """The record of the finished unit in a folder: key, identity, info, seconds, made_by."""
    try:
        entry: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a power cut may leave it empty
        return None
    return entry


def write_text(file: Path, text: str) -> None:
    """Write a file beside its place, then rename it: it is never seen half-written."""
    beside = file.with_name(f".{file.name}.partial")
    beside.write_text(text, "utf-8")
    os.replace(beside, file)


def _on_loky() -> bool:
    return type(get_active_backend()[0]).__name__ == "LokyBackend"


def _keep_worker() -> None:
    # loky ends a worker that has grown by 300 MB, which every model does; torch's import would
    # then be paid again for each unit.
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = 1 << 60


def _attempt(
    unit: Unit, machine: Machine, folder: Path
) -> tuple[Path, Result | None, float, str | None]:
    os.chdir(folder)  # a worker may have started elsewhere
    # Errors of the user come back as text, so that those of all units are shown together.
    start = time.time()
    try:
        return unit.dir, unit.run(machine), time.time() - start, None
    except UserError as error:
        return unit.dir, None, time.time() - start, str(error)


def _line(
    stage: str, folder: Path, result: Result | None, seconds: float, count: str, left: float
) -> str:
    name = stage if folder.name == stage else f"{stage} {folder.name}"
    info = result.info if result else {}
    told = "  ".join(
        f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
        for k, v in info.items()
        if isinstance(v, int | float | str)
    )
    more = f"  {duration(left)} left" if left else ""
    return f"[{count}] {name:<34} {duration(seconds):>8}  {told}{more}"


def _digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's names and contents without hidden ones."""
    if not path.is_dir():
        return _file_digest(path, path.stat().st_size, path.stat().st_mtime_ns)
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            whole.update(f"{name.as_posix()}\0{_digest(file)}\0".encode())
    return whole.hexdigest()


@functools.cache
def _file_digest(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changes(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for kind, reason in REASONS.items():
            if kind in old and kind in new:
                if old != new:
                    yield f"{where.removeprefix('params.')}: {reason}"
                return
        for key in old | new:
            yield from _changes(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, f"{where}[{n}]")
    elif old != new:
        yield f"{where.removeprefix('params.')}: {_brief(old)} -> {_brief(new)}"


def _brief(value: Any, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _maker(machine: Machine) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **versions, "machine": machine.model_dump()}


def _check_folder(root: Path, settings: Settings) -> None:
    config = root / CONFIG
    if root.is_file():
        raise UserError(f"output: {root} is a file; name a folder")
    if config.exists():
        other = read_settings(config).task
        if Path(other).resolve() != Path(settings.task).resolve():
            raise UserError(
                f"output: {root} is the run of another task, {other}; name another folder"
            )
    elif root.is_dir() and any(p.name != ".lock" for p in root.iterdir()):
        raise UserError(
            f"output: {root} has files in it and is no run (no {CONFIG}); name a new folder"
        )
