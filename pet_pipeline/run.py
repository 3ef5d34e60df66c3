"""A run directory: do each unit once, remember what was pinned and forced, log what happens."""

from __future__ import annotations

import functools
import json
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from pet_pipeline.compute import Compute, count_jobs
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, raise_all
from pet_pipeline.fanout import fan_out
from pet_pipeline.files import write_text
from pet_pipeline.keys import results_in
from pet_pipeline.models import known_hidden_size
from pet_pipeline.progress import progress, repeat
from pet_pipeline.reasons import reasons, waiting
from pet_pipeline.schedule import Schedule
from pet_pipeline.settings import run_folder, write_settings
from pet_pipeline.units import PlannedUnit, Result, Unit, environment

CONFIG = "config.toml"
PINS = "pins.json"  # what was found once: commits of hub models, the precision, a name
LOCK = ".lock"
OWN_TASK = "task"  # the folder of a task that was made for this run alone
SOME = 10  # units that a message names
GENERATION = re.compile(r"gen-\d+/")  # before the stages of a generation
ATTEMPTS = "attempts.json"  # how often units were forced, and which are being forced


class Run:
    """A run directory, held by one process.

    With `plan`, nothing is run or written: every unit is only looked up, so that a pipeline
    shows what it would do. `until`, `only` and `force` name a stage, "finetune", or a stage of
    one generation, "gen-1/finetune". With `only`, other stages are not run, and `plan` is set
    once a result of theirs is not there. `compute` is handed to the units as it is.
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
        only: str | None = None,
        force: tuple[str, ...] = (),
    ):
        self.root, self.plan, self.until, self.only, self.force = root, plan, until, only, force
        self.compute, self.jobs = compute, jobs
        self.units: list[PlannedUnit] = []
        self.dry = plan
        self._places: dict[Path, tuple[str, str]] = {}  # folder -> stage, name
        self._schedule = Schedule(jobs)
        self._attempts = Attempts.read(root / ATTEMPTS)
        self._forced: set[str] = set()  # units whose attempt was counted up in this run
        self._reached = False  # whether the stage to stop after has begun
        self._inside = ""  # the folder of generations' stages, if they are not of this run's own
        self._config = config
        self._lock = FileLock(root / LOCK, timeout=0)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        plan: bool = False,
        until: str | None = None,
        only: str | None = None,
        force: tuple[str, ...] = (),
    ) -> Self:
        """The run that settings describe, in its folder, `settings.output` or `runs/NAME`.

        Raises `UserError` if the folder holds something else.
        """
        root = run_folder(settings)
        _check_folder(root, settings)
        hidden_size = known_hidden_size(settings.model)
        return cls(
            root,
            compute=Compute.of(settings.machine, hidden_size),
            jobs=count_jobs(settings.machine, hidden_size),
            config=write_settings(settings.model_copy(update={"output": str(root)})),
            plan=plan,
            until=until,
            only=only,
            force=force,
        )

    def expect(self, planned: Run) -> None:
        """Take the units to do of a plan with the same options for all that this run will do."""
        units: dict[tuple[str, str], PlannedUnit] = {}
        reached = False
        for unit in planned.units:
            stage, name = planned.place_of(unit)
            last = self.until in (_verb(stage), stage)
            if reached and not last:
                break
            reached = last
            if planned.covers(unit) and not unit.result():
                units[stage, name] = unit
        self._schedule.expect(units)

    def do(self, stage: str, units: Mapping[str, Unit]) -> dict[str, Result]:
        """Each unit's result, by name and in the order given; run unless it is done.

        stage: the folder the units are in, below the run's: "gen-0/finetune"
        Raises `UserError` with the problems of all units that fail; the others finish first.
        """
        if self._inside:
            stage = GENERATION.sub(f"{self._inside}/", stage)
        last = self.until in (_verb(stage), stage)
        if self._reached and not last:  # a stage may take more than one call
            raise _Until
        planned = {name: self._place(stage, name, unit) for name, unit in units.items()}
        self.units += planned.values()
        if self._forced and not self.dry:  # before the work starts: a killed attempt counts too
            begun = {*self._attempts.unfinished, *self._forced}
            replace(self._attempts, unfinished=tuple(sorted(begun))).write(self.root / ATTEMPTS)
        done = {name: unit.result() for name, unit in planned.items()}
        undone = {name: unit for name, unit in planned.items() if not done[name]}
        covered = not self.only or self.only in (_verb(stage), stage)
        if self.only and covered:
            self._check_alone(list(undone.values()))
        if self.dry or not covered:
            self.plan = self.plan or bool(undone)
            return {n: done[n] or Result(unit.dir, unit.key, {}) for n, unit in planned.items()}
        self._run(stage, undone, done)
        self._reached = last
        return {name: result for name, result in done.items() if result}

    @contextmanager
    def inside(self, stage: str) -> Iterator[None]:
        """Make the work of a generation's stages a part of another one, in its folder.

        Inside "adapt", the units of gen-0/finetune are in adapt/finetune, and of the stage adapt.
        """
        self._inside = stage
        try:
            yield
        finally:
            self._inside = ""

    def pin(self, name: str, value: Callable[[], str], *, renew: bool = False) -> str:
        """A value that is looked up once in the life of a run folder; a plan stores nothing.

        renew: look it up again although there is one
        """
        pins: dict[str, str] = _read_json(self.root / PINS)
        if name in pins and not renew:
            return pins[name]
        pins[name] = value()
        if not self.dry:
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

    def covers(self, planned: PlannedUnit) -> bool:
        """Whether this run does a unit if it is to do, or another stage is the only one."""
        return not self.only or self.only in (planned.stage, self.place_of(planned)[0])

    def place_of(self, planned: PlannedUnit) -> tuple[str, str]:
        """A unit's stage, "gen-0/finetune", and its name there."""
        return self._places[planned.dir]

    def why(self, planned: PlannedUnit) -> list[str]:
        """Why the result in a unit's folder does not count any more; empty if there is none.

        What was changed for this unit; only if that is nothing, the results that it is made from.
        """
        changes = planned.changes()
        own = reasons(planned.stage, changes)
        if own or not changes:
            return own
        old = {key for change in changes for key in results_in(change.old)}
        new = {key for change in changes for key in results_in(change.new)} - old
        made_by = {_name(self.root, u.dir): bool(u.result()) for u in self.units if u.key in new}
        return [waiting(made_by)]

    def _place(self, stage: str, name: str, unit: Unit) -> PlannedUnit:
        """A unit in its folder; a forced one counts up its attempt, once in a run.

        A forced run that was stopped is resumed by the same command: what it has done stays.
        """
        folder = self.root / stage / name
        self._places[folder] = stage, name
        known, verb = _name(self.root, folder), _verb(stage)
        counted = {*self._attempts.unfinished, *self._forced}
        covered = not self.only or self.only in (verb, stage)
        if covered and {verb, stage} & set(self.force) and known not in counted:
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
        self._schedule.begin(stage, units)
        names = list(units)
        works = [functools.partial(unit.run, self.compute) for unit in units.values()]
        problems: list[str] = []
        left = self._schedule.left
        with progress(stage, len(units), "units", lines=False, note=left) as advance:
            for n, outcome in enumerate(fan_out(works, jobs=self.jobs), 1):
                advance(1)
                repeat(outcome.lines)
                if outcome.value is None:
                    problems += outcome.problems
                    continue
                name = names[outcome.index]
                result = done[name] = outcome.value
                seconds = round(outcome.seconds, 3)
                self.log("unit", stage=stage, unit=result.dir.name, seconds=seconds)
                self._schedule.finish((stage, name), result, seconds, (n, len(units)))
        self._schedule.pause()
        raise_all(problems)

    def _check_alone(self, undone: list[PlannedUnit]) -> None:
        """Raise `UserError` if units of other stages are to be done before these can be."""
        by_key = {unit.key: unit for unit in self.units}
        first: set[str] = set()
        while undone:
            for key in results_in(undone.pop().identity):
                unit = by_key.get(key)
                if unit and key not in first and not unit.result():
                    first.add(key)
                    undone.append(unit)
        others = [unit for unit in self.units if unit.key in first and not self.covers(unit)]
        if others:
            names = list(dict.fromkeys(_name(self.root, unit.dir) for unit in others))
            more = f" and {len(names) - SOME} more" if len(names) > SOME else ""
            units = "1 unit has" if len(names) == 1 else f"{len(names)} units have"
            raise UserError(
                f"--only {self.only}: {units} to run first: {', '.join(names[:SOME])}{more}; "
                f"run without --only, or with --until {self.only}"
            )

    def __enter__(self) -> Self:
        if self.dry:
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
        if not self.dry:
            if kind is None or stopped:
                self._schedule.end()
            if kind is None and not self.only:
                self._sweep()
            if (self._forced or self._attempts.unfinished) and (kind is None or stopped):
                done = {_name(self.root, unit.dir) for unit in self.units if self.covers(unit)}
                left = tuple(name for name in self._attempts.unfinished if name not in done)
                replace(self._attempts, unfinished=left).write(self.root / ATTEMPTS)
            seconds = {name: round(t.seconds, 1) for name, t in self._schedule.totals.items()}
            failed = None if kind is None or stopped else repr(error)
            self.log("end", error=failed, seconds=seconds)
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
    """The stage that a folder of units belongs to: finetune of gen-0/finetune."""
    return GENERATION.sub("", stage).partition("/")[0]


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()


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
        tasks = [Path(task or root / OWN_TASK) for task in (other, settings.task)]
        if tasks[0].resolve() != tasks[1].resolve():
            raise UserError(
                f"output: {root} is the run of another task, {tasks[0]}; name another folder"
            )
    elif root.is_dir() and any(not p.name.startswith(".") for p in root.iterdir()):
        raise UserError(
            f"output: {root} has files in it and is not a run (no {CONFIG}); name a new folder"
        )
