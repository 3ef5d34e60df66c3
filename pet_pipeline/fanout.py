"""Do pieces of work one after the other, or in joblib's workers; what a backend needs is here."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from pet_pipeline.errors import UserError
from pet_pipeline.progress import Line, take_lines

SECONDS_BETWEEN_LOOKS = 0.5  # of a worker at its parent

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a piece of work: its value, or the user's errors that stopped it.

    lines: what was said in a worker, which prints nothing
    """

    index: int
    seconds: float
    value: T | None = None
    problems: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()


def fan_out(works: Sequence[Callable[[], T]], *, jobs: int) -> Iterator[Outcome[T]]:
    """The outcomes of some picklable calls, as they finish; at most `jobs` at the same time.

    If there are no more calls than jobs, the first is done here, where its progress is seen.
    Errors of the user come back as problems, so that those of all works are shown together; any
    other exception ends the iteration.
    """
    jobs = max(1, jobs)
    with_parent = {"initializer": _prepare_worker, "initargs": (os.getpid(),)}
    options: dict[str, Any] = with_parent if jobs > 1 and _on_loky() else {}
    folder = Path.cwd()
    calls = [delayed(_attempt)(n, work, folder) for n, work in enumerate(works)]
    own = works[0] if 0 < len(works) <= jobs else None
    others: Iterator[Outcome[T]] = iter(())
    if sent := calls[1:] if own else calls:
        # Never fewer workers for fewer works: those that ended would have to load all again.
        workers = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered", **options)
        others = workers(sent)  # at work from here on
    if own:
        yield _attempt(0, own, folder)
    yield from others


def release_workers() -> None:
    """End idle workers: the models that they keep are in the way of work in this process."""
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor
    if executor is not None:
        executor.shutdown(wait=True)


def _attempt(index: int, work: Callable[[], T], folder: Path) -> Outcome[T]:
    os.chdir(folder)  # a worker may have started elsewhere
    start = time.time()
    try:
        value = work()
        return Outcome(index, time.time() - start, value, lines=take_lines())
    except UserError as error:
        return Outcome(index, time.time() - start, problems=error.problems, lines=take_lines())


def _on_loky() -> bool:
    return type(get_active_backend()[0]).__name__ == "LokyBackend"


def _prepare_worker(parent: int) -> None:
    # A run that was killed can be resumed at once: nothing of it is still at work in its folder.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # loky ends a worker that has grown by 300 MB, which every model does; torch's import would
    # then be paid again for each unit.
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = 1 << 60


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
