"""Do pieces of work one after the other, or in joblib's workers; what a backend needs is here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from pet_pipeline.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a piece of work: its value, or the user's errors that stopped it."""

    index: int
    seconds: float
    value: T | None = None
    problems: tuple[str, ...] = ()


def fan_out(works: Sequence[Callable[[], T]], *, jobs: int) -> Iterator[Outcome[T]]:
    """The outcomes of some picklable calls, as they finish; at most `jobs` at the same time.

    Errors of the user come back as problems, so that those of all works are shown together; any
    other exception ends the iteration.
    """
    jobs = max(1, min(jobs, len(works)))
    options = {"initializer": _keep_worker} if jobs > 1 and _on_loky() else {}
    workers = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered", **options)
    here = Path.cwd()
    yield from workers(delayed(_attempt)(n, work, here) for n, work in enumerate(works))


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
        return Outcome(index, time.time() - start, value)
    except UserError as error:
        return Outcome(index, time.time() - start, problems=error.problems)


def _on_loky() -> bool:
    return type(get_active_backend()[0]).__name__ == "LokyBackend"


def _keep_worker() -> None:
    # loky ends a worker that has grown by 300 MB, which every model does; torch's import would
    # then be paid again for each unit.
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = 1 << 60
