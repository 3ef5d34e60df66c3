"""What a person sees of long work: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int], None]
Verbosity = Literal["quiet", "normal", "verbose"]


@dataclass(frozen=True)
class Line:
    """What was said in a worker, for its parent to print."""

    text: str
    warning: bool = False


_console = Console(stderr=True)
_bars: list[Progress] = []  # the one live display, while there is one
_kept: list[Line] = []  # in a worker: what its parent is to print
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Say warnings and nothing else, or what a person waits for, or a line for each unit too."""
    global _verbosity
    _verbosity = verbosity


def shows_units() -> bool:
    """Whether each unit has a line: on request, and in logs; on a terminal its stage has one."""
    return _verbosity == "verbose" or (_verbosity == "normal" and not _console.is_terminal)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.1f} {task.fields['unit']}/s" if rate else "")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["note"]())


def say(line: str) -> None:
    """Print a line for the person who waits, above the bars; a quiet program leaves it out."""
    _print(Line(line))


def warn(line: str) -> None:
    """Print a line that a person must see, also where the program is quiet."""
    _print(Line(line, warning=True))


def repeat(lines: Iterable[Line]) -> None:
    """Print what was said in a worker."""
    for line in lines:
        _print(line)


def take_lines() -> tuple[Line, ...]:
    """What was said in this worker since the last call; nothing in a process that can print."""
    taken = tuple(_kept)
    _kept.clear()
    return taken


def _print(line: Line) -> None:
    if multiprocessing.parent_process() is not None:
        _kept.append(line)
    elif line.warning or _verbosity != "quiet":
        _console.print(line.text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    what: str,
    total: int | None,
    unit: str,
    *,
    lines: bool = True,
    note: Callable[[], str] = str,
) -> Iterator[Advance]:
    """A function to call with the number of units just done, shown with a rate and a time left.

    total: None if it is not known; then there is no time left
    lines: whether to print lines where there is no terminal for a bar
    note: what the bar says besides, asked for again and again
    """
    worker = multiprocessing.parent_process() is not None  # its parent shows the units
    if worker or _verbosity == "quiet" or not (lines or _console.is_terminal):
        yield lambda n: None
    elif _console.is_terminal:
        with _bar(what, total, unit, note) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


@contextmanager
def _bar(what: str, total: int | None, unit: str, note: Callable[[], str]) -> Iterator[Advance]:
    outermost = not _bars
    if outermost:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        more = (_Rate(), TimeRemainingColumn(), _Note())
        _bars.append(Progress(*columns, *more, console=_console, transient=True))
        _bars[0].start()
    bars = _bars[0]
    task = bars.add_task(what, total=total, unit=unit, note=note)
    try:
        yield lambda n: bars.advance(task, n)
    finally:
        bars.remove_task(task)
        if outermost:
            _bars.pop().stop()


def _lines(what: str, total: int | None, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES or done == total:
            return
        last = now
        rate = done / (now - start)
        if total is None:
            say(f"  {what}: {done} {unit}, {rate:,.1f} {unit}/s")
        else:
            left = duration((total - done) / rate) if rate else "?"
            say(f"  {what}: {done}/{total} {unit}, {rate:,.1f} {unit}/s, {left} left")

    return advance


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(4.25), duration(75), duration(7300)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rounded(seconds: float) -> str:
    """Seconds that are an estimate, as a person says them.

    >>> rounded(4.25), rounded(75), rounded(500), rounded(7500)
    ('10 s', '1 min', '8 min', '2 h 5 min')
    """
    if seconds < 55:
        return f"{max(1, round(seconds / 10)) * 10} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes / 5) * 5, 60)
    return f"{hours} h {rest} min"
