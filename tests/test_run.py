"""Work is done once: what reruns, what does not, and what a kill leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.config import Machine, Settings, read_settings
from pet_pipeline.errors import UserError, raise_all
from pet_pipeline.run import RECORD, Result, Run, Unit, fingerprint, record, write_text

HERE = Path(__file__).parent
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def work(out: Path, machine: Machine, *, a: Any, log: str, up: Any = None) -> dict[str, Any]:
    with Path(log).open("a") as file:
        file.write(f"{a} ")
    (out / "x").write_text(str(a))
    return {"a": str(a)}


def renamed_work(out: Path, machine: Machine, **params: Any) -> dict[str, Any]:
    return work(out, machine, **params)


def broken(out: Path, machine: Machine, *, a: str) -> dict[str, Any]:
    raise UserError(f"{a}: not good; be good")


class Place:
    """A run's folder and a count of what was executed in it."""

    def __init__(self, folder: Path):
        self.root, self.log = folder / "run", folder / "log"
        self.log.touch()

    def go(
        self, names: str = "ab", fn: Callable[..., Any] = work, version: int = 1, **options: Any
    ) -> Run:
        with Run(self.root, **options) as run:
            calls = {name: {"a": name, "log": str(self.log)} for name in names}
            results = run.do("gen-0/one", fn, calls, version=version)
            run.do("two", fn, {"all": {"a": "two", "log": str(self.log), "up": results}})
        return run

    def ran(self) -> list[str]:
        found = sorted(self.log.read_text().split())
        self.log.write_text("")
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_only_what_is_not_done_is_run(place: Place, jobs: int) -> None:
    machine = Machine(jobs=jobs)
    place.go(plan=True, machine=machine)
    assert (place.ran(), place.root.exists()) == ([], False)
    place.go(until="one", machine=machine)
    assert place.ran() == ["a", "b"]
    place.go(machine=machine)
    assert place.ran() == ["two"]
    place.go(machine=machine)
    assert place.ran() == []
    place.go(fn=renamed_work, machine=machine)
    assert place.ran() == []
    place.go(version=2, machine=machine)
    assert place.ran() == ["a", "b", "two"]
    place.go(version=2, force=("two",), machine=machine)
    assert place.ran() == ["two"]
    place.go(version=2, force=("gen-0/one",), until="gen-0/one", machine=machine)
    assert place.ran() == ["a", "b"]
    place.go("abc", version=2, machine=machine)
    assert place.ran() == ["c", "two"]
    (place.root / "gen-0/one/a" / RECORD).unlink()
    place.go("abc", version=2, machine=machine)
    assert place.ran() == ["a"]
    planned = place.go("abd", version=2, plan=True)
    assert [bool(unit.result()) for unit in planned.units] == [True, True, False, False]


def test_the_machine_is_not_in_the_key(place: Place) -> None:
    place.go(machine=Machine(jobs=1, batch_tokens=100))
    place.ran()
    place.go(machine=Machine(jobs=2, batch_tokens=200, device="cpu"))
    assert place.ran() == []


def test_a_failed_run_goes_on_behind_what_was_done(place: Place) -> None:
    def run(fn: Callable[..., Any]) -> None:
        with Run(place.root) as open_run:
            open_run.do("one", work, {"a": {"a": "a", "log": str(place.log)}})
            open_run.do("two", fn, {"b": {"a": "b", "log": str(place.log)}})

    def fails(out: Path, machine: Machine, **params: Any) -> dict[str, Any]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(fails)
    assert place.ran() == ["a"]
    run(work)
    assert place.ran() == ["b"]
    assert not list(place.root.rglob(".partial-*"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_mistakes_of_all_units_are_shown_together(place: Place, jobs: int) -> None:
    machine = Machine(jobs=jobs)
    with pytest.raises(UserError) as error, Run(place.root, machine=machine) as run:
        run.do("one", broken, {name: {"a": name} for name in "ab"})
    heading, *problems = str(error.value).splitlines()
    assert heading == "2 problems:"
    assert sorted(problems) == ["  - a: not good; be good", "  - b: not good; be good"]


def test_several_mistakes_of_a_unit_are_shown_among_those_of_others(place: Place) -> None:
    def many(out: Path, machine: Machine, *, a: str) -> dict[str, Any]:
        raise_all([f"{a}: one", f"{a}: two", "both"])
        return {}

    with pytest.raises(UserError) as error, Run(place.root) as run:
        run.do("one", many, {name: {"a": name} for name in "ab"})
    assert str(error.value).splitlines() == [
        "5 problems:",
        "  - a: one",
        "  - a: two",
        "  - both",
        "  - b: one",
        "  - b: two",
    ]


def test_a_mistake_in_one_unit_lets_the_others_finish(place: Place) -> None:
    def picky(out: Path, machine: Machine, *, a: str) -> dict[str, Any]:
        if a == "a":
            raise UserError("a: not good; be good")
        return work(out, machine, a=a, log=str(place.log))

    for expected in (["b", "c"], []):
        with pytest.raises(UserError, match=r"^a: not good; be good$"), Run(place.root) as run:
            run.do("one", picky, {name: {"a": name} for name in "abc"})
        assert place.ran() == expected


def test_a_changed_parameter_reruns_its_unit_and_what_stands_on_it(place: Place) -> None:
    def go(**values: int) -> list[str]:
        with Run(place.root) as run:
            made = {
                name: run.do("one", work, {name: {"a": f"{name}{value}", "log": str(place.log)}})
                for name, value in values.items()
            }
            for name, up in made.items():
                run.do("two", work, {name: {"a": f"on-{name}", "log": str(place.log), "up": up}})
        return place.ran()

    assert go(a=1, b=1) == ["a1", "b1", "on-a", "on-b"]
    assert go(a=1, b=2) == ["b2", "on-b"]
    assert go(a=1, b=2) == []
    # A result is the latest one: to go back is to do it again.
    assert go(a=1, b=1) == ["b1", "on-b"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_stand_in_the_order_of_the_calls(place: Place, jobs: int) -> None:
    names = list("dbace")
    for done in (0, 3, 5):  # some are done already
        with Run(place.root, machine=Machine(jobs=jobs)) as run:
            calls = {name: {"a": name, "log": str(place.log)} for name in names}
            run.do("one", work, dict(list(calls.items())[:done]))
            results = run.do("one", work, calls)
        assert [result.dir for result in results] == [place.root / "one" / n for n in names]
        assert [result.info for result in results] == [{"a": name} for name in names]


def test_a_plan_knows_the_keys_of_what_is_not_done(place: Place) -> None:
    planned = place.go(plan=True)
    done = place.go()
    assert [unit.key for unit in planned.units] == [unit.key for unit in done.units]
    assert all(unit.result() for unit in done.units)


def test_force_until_and_plan_name_a_stage_or_that_of_a_generation(place: Place) -> None:
    place.go()
    place.ran()
    for name in ("one", "gen-0/one"):
        place.go(force=(name,), until=name)
        assert place.ran() == ["a", "b"]
    for name in ("two/all", "gen-1/one", "on"):
        place.go(force=(name,))
        assert place.ran() == []
    place.go(force=("one",))  # the results have the same keys, so what stands on them stays
    assert place.ran() == ["a", "b"]


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
            run.do("one", broken, {"a": {"a": "a"}})
    events = [json.loads(line) for line in (place.root / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "stage", "end"] * 2
    assert events[-1]["error"] == "UserError('a: not good; be good')"


def test_content_decides_not_names_or_times(place: Place, tmp_path: Path) -> None:
    def go(path: Path) -> list[str]:
        with Run(place.root) as run:
            run.do("one", work, {"a": {"a": path, "log": str(place.log)}})
        return place.ran()

    folder, other = tmp_path / "folder", tmp_path / "other"
    for place_of in (folder, other):
        place_of.mkdir()
        (place_of / "weights").write_text("1")
    assert len(go(folder)) == 1
    assert go(other) == []
    (other / ".hidden").write_text("")
    os.utime(other / "weights", (0, 0))
    assert go(other) == []
    (other / "weights").write_text("2!")
    assert len(go(other)) == 1
    (other / "weights").rename(other / "w")
    assert len(go(other)) == 1


def test_why_names_what_changed(tmp_path: Path) -> None:
    def unit(**params: Any) -> Unit:
        return Unit(tmp_path / "u", "one", lambda out, machine, **_: {}, params, 1)

    upstream = Result(tmp_path / "x", "key-1", {})
    unit(a={"b": 1}, rows=[1, 2], up=upstream).run(Machine())
    changed = unit(a={"b": 2}, rows=[1, 3], up=Result(tmp_path / "x", "key-2", {}))
    assert changed.why() == [
        "a.b: 1 -> 2",
        "rows[1]: 2 -> 3",
        "up: made by a unit that has changed",
    ]
    assert unit(a={"b": 1}, rows=[1, 2], up=upstream).why() == []
    more = unit(a={"b": 1, "c": "x" * 99}, rows=[1], up=upstream).why()
    assert more == [f"a.c: None -> {'x' * 59}…", "rows: [1, 2] -> [1]"]
    assert Unit(tmp_path / "v", "one", work, {}, 1).why() == []


def test_why_names_files_and_versions(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("1")
    Unit(tmp_path / "u", "one", lambda out, machine, **_: {}, {"source": file}, 1).run(Machine())
    file.write_text("22")
    changed = Unit(tmp_path / "u", "one", work, {"source": file}, 2)
    assert changed.why() == ["version: 1 -> 2", "source: its content has changed"]


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


def test_records_and_events(place: Place) -> None:
    place.go()
    found = record(place.root / "gen-0/one/a")
    assert found is not None
    assert set(found) == {"key", "identity", "info", "seconds", "made_by"}
    params = {"a": "a", "log": str(place.log)}
    assert found["identity"] == {"stage": "one", "version": 1, "params": params}
    assert found["info"] == {"a": "a"}
    assert found["seconds"] >= 0
    assert found["made_by"]["machine"]["jobs"] == 1
    events = [json.loads(line) for line in (place.root / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == [
        "start",
        "stage",
        "unit",
        "unit",
        "stage",
        "unit",
        "end",
    ]
    units = [(event["stage"], event["unit"]) for event in events if event["event"] == "unit"]
    assert units == [("gen-0/one", "a"), ("gen-0/one", "b"), ("two", "all")]
    assert events[-1]["error"] is None


def test_a_resumable_unit_finds_what_it_left(place: Place) -> None:
    def go(resumable: bool) -> list[str]:
        seen: list[str] = []

        def stops(out: Path, machine: Machine) -> dict[str, Any]:
            seen.extend(path.name for path in out.iterdir())
            (out / "half").touch()
            raise KeyboardInterrupt

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), Run(place.root) as run:
                run.do("one", stops, {"a": {}}, resumable=resumable)
        return seen

    assert go(resumable=False) == []
    assert go(resumable=True) == ["half", "half"]


@given(PLAIN, PLAIN)
def test_keys_are_equal_when_values_are(one: Any, other: Any) -> None:
    def key(value: Any) -> str:
        return Unit(Path("u"), "s", work, {"value": value}, 1).key

    assert key(one) == key(json.loads(json.dumps(one)))
    assert (key(one) == key(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_a_dict_does_not_matter(values: dict[str, int]) -> None:
    turned = dict(reversed(values.items()))
    assert Unit(Path("u"), "s", work, values, 1).key == Unit(Path("u"), "s", work, turned, 1).key


def test_other_objects_cannot_be_parameters() -> None:
    with pytest.raises(TypeError) as error:
        fingerprint({"a": [object()]})
    assert str(error.value) == (
        "a object cannot be a parameter of a unit; use None, bool, int, float, str, Path, Result, "
        "and lists, dicts and dataclasses of these"
    )


def test_text_is_never_half_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "two \ud800")
    assert (tmp_path / "a").read_text() == "one"


def test_a_runs_folder_keeps_its_settings(tiny_settings: Callable[..., Settings]) -> None:
    settings = tiny_settings()
    with Run.open(settings):
        pass
    assert read_settings(Path(settings.output) / "config.toml") == settings


PROGRAM = """
import sys
from pathlib import Path
from pet_pipeline.config import Machine
from pet_pipeline.run import Run
from slow_work import slow
if __name__ == "__main__":
    with Run(Path(sys.argv[1]), machine=Machine(jobs={jobs})) as run:
        run.do("s", slow, {{str(i): {{"i": i}} for i in range(60)}})
"""
SLOW = """
import time
def slow(out, machine, *, i):
    with (out / "a").open("w") as file:
        for _ in range(50):
            file.write("x" * 100); file.flush(); time.sleep(0.001)
    return {"i": i}
"""
KILLS = 6


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_runs_go_on_and_nothing_half_written_counts(tmp_path: Path, jobs: int) -> None:
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


def test_until_waits_for_every_call_of_its_stage(place: Place) -> None:
    with Run(place.root, until="one") as run:
        run.do("one", work, {"a": {"a": "a", "log": str(place.log)}})
        run.do("one", work, {"b": {"a": "b", "log": str(place.log)}})
        run.do("two", work, {"c": {"a": "c", "log": str(place.log)}})
    assert place.ran() == ["a", "b"]


def test_a_record_that_a_power_cut_left_empty_is_none(place: Place) -> None:
    place.go()
    place.ran()
    (place.root / "two/all" / RECORD).write_text("")
    place.go()
    assert place.ran() == ["two"]
