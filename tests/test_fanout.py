"""Pieces of work here and in workers: all are done, errors of the user come back together."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from joblib.externals.loky import process_executor, reusable_executor

from pet_pipeline.errors import UserError
from pet_pipeline.fanout import Outcome, fan_out, release_workers

JOBS = pytest.mark.parametrize("jobs", [1, 2])


def square(n: int) -> int:
    return n * n


def picky(n: int) -> int:
    if n == 1:
        raise UserError("1: not good; be good")
    if n == 2:
        raise UserError("2: too much", "2: two lines,\n  - one that looks like a problem")
    return n


def buggy(n: int) -> int:
    if n == 1:
        raise RuntimeError("a bug")
    return n


def outcomes(work: Callable[[int], int], n: int, jobs: int) -> list[Outcome[int]]:
    works = [functools.partial(work, i) for i in range(n)]
    return sorted(fan_out(works, jobs=jobs), key=lambda outcome: outcome.index)


@JOBS
def test_every_piece_of_work_is_done_once(jobs: int) -> None:
    done = outcomes(square, 5, jobs)
    assert [(o.index, o.value, o.problems) for o in done] == [(n, n * n, ()) for n in range(5)]


@JOBS
def test_no_work_has_no_outcomes(jobs: int) -> None:
    assert outcomes(square, 0, jobs) == []


@JOBS
def test_errors_of_the_user_come_back_as_they_are_and_stop_nothing(jobs: int) -> None:
    done = outcomes(picky, 4, jobs)
    assert [outcome.value for outcome in done] == [0, None, None, 3]
    assert [outcome.problems for outcome in done] == [
        (),
        ("1: not good; be good",),
        ("2: too much", "2: two lines,\n  - one that looks like a problem"),
        (),
    ]


@JOBS
def test_a_bug_ends_it(jobs: int) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        outcomes(buggy, 4, jobs)


def test_one_job_needs_no_other_process_and_two_have_at_most_two() -> None:
    def process(n: int) -> int:
        return os.getpid()

    assert {outcome.value for outcome in outcomes(process, 4, 1)} == {os.getpid()}
    assert {outcome.value for outcome in outcomes(process, 1, 2)} == {os.getpid()}
    workers = {outcome.value for outcome in outcomes(process, 8, 2)}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers


@JOBS
def test_workers_are_where_the_caller_is(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [Path.cwd] * 3
    list(fan_out(works, jobs=jobs))  # workers may have started before the folder was changed
    monkeypatch.chdir(tmp_path)
    assert {outcome.value for outcome in fan_out(works, jobs=jobs)} == {tmp_path}


def test_a_worker_that_has_grown_is_kept() -> None:
    def limit(n: int) -> int:
        return int(process_executor._MAX_MEMORY_LEAK_SIZE)

    assert all((outcome.value or 0) > 2**50 for outcome in outcomes(limit, 4, 2))


def test_workers_that_were_released_are_gone_and_others_take_their_place() -> None:
    list(outcomes(lambda n: n, 4, 2))
    before = reusable_executor._executor
    assert before is not None
    release_workers()
    assert before._flags.shutdown  # and the memory of its models is free
    assert not before._processes
    assert sorted(outcome.value or 0 for outcome in outcomes(lambda n: n, 4, 2)) == [0, 1, 2, 3]
