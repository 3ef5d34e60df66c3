"""What a run says of its time: lines of finished stages and units, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pet_pipeline.estimate import Estimate
from pet_pipeline.progress import duration, rounded, say, shows_units
from pet_pipeline.stage_totals import StageTotal, times_line
from pet_pipeline.units import PlannedUnit, Result


class Schedule:
    """The units that a run will do, those that it has done, and its clocks."""

    def __init__(self, jobs: int):
        self.totals: dict[str, StageTotal] = {}
        self._estimate = Estimate(jobs)
        self._ahead: dict[tuple[str, str], PlannedUnit] = {}  # by stage and name
        self._whole = False  # whether it knows of all stages
        self._open: str | None = None  # the stage whose line is still to come
        self._start = self._stage_start = self._finished = time.monotonic()

    def expect(self, units: Mapping[tuple[str, str], PlannedUnit]) -> None:
        """All units that will be done, by stage and name."""
        self._ahead, self._whole = dict(units), True

    def begin(self, stage: str, units: Mapping[str, PlannedUnit]) -> None:
        """Start with some units of a stage; what is known by now of those ahead is used."""
        if self._open != stage:
            self._say_stage()
        self._open, self._stage_start = stage, time.monotonic()
        self.totals.setdefault(stage, StageTotal(stage))
        for name, unit in units.items():
            self._ahead[stage, name] = unit
        for (of, name), unit in self._ahead.items():
            self._estimate.expect(of, {name: unit.unit.cost()})

    def finish(
        self, place: tuple[str, str], result: Result, seconds: float, counts: tuple[int, int]
    ) -> None:
        """Count the unit of a stage and name, and say so where units are shown.

        counts: of the units now at work, those that are done and all
        """
        stage, name = place
        planned = self._ahead.pop(place)
        self._estimate.finish(stage, name, seconds)
        self._finished = time.monotonic()
        self.totals[stage].add(planned.unit.figure, result.info)
        if shows_units():
            done, n = counts
            say(f"[{done}/{n}] {_unit_line(stage, result, seconds, self._left_of(done, n))}")

    def pause(self) -> None:
        """Count the seconds of the stage until now; more of its units may follow."""
        if self._open:
            self.totals[self._open].seconds += time.monotonic() - self._stage_start

    def left(self) -> str:
        """What is said of the time that is left of all stages; empty if it is not known."""
        seconds = self._estimate.seconds_left() if self._whole else None
        if not seconds:
            return ""
        seconds -= time.monotonic() - self._finished
        return f"about {rounded(seconds)} left in all" if seconds > 0 else ""

    def end(self) -> None:
        """Say where the time went."""
        self._say_stage()
        if self.totals:
            say(times_line(self.totals.values(), time.monotonic() - self._start))

    def _say_stage(self) -> None:
        if self._open and not shows_units() and self.totals[self._open].units:
            say(self.totals[self._open].line(self.left()))
        self._open = None

    def _left_of(self, done: int, n: int) -> str:
        """The time that is left in all, or else of the stage."""
        if left := self.left():
            return left
        seconds = (time.monotonic() - self._stage_start) / done * (n - done)
        return f"{duration(seconds)} left" if seconds else ""


def _unit_line(stage: str, result: Result, seconds: float, left: str) -> str:
    name = result.dir.name
    title = stage if name == stage else f"{stage} {name}"
    summary = "  ".join(
        f"{k} {_figure(v)}" if isinstance(v, float) else f"{k} {v}"
        for k, v in result.info.items()
        if isinstance(v, int | float | str)
    )
    return f"{title:<34} {duration(seconds):>8}  {summary}{f'  {left}' if left else ''}"


def _figure(value: float) -> str:
    """Three decimals, or three digits of a small number.

    >>> _figure(0.97251), _figure(0.0003), _figure(0.0)
    ('0.973', '0.0003', '0.000')
    """
    return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
