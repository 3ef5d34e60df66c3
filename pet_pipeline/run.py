"""A run directory: do each unit once, remember what was pinned and forced, log what happens."""

from __future__ import annotations

import functools
import json
import shutil
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, raise_all
from pet_pipeline.fanout import fan_out
from pet_pipeline.files import write_text
from pet_pipeline.progress import duration, progress, say
from pet_pipeline.settings import write_settings
from pet_pipeline.units import PlannedUnit, Result, Unit, environment

CONFIG = "config.toml"
PINS = "pins.json"  # what was looked up once: commits of hub models, the precision
ATTEMPTS = "attempts.json"  # how often units were forced, and which are being forced


class Run:
    """A run directory, held by one process.

    With `plan`, nothing is run or written: every unit is only looked up, so that a pipeline
    shows what it would do. `until` and `force` name a stage, "finetune", or a stage of one
    generation, "gen-1/finetune". `compute` is handed to the units as it is.
    """

    def __init__(
        self,
        root: Path,
        *,
        compute: object = None,
        jobs: int = 1,
        config: str = "",
        plan: bool = False,
        until: str | None = None,
        force: tuple[str, ...] = (),
    ):
        self.root, self.plan, self.until, self.force = root, plan, until, force
        self.compute, self.jobs = compute, jobs
        self.units: list[PlannedUnit] = []
        self._attempts = Attempts.read(root / ATTEMPTS)
        self._forced: set[str] = set()  # units whose attempt was counted up in this run
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
        """The run that settings describe, in its folder `settings.output`.

        Raises `UserError` if the folder holds something else.
        """
        root = Path(settings.output)
        _check_folder(root, settings)
        return cls(
            root,
            compute=Compute.of(settings.machine),
            jobs=settings.machine.jobs,
            config=write_settings(settings),
            plan=plan,
            until=until,
            force=force,
        )

    def do(self, stage: str, units: Mapping[str, Unit]) -> dict[str, Result]:
        """Each unit's result, by name and in the order given; run unless it is done.

        stage: the folder the units are in, below the run's: "gen-0/finetune"
        Raises `UserError` with the problems of all units that fail; the others finish first.
        """
        if self._last not in (None, stage):  # a stage may take more than one call
            raise _Until
        planned = {name: self._place(stage, name, unit) for name, unit in units.items()}
        self.units += planned.values()
        if self._forced and not self.plan:  # before the work starts: a killed attempt counts too
            begun = {*self._attempts.unfinished, *self._forced}
            replace(self._attempts, unfinished=tuple(sorted(begun))).write(self.root / ATTEMPTS)
        done = {name: unit.result() for name, unit in planned.items()}
        if self.plan:
            return {n: done[n] or Result(unit.dir, unit.key, {}) for n, unit in planned.items()}
        self._run(stage, {n: unit for n, unit in planned.items() if not done[n]}, done)
        if self.until in (_verb(stage), stage):
            self._last = stage
        return {name: result for name, result in done.items() if result}

    def pin(self, name: str, value: Callable[[], str], *, renew: bool = False) -> str:
        """A value that is looked up once in the life of a run folder; a plan stores nothing.

        renew: look it up again although there is one
        """
        pins: dict[str, str] = _read_json(self.root / PINS)
        if name in pins and not renew:
            return pins[name]
        pins[name] = value()
        if not self.plan:
            write_text(self.root / PINS, json.dumps(pins, indent=1))
        return pins[name]

    def log(self, event: str, **values: object) -> None:
        """Append one event to log.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        with (self.root / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def is_forced(self, planned: PlannedUnit) -> bool:
        """Whether the user asked for this unit to be done again."""
        return _name(self.root, planned.dir) in self._forced

    def _place(self, stage: str, name: str, unit: Unit) -> PlannedUnit:
        """A unit in its folder; a forced one counts up its attempt, once in a run.

        A forced run that was stopped is resumed by the same command: what it has done stays.
        """
        folder = self.root / stage / name
        known, verb = _name(self.root, folder), _verb(stage)
        counted = {*self._attempts.unfinished, *self._forced}
        if {verb, stage} & set(self.force) and known not in counted:
            self._forced.add(known)
            counts = self._attempts.counts
            counts[known] = counts.get(known, 0) + 1
        return PlannedUnit(folder, verb, unit, self._attempts.counts.get(known, 0))

    def _run(
        self, stage: str, units: Mapping[str, PlannedUnit], done: dict[str, Result | None]
    ) -> None:
        if not units:
            return
        self.log("stage", stage=stage, units=len(units), skipped=len(done) - len(units))
        start = time.monotonic()
        names = list(units)
        works = [functools.partial(unit.run, self.compute) for unit in units.values()]
        problems: list[str] = []
        with progress(stage, len(units), "units", lines=False) as advance:
            for n, outcome in enumerate(fan_out(works, jobs=self.jobs), 1):
                advance(1)
                if outcome.value is None:
                    problems += outcome.problems
                    continue
                result = done[names[outcome.index]] = outcome.value
                seconds = round(outcome.seconds, 3)
                self.log("unit", stage=stage, unit=result.dir.name, seconds=seconds)
                left = (time.monotonic() - start) / n * (len(units) - n)
                say(f"[{n}/{len(units)}] {_line(stage, result, seconds, left)}")
        raise_all(problems)

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
        self._attempts = Attempts.read(self.root / ATTEMPTS)
        write_text(self.root / CONFIG, self._config)
        made_by = environment(self.compute)
        self.log("start", config=str(self.root / CONFIG), made_by=made_by)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        stopped = kind is _Until
        if not self.plan:
            if kind is None:
                self._sweep()
            if (self._forced or self._attempts.unfinished) and (kind is None or stopped):
                replace(self._attempts, unfinished=()).write(self.root / ATTEMPTS)
            self.log("end", error=None if kind is None or stopped else repr(error))
            self._lock.release()
        return stopped

    def _sweep(self) -> None:
        """Remove what killed attempts and replaced results left behind."""
        for pattern in ("**/.partial-*", "**/.stale-*"):
            for folder in list(self.root.glob(pattern)):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Attempts:
    """How often units were forced, by their folder, and those that a stopped run forced."""

    counts: dict[str, int]
    unfinished: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Attempts:
        """What a run folder remembers."""
        found = _read_json(file)
        return cls(dict(found.get("counts", {})), tuple(found.get("unfinished", ())))

    def write(self, file: Path) -> None:
        """Remember it."""
        write_text(file, json.dumps(asdict(self), indent=1))


class _Until(Exception):
    """The stage the user wanted to stop at is done."""


def _verb(stage: str) -> str:
    return stage.rpartition("/")[2]


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()


def _line(stage: str, result: Result, seconds: float, left: float) -> str:
    name = result.dir.name
    title = stage if name == stage else f"{stage} {name}"
    summary = "  ".join(
        f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
        for k, v in result.info.items()
        if isinstance(v, int | float | str)
    )
    more = f"  {duration(left)} left" if left else ""
    return f"{title:<34} {duration(seconds):>8}  {summary}{more}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def _check_folder(root: Path, settings: Settings) -> None:
    config = root / CONFIG
    if root.is_file():
        raise UserError(f"output: {root} is a file; name a folder")
    if config.exists():
        # Not read as settings: a run of an earlier version may have some under former names.
        try:
            other = str(tomllib.loads(config.read_text("utf-8")).get("task", ""))
        except ValueError as error:
            raise UserError(f"{config}: {error}; name another folder") from None
        if Path(other).resolve() != Path(settings.task).resolve():
            raise UserError(
                f"output: {root} is the run of another task, {other}; name another folder"
            )
    elif root.is_dir() and any(not p.name.startswith(".") for p in root.iterdir()):
        raise UserError(
            f"output: {root} has files in it and is not a run (no {CONFIG}); name a new folder"
        )
