"""Pieces of work here and in workers: all are done, errors of the user come back together."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from joblib.externals.loky import process_executor, reusable_executor

from pet_pipeline.errors import UserError
from pet_pipeline.fanout import Outcome, fan_out, release_workers
from pet_pipeline.progress import say, warn

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
    few = [outcome.value for outcome in outcomes(process, 2, 2)]
    assert few[0] == os.getpid()  # where its progress is seen
    assert few[1] != os.getpid()
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


@JOBS
def test_what_workers_say_comes_back(jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(n: int) -> int:
        say(f"line {n}")
        warn("careful")
        return n

    for _ in range(2):  # what was said is not said again
        done = outcomes(speak, 3, jobs)
        kept = [[(line.text, line.warning) for line in outcome.lines] for outcome in done]
        here = capsys.readouterr().err.splitlines()
        if jobs == 1:
            said = [text for n in range(3) for text in (f"line {n}", "careful")]
            assert (kept, here) == ([[]] * 3, said)
        else:
            assert kept == [[(f"line {n}", False), ("careful", True)] for n in range(3)]
            assert here == []


def test_what_was_said_before_a_problem_comes_with_it() -> None:
    def speak(n: int) -> int:
        say("first")
        raise UserError("then: a problem")

    done = outcomes(speak, 3, 2)
    assert [[line.text for line in outcome.lines] for outcome in done] == [["first"]] * 3
    assert [outcome.problems for outcome in done] == [("then: a problem",)] * 3


def test_fewer_works_are_done_by_the_same_workers() -> None:
    def process(n: int) -> int:
        return os.getpid()

    def workers() -> set[int]:
        outcomes(process, 4, 3)
        assert reusable_executor._executor is not None
        return set(reusable_executor._executor._processes)

    before = workers()
    assert {outcome.value for outcome in outcomes(process, 2, 3)} <= {*before, os.getpid()}
    outcomes(process, 1, 3)
    assert workers() == before


KILLED = """
import functools, os, signal, threading, time
from pathlib import Path
from pet_pipeline.fanout import fan_out

def work(n):
    Path(f"worker-{os.getpid()}").touch()
    time.sleep(600)

def die():
    while len(list(Path().glob("worker-*"))) < 2:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    threading.Thread(target=die).start()
    list(fan_out([functools.partial(work, n) for n in range(2)], jobs=2))
"""


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(KILLED)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


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
