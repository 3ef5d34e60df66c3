"""Whether the steps of a training come as fast as at first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

FEW = 5  # steps that a median is taken of, at least
SECONDS = 10.0  # that slow steps last before they are worth a word
MUCH = 3.0  # times as long as the first ones


@dataclass
class Pace:
    """The times of the first steps and of those in the last seconds."""

    _first: list[float] = field(default_factory=list)  # the end of the first step, and so on
    _recent: deque[float] = field(default_factory=deque)
    _told: bool = False

    def step(self, now: float) -> float | None:
        """How many times as long as at first steps take, once, if that is much; else None.

        To be called after each step with the time in seconds. The first step counts for nothing:
        it is slow everywhere.
        """
        if self._told:
            return None
        if len(self._first) <= FEW:
            self._first.append(now)
            return None
        self._recent.append(now)
        while len(self._recent) > FEW + 1 and now - self._recent[1] >= SECONDS:
            self._recent.popleft()
        if len(self._recent) <= FEW or now - self._recent[0] < SECONDS:
            return None
        first = _median_step(self._first)
        times = _median_step(self._recent) / first if first > 0 else 0.0
        self._told = times > MUCH
        return times if self._told else None


def _median_step(ends: list[float] | deque[float]) -> float:
    return median(end - start for start, end in pairwise(ends))
