"""What a person sees of long work: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

_console = Console(stderr=True)
_bars: list[Progress] = []  # the one live display, while there is one


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.1f} {task.fields['unit']}/s" if rate else "")


def say(line: str) -> None:
    """Print a line for the person who waits, above the bars."""
    if multiprocessing.parent_process() is None:
        _console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int, unit: str, *, lines: bool = True) -> Iterator[Advance]:
    """A function to call with the number of units just done, shown with a rate and a time left.

    lines: whether to print lines where there is no terminal for a bar
    """
    worker = multiprocessing.parent_process() is not None  # its parent shows the units
    if worker or not (lines or _console.is_terminal):
        yield lambda n: None
    elif _console.is_terminal:
        with _bar(what, total, unit) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


@contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    outermost = not _bars
    if outermost:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        _bars.append(
            Progress(*columns, _Rate(), TimeRemainingColumn(), console=_console, transient=True)
        )
        _bars[0].start()
    bars = _bars[0]
    task = bars.add_task(what, total=total, unit=unit)
    try:
        yield lambda n: bars.advance(task, n)
    finally:
        bars.remove_task(task)
        if outermost:
            _bars.pop().stop()


def _lines(what: str, total: int, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            rate = done / (now - start)
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
