"""A unit of work: its key, its folder, and the record that says it is finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testing import CPU

from pet_pipeline import units
from pet_pipeline.files import write_text
from pet_pipeline.units import RECORD, Info, PlannedUnit, Result, Unit, read_record


@dataclass(frozen=True)
class Write(Unit):
    """Writes a file, and one in a folder."""

    a: Any = 1
    b: Any = None

    def work(self, out: Path, compute: Any) -> Info:
        (out / "x").write_text(f"{self.a}")
        (out / "inner" / "most").mkdir(parents=True)
        (out / "inner" / "most" / "y").write_text(f"{self.b}")
        return {"a": f"{self.a}"}


@dataclass(frozen=True)
class Moved(Unit):
    """The same in another class, with its fields in another order."""

    b: Any = None
    a: Any = 1

    def work(self, out: Path, compute: Any) -> Info:
        return {}


class Changed(Write):
    """The same after its work was changed."""

    version = 2


@dataclass(frozen=True)
class Stops(Unit):
    """Notes what it finds in its folder, leaves something there and stops."""

    a: int = 1

    def work(self, out: Path, compute: Any) -> Info:
        compute.extend(path.name for path in out.iterdir())
        (out / "half").touch()
        raise KeyboardInterrupt


class Resumes(Stops):
    resumable = True


def planned(folder: Path, unit: Unit, stage: str = "one", attempt: int = 0) -> PlannedUnit:
    return PlannedUnit(folder / "u", stage, unit, attempt)


def test_a_misspelt_field_is_refused_when_the_unit_is_made() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        Write(a=1, c=2)  # type: ignore[call-arg]


def test_a_unit_needs_work() -> None:
    @dataclass(frozen=True)
    class Idle(Unit):
        a: int = 1

    with pytest.raises(TypeError, match=r"abstract method '?work'?"):
        Idle()  # type: ignore[abstract]


def test_the_key_is_of_stage_version_parameters_and_attempt(tmp_path: Path) -> None:
    unit = planned(tmp_path, Write(a=1, b=[2]))
    assert unit.identity == {"stage": "one", "version": 1, "params": {"a": 1, "b": [2]}}
    assert planned(tmp_path / "elsewhere", Moved(a=1, b=[2])).key == unit.key
    others = [
        planned(tmp_path, Write(a=1, b=[3])),
        planned(tmp_path, Changed(a=1, b=[2])),
        planned(tmp_path, Write(a=1, b=[2]), stage="two"),
        planned(tmp_path, Write(a=1, b=[2]), attempt=1),
        planned(tmp_path, Write(a=1, b=[2]), attempt=2),
    ]
    assert len({other.key for other in [unit, *others]}) == 6
    assert others[-1].identity["attempt"] == 2


def test_a_result_counts_by_its_key_not_by_its_folder_or_what_it_says(tmp_path: Path) -> None:
    def key(result: Result) -> str:
        return planned(tmp_path, Write(a=(result,))).key

    result = Result(tmp_path / "a", "key-1", {"accuracy": 0.5})
    assert key(result) == key(Result(tmp_path / "b", "key-1", {}))
    assert key(result) != key(Result(tmp_path / "a", "key-2", {"accuracy": 0.5}))


def test_work_leaves_a_result_with_its_record(tmp_path: Path) -> None:
    unit = planned(tmp_path, Write(a=3))
    assert unit.result() is None
    result = unit.run(CPU)
    assert result == Result(tmp_path / "u", unit.key, {"a": "3"}) == unit.result()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "u", "u/inner", "u/inner/most", "u/inner/most/y", f"u/{RECORD}", "u/x",
    ]  # fmt: skip
    record = read_record(tmp_path / "u")
    assert record is not None
    assert set(record) == {"key", "identity", "info", "seconds", "made_by"}
    assert (record["key"], record["identity"]) == (unit.key, unit.identity)
    assert record["info"] == {"a": "3"}
    assert record["made_by"]["machine"] == CPU.describe()
    assert {"python", "torch", "transformers"} < set(record["made_by"])
    assert planned(tmp_path, Write(a=4)).result() is None


def test_a_stale_result_is_replaced_with_its_folder(tmp_path: Path) -> None:
    planned(tmp_path, Write(a=1)).run(CPU)
    (tmp_path / "u" / "more").touch()
    changed = planned(tmp_path, Write(a=2))
    result = changed.run(CPU)
    assert changed.result() == result
    assert sorted(p.name for p in (tmp_path / "u").iterdir()) == ["inner", RECORD, "x"]
    assert [p.name for p in tmp_path.iterdir()] == ["u"]


def paths(unit: PlannedUnit) -> list[str]:
    """Where a unit differs from the result in its folder."""
    return [".".join(change.path) for change in unit.changes()]


def test_changes_are_those_from_the_result_in_the_folder(tmp_path: Path) -> None:
    def unit(a: Any, up: Any, attempt: int = 0) -> PlannedUnit:
        return planned(tmp_path, Write(a, up), attempt=attempt)

    one, other = (Result(tmp_path / "x", f"key-{n}", {}) for n in range(2))
    assert unit({"b": 1}, one).changes() == []  # nothing is there to compare it with
    unit({"b": 1}, one).run(CPU)
    assert unit({"b": 1}, one).changes() == []
    assert paths(unit({"b": 2}, other)) == ["params.a.b", "params.b"]
    assert paths(unit({"b": 1}, one, attempt=1)) == ["attempt"]


def test_changed_files_and_versions_are_among_them(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("1")
    planned(tmp_path, Write(a=file)).run(CPU)
    file.write_text("22")
    changed = planned(tmp_path, Changed(a=file))
    assert paths(changed) == ["version", "params.a"]


@pytest.mark.parametrize(
    ("unit", "seen"), [(Stops(), []), (Resumes(), ["half", "half"])], ids=["no", "yes"]
)
def test_only_a_resumable_unit_finds_what_it_left(
    tmp_path: Path, unit: Unit, seen: list[str]
) -> None:
    found: list[str] = []
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            planned(tmp_path, unit).run(found)
    assert found == seen


def test_a_forced_attempt_does_not_resume_an_earlier_one(tmp_path: Path) -> None:
    found: list[str] = []
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            planned(tmp_path, Resumes(), attempt=attempt).run(found)
    assert found == []


class Disk:
    """What was synced and renamed, in order, by name, and how large files were then."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.events: list[tuple[str, str]] = []
        self.sizes: dict[str, int] = {}
        self.root = root
        self.sync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(Path, "rename", self.moved(Path.rename))
        monkeypatch.setattr(os, "replace", self.moved(os.replace))

    def fsync(self, handle: int) -> None:
        status = os.fstat(handle)
        paths = [self.root, *self.root.rglob("*")]
        (path,) = (p for p in paths if not p.is_symlink() and p.stat().st_ino == status.st_ino)
        self.events.append(("sync", path.relative_to(self.root).as_posix()))
        self.sizes[path.name] = status.st_size
        self.sync(handle)

    def moved(self, move: Callable[..., Any]) -> Callable[..., Any]:
        def record(source: Path, target: Path) -> Any:
            names = [Path(path).relative_to(self.root).as_posix() for path in (source, target)]
            self.events.append(("rename", " -> ".join(names)))
            return move(source, target)

        return record


def test_everything_is_on_the_disk_before_the_record_and_that_before_the_folder_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path, monkeypatch)
    unit = planned(tmp_path, Write())
    unit.run(CPU)
    partial = f".partial-{unit.key}"
    assert disk.events[-4:] == [
        ("sync", f"{partial}/{RECORD}"),
        ("sync", partial),
        ("rename", f"{partial} -> u"),
        ("sync", "."),
    ]
    before = ["", "/inner", "/inner/most", "/inner/most/y", "/x"]
    assert sorted(disk.events[:-4]) == [("sync", f"{partial}{name}") for name in before]
    for name in (RECORD, "x", "y"):
        (file,) = tmp_path.rglob(name)
        assert disk.sizes[name] == file.stat().st_size > 0


def test_a_stale_result_makes_way_only_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(tmp_path, Write(a=1)).run(CPU)
    disk = Disk(tmp_path, monkeypatch)
    unit = planned(tmp_path, Write(a=2))
    unit.run(CPU)
    assert disk.events[-4:] == [
        ("sync", f".partial-{unit.key}"),
        ("rename", f"u -> .stale-{unit.key}"),
        ("rename", f".partial-{unit.key} -> u"),
        ("sync", "."),
    ]


def test_links_in_a_result_do_not_stop_it(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Links(Unit):
        def work(self, out: Path, compute: Any) -> Info:
            (out / "broken").symlink_to(tmp_path / "nothing")
            (out / "up").symlink_to(tmp_path)  # were it followed, there would be no end
            return {}

    result = planned(tmp_path, Links()).run(CPU)
    assert (result.dir / "up").is_symlink()


def test_text_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    write_text(tmp_path / "a", "one")
    assert disk.events == [("sync", ".a.partial"), ("rename", ".a.partial -> a"), ("sync", ".")]
    assert disk.sizes[".a.partial"] == 3
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "two \ud800")
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("text", [None, "", "{", '{"key": "1'])
def test_a_record_that_is_not_whole_is_none(tmp_path: Path, text: str | None) -> None:
    unit = planned(tmp_path, Write())
    unit.run(CPU)
    (tmp_path / "u" / RECORD).unlink()
    if text is not None:
        (tmp_path / "u" / RECORD).write_text(text)
    assert (read_record(tmp_path / "u"), unit.result(), unit.changes()) == (None, None, [])


def test_a_file_is_not_a_result(tmp_path: Path) -> None:
    (tmp_path / "u").write_text("")
    assert read_record(tmp_path / "u") is None


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "PACKAGES", ("torch", "no-such-package"))
    assert set(units.environment(None)) == {"python", "torch", "machine"}
    assert json.loads(json.dumps(units.environment(CPU))) == units.environment(CPU)
