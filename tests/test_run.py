"""Work is done once: what reruns, what does not, and what a kill leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testing import CPU

from pet_pipeline import compute, schedule
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.progress import say
from pet_pipeline.run import ATTEMPTS, PINS, Run
from pet_pipeline.settings import read_settings
from pet_pipeline.units import RECORD, Info, Result, Unit

JOBS = pytest.mark.parametrize("jobs", [1, 2])


@dataclass(frozen=True)
class Write(Unit):
    """Notes in a log that it was executed, and writes a file."""

    a: str
    log: str
    up: tuple[Result, ...] = ()

    def work(self, out: Path, compute: Any) -> Info:
        with Path(self.log).open("a") as file:
            file.write(f"{self.a} ")
        (out / "x").write_text(self.a)
        return {"a": self.a}


class Renamed(Write):
    """The same in another class."""


class Changed(Write):
    """The same after its work was changed."""

    version = 2


class Scored(Write):
    """The same with a figure."""

    figure = "the_score"

    def work(self, out: Path, compute: Any) -> Info:
        return {**super().work(out, compute), "the_score": 0.5}


class Slow(Write):
    """The same, after a while."""

    def work(self, out: Path, compute: Any) -> Info:
        time.sleep(0.05)
        return super().work(out, compute)


class Fails(Write):
    """The same before a bug was fixed."""

    def work(self, out: Path, compute: Any) -> Info:
        raise RuntimeError("a bug")


@dataclass(frozen=True)
class Broken(Unit):
    """Has problems that the user can correct."""

    a: str
    problems: tuple[str, ...] = ("{a}: not good; be good",)

    def work(self, out: Path, compute: Any) -> Info:
        raise UserError(*(problem.format(a=self.a) for problem in self.problems))


class Place:
    """A run's folder and a count of what was executed in it."""

    def __init__(self, folder: Path):
        self.root, self.log = folder / "run", folder / "log"
        self.log.touch()

    def go(self, names: str = "ab", kind: type[Write] = Write, **options: Any) -> Run:
        """A run of two stages, the second made from all results of the first."""
        with Run(self.root, **options) as run:
            results = run.do("gen-0/one", self.units(names, kind))
            run.do("two", {"all": kind("two", str(self.log), tuple(results.values()))})
        return run

    def units(self, names: str, kind: type[Write] = Write) -> dict[str, Write]:
        return {name: kind(name, str(self.log)) for name in names}

    def ran(self) -> list[str]:
        """What was executed since the last call."""
        found = sorted(self.log.read_text().split())
        self.log.write_text("")
        return found

    def attempts(self) -> Any:
        file = self.root / ATTEMPTS
        return json.loads(file.read_text())["counts"] if file.exists() else None

    def events(self) -> list[Any]:
        return [json.loads(line) for line in (self.root / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@JOBS
def test_only_what_is_not_done_is_run(place: Place, jobs: int) -> None:
    place.go(plan=True, jobs=jobs)
    assert (place.ran(), place.root.exists()) == ([], False)
    place.go(until="one", jobs=jobs)
    assert place.ran() == ["a", "b"]
    place.go(jobs=jobs)
    assert place.ran() == ["two"]
    place.go(jobs=jobs)
    assert place.ran() == []
    place.go(kind=Renamed, jobs=jobs)
    assert place.ran() == []
    place.go(kind=Changed, jobs=jobs)
    assert place.ran() == ["a", "b", "two"]
    place.go("abc", Changed, jobs=jobs)
    assert place.ran() == ["c", "two"]
    (place.root / "gen-0/one/a" / RECORD).unlink()
    place.go("abc", Changed, jobs=jobs)
    assert place.ran() == ["a"]
    planned = place.go("abd", Changed, plan=True)
    assert [bool(unit.result()) for unit in planned.units] == [True, True, False, False]


def test_where_and_how_fast_changes_nothing(place: Place) -> None:
    place.go(jobs=1, compute=Compute(batch_tokens=100))
    place.ran()
    place.go(jobs=2, compute=Compute(batch_tokens=200, device="cpu"))
    assert place.ran() == []


@JOBS
def test_units_are_told_where_to_compute(place: Place, jobs: int) -> None:
    @dataclass(frozen=True)
    class Where(Unit):
        a: int

        def work(self, out: Path, compute: Any) -> Info:
            return {"threads": compute.threads}

    with Run(place.root, compute=Compute(threads=3), jobs=jobs) as run:
        done = run.do("one", {"a": Where(1), "b": Where(2)})
    assert [result.info for result in done.values()] == [{"threads": 3}] * 2


def test_a_failed_run_is_resumed_after_what_was_done(place: Place) -> None:
    def run(kind: type[Write]) -> None:
        with Run(place.root) as opened:
            opened.do("one", place.units("a"))
            opened.do("two", place.units("b", kind))

    with pytest.raises(RuntimeError, match="a bug"):
        run(Fails)
    assert place.ran() == ["a"]
    run(Write)
    assert place.ran() == ["b"]
    assert not list(place.root.rglob(".partial-*"))


@JOBS
def test_problems_of_all_units_are_shown_together(place: Place, jobs: int) -> None:
    with pytest.raises(UserError) as error, Run(place.root, jobs=jobs) as run:
        run.do("one", {name: Broken(name) for name in "ab"})
    assert sorted(error.value.problems) == ["a: not good; be good", "b: not good; be good"]


def test_several_problems_of_a_unit_stay_apart_as_they_were_raised(place: Place) -> None:
    problems = ("{a}: one", "{a}: two lines\n  - of one problem", "both")
    with pytest.raises(UserError) as error, Run(place.root) as run:
        run.do("one", {name: Broken(name, problems) for name in "ab"})
    assert error.value.problems == (
        "a: one",
        "a: two lines\n  - of one problem",
        "both",
        "b: one",
        "b: two lines\n  - of one problem",
    )


def test_a_problem_of_one_unit_lets_the_others_finish(place: Place) -> None:
    for expected in (["b", "c"], []):
        with pytest.raises(UserError, match=r"^a: not good; be good$"), Run(place.root) as run:
            run.do("one", {"a": Broken("a"), **place.units("bc")})
        assert place.ran() == expected


def test_a_changed_parameter_reruns_its_unit_and_what_depends_on_it(place: Place) -> None:
    def go(**values: int) -> list[str]:
        log = str(place.log)
        with Run(place.root) as run:
            made = {
                name: run.do("one", {name: Write(f"{name}{value}", log)})[name]
                for name, value in values.items()
            }
            for name, up in made.items():
                run.do("two", {name: Write(f"on-{name}", log, (up,))})
        return place.ran()

    assert go(a=1, b=1) == ["a1", "b1", "on-a", "on-b"]
    assert go(a=1, b=2) == ["b2", "on-b"]
    assert go(a=1, b=2) == []
    # A result is the latest one: going back means doing it again.
    assert go(a=1, b=1) == ["b1", "on-b"]


@JOBS
def test_results_are_in_the_order_of_the_units(place: Place, jobs: int) -> None:
    names = list("dbace")
    units = place.units("dbace")
    for done in (0, 3, 5):  # some are done already
        with Run(place.root, jobs=jobs) as run:
            run.do("one", {name: units[name] for name in names[:done]})
            results = run.do("one", units)
        assert list(results) == names
        assert [r.dir for r in results.values()] == [place.root / "one" / n for n in names]
        assert [r.info for r in results.values()] == [{"a": name} for name in names]


def test_a_stage_without_units_does_nothing(place: Place) -> None:
    with Run(place.root, jobs=2) as run:
        assert run.do("one", {}) == {}
    assert [event["event"] for event in place.events()] == ["start", "end"]


def test_a_plan_knows_the_keys_of_what_is_not_done(place: Place) -> None:
    planned = place.go(plan=True)
    done = place.go()
    assert [unit.key for unit in planned.units] == [unit.key for unit in done.units]
    assert all(unit.result() for unit in done.units)


def test_until_waits_for_every_call_of_its_stage(place: Place) -> None:
    with Run(place.root, until="one") as run:
        run.do("one", place.units("a"))
        run.do("one", place.units("b"))
        run.do("two", place.units("c"))
    assert place.ran() == ["a", "b"]


def test_force_and_until_name_a_stage_or_that_of_a_generation(place: Place) -> None:
    place.go()
    place.ran()
    for name in ("one", "gen-0/one"):
        place.go(force=(name,), until=name)
        assert place.ran() == ["a", "b"]
    place.go(force=("two",))
    assert place.ran() == ["two"]
    for name in ("two/all", "gen-1/one", "on"):
        place.go(force=(name,))
        assert place.ran() == []


@JOBS
def test_what_depends_on_a_forced_unit_reruns_in_the_same_command_and_then_stays(
    place: Place, jobs: int
) -> None:
    place.go(jobs=jobs)
    place.ran()
    place.go(jobs=jobs, force=("one",))
    assert place.ran() == ["a", "b", "two"]
    assert place.attempts() == {"gen-0/one/a": 1, "gen-0/one/b": 1}
    place.go(jobs=jobs)
    assert place.ran() == []
    place.go("abc", jobs=jobs, force=("one",))
    assert place.ran() == ["a", "b", "c", "two"]
    assert place.attempts() == {"gen-0/one/a": 2, "gen-0/one/b": 2, "gen-0/one/c": 1}
    place.go("abc", jobs=jobs)
    assert place.ran() == []


def test_a_unit_is_forced_once_in_a_run(place: Place) -> None:
    with Run(place.root, force=("one",)) as run:
        run.do("one", place.units("a"))
        run.do("one", place.units("ab"))
        assert [run.is_forced(unit) for unit in run.units] == [True] * 3
    assert place.ran() == ["a", "b"]
    assert place.attempts() == {"one/a": 1, "one/b": 1}


def test_a_run_that_waited_for_its_folder_counts_on_from_the_attempts_there(place: Place) -> None:
    waiting = Run(place.root, force=("one",))
    place.go(force=("one",))
    with waiting:
        waiting.do("gen-0/one", place.units("ab"))
    assert place.attempts() == {"gen-0/one/a": 2, "gen-0/one/b": 2}
    assert place.ran() == ["a", "a", "b", "b", "two"]


def test_a_plan_shows_what_force_would_do_and_stores_nothing(place: Place) -> None:
    place.go()
    before = {p: p.read_bytes() for p in place.root.rglob("*") if p.is_file()}
    planned = place.go(plan=True, force=("one",))
    assert [unit.result() for unit in planned.units] == [None] * 3
    assert [planned.is_forced(unit) for unit in planned.units] == [True, True, False]
    assert [planned.why(unit) for unit in planned.units] == [
        ["forced"],
        ["forced"],
        ["2 units of gen-0/one are redone first"],
    ]
    assert {p: p.read_bytes() for p in place.root.rglob("*") if p.is_file()} == before
    assert all(unit.result() for unit in place.go(plan=True).units)
    place.ran()
    done = place.go(force=("one",))
    assert place.ran() == ["a", "b", "two"]
    assert [unit.key for unit in planned.units] == [unit.key for unit in done.units]


FORCED = """
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from pet_pipeline.run import Run
from pet_pipeline.units import Unit

@dataclass(frozen=True)
class Dies(Unit):
    a: str
    up: tuple = ()

    def work(self, out, compute):
        print(self.a, flush=True)
        if self.a == "one" and sys.argv[2] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

with Run(Path(sys.argv[1]), force=tuple(sys.argv[3:])) as run:
    made = run.do("one", {"all": Dies("one")})
    run.do("two", {"all": Dies("two", tuple(made.values()))})
"""


def test_a_forced_attempt_that_is_killed_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FORCED)

    def go(*words: str) -> tuple[int, list[str]]:
        command = [sys.executable, "program.py", "run", *words]
        done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout.split()

    assert go("live") == (0, ["one", "two"])
    assert go("die", "one") == (-signal.SIGKILL, ["one"])
    begun = {"counts": {"one/all": 1}, "unfinished": ["one/all"]}
    assert json.loads((tmp_path / "run" / ATTEMPTS).read_text()) == begun
    assert (tmp_path / "run/one/all" / RECORD).exists()  # the old result, until there is a new one
    assert go("live") == (0, ["one", "two"])
    assert go("live") == (0, [])
    ended = {"counts": {"one/all": 1}, "unfinished": []}
    assert json.loads((tmp_path / "run" / ATTEMPTS).read_text()) == ended


@JOBS
def test_a_stopped_forced_run_resumes_by_the_same_command(place: Place, jobs: int) -> None:
    place.go(jobs=jobs)
    place.ran()
    stopped = Run(place.root, jobs=jobs, force=("one",)).__enter__()
    stopped.do("gen-0/one", place.units("ab"))
    stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert place.ran() == ["a", "b"]
    planned = place.go(plan=True, force=("one",))
    assert [bool(unit.result()) for unit in planned.units] == [True, True, False]
    place.go(jobs=jobs, force=("one",))
    assert place.ran() == ["two"]
    assert place.attempts() == {"gen-0/one/a": 1, "gen-0/one/b": 1}
    place.go(jobs=jobs, force=("one",))  # that one was finished, so this is another
    assert place.ran() == ["a", "b", "two"]
    assert place.attempts() == {"gen-0/one/a": 2, "gen-0/one/b": 2}


def test_what_a_stopped_forced_run_did_not_reach_is_forced_when_it_resumes(place: Place) -> None:
    place.go()
    place.ran()
    stopped = Run(place.root, force=("one", "two")).__enter__()
    stopped.do("gen-0/one", place.units("a"))
    stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert place.ran() == ["a"]
    place.go(force=("one", "two"))
    assert place.ran() == ["b", "two"]
    assert place.attempts() == {"gen-0/one/a": 1, "gen-0/one/b": 1, "two/all": 1}


def test_a_folder_with_nothing_but_what_a_killed_start_left_can_be_used(
    tiny_settings: Callable[..., Settings],
) -> None:
    settings = tiny_settings()
    root = Path(settings.output)
    root.mkdir()
    (root / ".lock").touch()
    (root / ".config.toml.partial").write_text("task =")
    with Run.open(settings):
        pass
    config = root / "config.toml"
    config.write_text('revision = "abc"\n' + config.read_text())  # of an earlier version
    with Run.open(settings):
        assert "revision" not in config.read_text()
    config.write_text("task =")
    with pytest.raises(UserError, match=r"config\.toml: .*; name another folder$"):
        Run.open(settings)


class Lookup:
    """A value that has another value each time it is looked up."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"commit {self.count}"


def test_a_pinned_value_is_looked_up_once_in_the_life_of_a_run(place: Place) -> None:
    value = Lookup()
    for _ in range(2):
        with Run(place.root) as run:
            assert [run.pin("model", value) for _ in range(2)] == ["commit 1"] * 2
    with Run(place.root) as run:
        assert run.pin("precision", lambda: "float32") == "float32"
    assert value.count == 1
    pins = json.loads((place.root / PINS).read_text())
    assert pins == {"model": "commit 1", "precision": "float32"}


def test_a_pinned_value_is_renewed_on_request(place: Place) -> None:
    value = Lookup()
    with Run(place.root) as run:
        run.pin("model", value)
        assert run.pin("model", value, renew=True) == "commit 2"
    with Run(place.root) as run:
        assert run.pin("model", value) == "commit 2"


def test_a_plan_pins_nothing(place: Place) -> None:
    value = Lookup()
    with Run(place.root, plan=True) as run:
        assert run.pin("model", value) == "commit 1"
    assert not place.root.exists()
    with Run(place.root) as run:
        run.pin("model", value)
    with Run(place.root, plan=True) as run:
        assert run.pin("model", value) == "commit 2"
        assert run.pin("model", value, renew=True) == "commit 3"
    assert json.loads((place.root / PINS).read_text()) == {"model": "commit 2"}


def test_a_kill_while_a_result_is_replaced_loses_nothing(place: Place) -> None:
    place.go()
    place.ran()
    folder = place.root / "two" / "all"
    folder.rename(folder.with_name(".stale-0123"))
    place.go()
    assert place.ran() == ["two"]
    assert not list(place.root.rglob(".stale-*"))


def test_a_failed_run_lets_go_of_its_folder_and_says_why(place: Place) -> None:
    for _ in range(2):
        with pytest.raises(UserError), Run(place.root) as run:
            run.do("one", {"a": Broken("a")})
    events = place.events()
    assert [event["event"] for event in events] == ["start", "stage", "end"] * 2
    assert events[-1]["error"] == "UserError('a: not good; be good')"


def test_a_failed_run_keeps_what_a_resumable_unit_left(place: Place) -> None:
    seen = place.log

    @dataclass(frozen=True)
    class Stops(Unit):
        a: int = 1

        def work(self, out: Path, compute: Any) -> Info:
            with seen.open("a") as file:
                file.write(" ".join([*(path.name for path in out.iterdir()), ""]))
            (out / "half").touch()
            raise KeyboardInterrupt

    class Resumes(Stops):
        resumable = True

    for unit, found in ((Stops(), []), (Resumes(), ["half", "half"])):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), Run(place.root) as run:
                run.do("one", {"a": unit})
        assert place.ran() == found
    place.go()
    assert not list(place.root.rglob(".partial-*"))


def test_a_second_process_is_sent_away(place: Place) -> None:
    with (
        Run(place.root),
        pytest.raises(UserError) as error,
        Run(place.root),
    ):
        pass
    assert str(error.value) == f"{place.root}: another process is at work on this run"
    with Run(place.root):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "run"
    with pytest.raises(UserError) as error, Run(root):
        pass
    assert str(error.value) == f"output: {root}: Not a directory; name another folder"


def test_events(place: Place) -> None:
    place.go(compute=CPU)
    events = place.events()
    kinds = ["start", "stage", "unit", "unit", "stage", "unit", "end"]
    assert [event["event"] for event in events] == kinds
    units = [(event["stage"], event["unit"]) for event in events if event["event"] == "unit"]
    assert units == [("gen-0/one", "a"), ("gen-0/one", "b"), ("two", "all")]
    assert events[0]["made_by"]["machine"] == CPU.describe()
    assert events[-1]["error"] is None
    place.go("abc")
    counts = [(e["stage"], e["units"], e["skipped"]) for e in place.events() if "skipped" in e]
    assert counts == [("gen-0/one", 2, 0), ("two", 1, 0), ("gen-0/one", 1, 2), ("two", 1, 0)]


def test_each_finished_unit_has_a_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.go()
    lines = capsys.readouterr().err.splitlines()
    starts = ["[1/2] gen-0/one a ", "[2/2] gen-0/one b ", "[1/1] two all ", "took "]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts
    assert lines[0].endswith(" left")
    assert lines[2].endswith("  a two")


@JOBS
def test_on_a_terminal_each_finished_stage_has_a_line(
    place: Place, jobs: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "shows_units", lambda: False)
    with Run(place.root, jobs=jobs) as run:
        run.do("prepare", place.units("a"))
        run.do("prepare", place.units("bc"))  # the same stage
        run.do("two", place.units("d", Scored))
        run.do("three", place.units("ef", Scored))
        run.do("two", place.units("d", Scored))  # is done
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == ["prepare", "two", "three"]
    assert re.fullmatch(r"prepare +3 units +[\d.]+ s", lines[0])
    assert re.fullmatch(r"two +1 unit +[\d.]+ s  the score 0\.500", lines[1])
    assert re.fullmatch(r"three +2 units +[\d.]+ s  mean the score 0\.500", lines[2])
    assert lines[3].startswith("took ")


def test_the_time_of_each_stage_is_in_the_log(place: Place) -> None:
    place.go()
    seconds = place.events()[-1]["seconds"]
    assert list(seconds) == ["gen-0/one", "two"]
    assert all(value >= 0 for value in seconds.values())
    place.go()
    assert place.events()[-1]["seconds"] == {}


def test_the_time_left_in_all_follows_the_plan(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = place.go(plan=True)
    with Run(place.root) as run:
        run.expect(planned)
        run.do("gen-0/one", place.units("ab", Slow))
        run.do("two", {"all": Write("two", str(place.log))})
    one, other, last, _ = capsys.readouterr().err.splitlines()
    assert one.endswith("about 10 s left in all")
    assert other.endswith("about 10 s left in all")
    assert "left" not in last


def test_what_is_planned_after_until_is_not_expected(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = place.go(plan=True)
    with Run(place.root, until="one") as run:
        run.expect(planned)
        run.do("gen-0/one", place.units("ab", Slow))
    one, other, _ = capsys.readouterr().err.splitlines()
    assert one.endswith("about 10 s left in all")
    assert "left" not in other


def test_lines_of_workers_are_printed_by_their_parent(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True)
    class Says(Unit):
        a: str

        def work(self, out: Path, compute: Any) -> Info:
            say(f"{self.a} says")
            return {}

    with Run(place.root, jobs=2) as run:
        run.do("one", {name: Says(name) for name in "ab"})
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line for line in lines if line.endswith(" says")) == ["a says", "b says"]


def test_only_runs_one_stage_and_leaves_the_others_as_they_are(place: Place) -> None:
    def go(**options: Any) -> Run:
        with Run(place.root, **options) as run:
            one = run.do("one", place.units("a"))
            two = run.do("two", {"b": Write("b", str(place.log), tuple(one.values()))})
            run.do("three", place.units("c"))  # needs nothing
            run.do("four", {"d": Write("d", str(place.log), tuple(two.values()))})
        return run

    go(only="three")
    assert place.ran() == ["c"]
    go(only="one")
    assert place.ran() == ["a"]
    go(only="one")  # is done
    assert place.ran() == []
    go(only="one", force=("one",))
    assert place.ran() == ["a"]
    go(only="two")
    assert place.ran() == ["b"]
    assert place.events()[-1]["error"] is None
    go()
    assert place.ran() == ["d"]


@pytest.mark.parametrize("plan", [True, False])
def test_only_refuses_with_a_list_if_other_stages_have_to_run_first(
    place: Place, plan: bool
) -> None:
    def refusal(names: str) -> str:
        with pytest.raises(UserError) as error:
            place.go(names, only="two", plan=plan)
        return str(error.value)

    end = "; run without --only, or with --until two"
    assert refusal("a") == f"--only two: 1 unit has to run first: gen-0/one/a{end}"
    first = ", ".join(f"gen-0/one/{name}" for name in "abcdefghij")
    text = f"--only two: 12 units have to run first: {first} and 2 more{end}"
    assert refusal("abcdefghijkl") == text
    assert place.ran() == []


def test_with_only_a_pipeline_does_not_look_for_what_is_not_there(place: Place) -> None:
    with Run(place.root, only="two") as run:
        assert not run.plan
        run.do("one", place.units("a"))
        assert run.plan
        run.do("two", place.units("b"))
    assert place.ran() == ["b"]


def test_what_a_unit_is_made_from_is_a_reason_only_if_it_is_the_only_one(place: Place) -> None:
    place.go()

    def why(names: str, kind: type[Write] = Write) -> list[list[str]]:
        run = place.go(names, kind, plan=True)
        return [run.why(unit) for unit in run.units]

    assert why("ab") == [[], [], []]
    assert why("ab", Changed) == [[f"{s} has a new version: 1 → 2"] for s in ("one", "one", "two")]
    assert why("abc") == [[], [], [], ["gen-0/one/c is redone first"]]
    assert why("a") == [[], ["an earlier result has changed"]]


def test_a_record_that_a_power_cut_left_empty_does_not_count(place: Place) -> None:
    place.go()
    place.ran()
    (place.root / "two/all" / RECORD).write_text("")
    place.go()
    assert place.ran() == ["two"]


def test_a_run_is_what_its_settings_say(tiny_settings: Callable[..., Settings]) -> None:
    settings = tiny_settings(machine={"jobs": 2, "batch_tokens": 99})
    run = Run.open(settings, plan=True, until="one", force=("two",))
    assert (run.root, run.jobs) == (Path(settings.output), 2)
    assert (run.plan, run.until, run.force) == (True, "one", ("two",))
    expected = Compute(device="cpu", precision="float32", threads=1, batch_tokens=99)
    assert run.compute == expected


def test_the_models_size_decides_how_many_units_run_at_a_time(
    tiny_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "usable_cores", lambda: 3)
    monkeypatch.setattr(compute, "usable_bytes", lambda: 2**40)
    chosen = {"jobs": 0, "threads": 0, "device": "cpu"}
    for model, jobs, threads in (({}, 3, 1), ({"model": "a/large-one"}, 1, 3)):
        run = Run.open(tiny_settings(machine=chosen, **model), plan=True)
        assert isinstance(run.compute, Compute)
        assert (run.jobs, run.compute.threads) == (jobs, threads)


def test_a_runs_folder_keeps_its_settings(tiny_settings: Callable[..., Settings]) -> None:
    for settings in (tiny_settings(), tiny_settings(finetune={"steps": 9})):
        with Run.open(settings):
            pass
        assert read_settings(Path(settings.output) / "config.toml") == settings


def test_a_folder_with_something_else_is_left_alone(
    tiny_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = tiny_settings()
    root = Path(settings.output)
    root.mkdir()
    (root / ".lock").touch()  # of a run that was killed before it wrote its settings
    Run.open(settings)
    (root / "thesis.tex").touch()
    with pytest.raises(UserError) as error:
        Run.open(settings)
    assert str(error.value) == (
        f"output: {root} has files in it and is not a run (no config.toml); name a new folder"
    )
    (root / "config.toml").write_text('task = "other"')
    with pytest.raises(UserError) as error:
        Run.open(settings)
    assert (
        str(error.value) == f"output: {root} is the run of another task, other; name another folder"
    )
    with pytest.raises(UserError) as error:
        Run.open(tiny_settings(output=str(root / "thesis.tex")))
    assert str(error.value) == f"output: {root / 'thesis.tex'} is a file; name a folder"


PROGRAM = """
import sys
from pathlib import Path
from pet_pipeline.run import Run
from slow_work import Slow
if __name__ == "__main__":
    with Run(Path(sys.argv[1]), jobs={jobs}) as run:
        run.do("s", {{str(i): Slow(i) for i in range(60)}})
"""
SLOW = """
import time
from dataclasses import dataclass
from pet_pipeline.units import Unit

@dataclass(frozen=True)
class Slow(Unit):
    i: int

    def work(self, out, compute):
        with (out / "a").open("w") as file:
            for _ in range(50):
                file.write("x" * 100); file.flush(); time.sleep(0.001)
        return {"i": self.i}
"""
KILLS = 6


@JOBS
def test_killed_runs_are_resumed_and_nothing_half_written_counts(tmp_path: Path, jobs: int) -> None:
    (tmp_path / "slow_work.py").write_text(SLOW)
    (tmp_path / "program.py").write_text(PROGRAM.format(jobs=jobs))
    root, moments, halves = tmp_path / "run", random.Random(jobs), 0
    command = [sys.executable, "program.py", str(root)]
    for kill in range(KILLS):
        before = seen(root)
        process = subprocess.Popen(
            command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL
        )
        while started(root) <= kill or (kill % 2 and seen(root) == before):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.15))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for folder in (root / "s").glob("[0-9]*"):
            assert (folder / RECORD).exists()
            assert (folder / "a").stat().st_size == 5000
        halves += any(not (folder / RECORD).exists() for folder in root.glob("s/.partial-*"))
    assert halves > 0
    subprocess.run(command, cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    assert len(list(root.glob("s/*/unit.json"))) == 60
    assert not [*root.rglob(".partial-*"), *root.rglob(".stale-*")]
    events = [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "end"


def seen(root: Path) -> dict[str, int]:
    """The folders of units, begun or finished, and when each was last written into."""
    times = {}
    for folder in root.glob("s/*"):
        with contextlib.suppress(FileNotFoundError):
            times[folder.name] = folder.stat().st_mtime_ns
    return times


def started(root: Path) -> int:
    """How often work has begun in a run."""
    log = root / "log.jsonl"
    return log.read_text().count('"event": "stage"') if log.exists() else 0


def test_stages_inside_another_one_are_a_part_of_it(place: Place) -> None:
    def go(**options: Any) -> list[str]:
        with Run(place.root, **options) as run:
            with contextlib.suppress(KeyError), run.inside("first"):
                run.do("gen-0/one", place.units("a"))
                run.do("gen-0/two", place.units("b"))
                raise KeyError
            run.do("first", place.units("c"))
            run.do("gen-0/one", place.units("d"))
        return place.ran()

    assert go(until="first") == ["a", "b", "c"]
    assert go() == ["d"]
    folders = sorted(
        file.parent.relative_to(place.root).as_posix() for file in place.root.rglob(RECORD)
    )
    assert folders == ["first/c", "first/one/a", "first/two/b", "gen-0/one/d"]
    assert go(force=("one",)) == ["d"]
    assert go(force=("first",)) == ["a", "b", "c"]
    assert go(force=("first/two",), until="first/two") == ["b"]
