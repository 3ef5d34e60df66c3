"""What the command line prints: states with reasons, results with what they are of."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pet_pipeline.patterns import Task, pattern_of
from pet_pipeline.records import write_record
from pet_pipeline.run import Run
from pet_pipeline.show import (
    DescribedPattern,
    print_patterns,
    print_prediction,
    print_results,
    print_units,
    unit_states,
)
from pet_pipeline.stages.evaluate import METRICS_FILE, Metrics, System
from pet_pipeline.units import Info, Unit


@dataclass(frozen=True)
class Note(Unit):
    """A text, and how much work it is said to be."""

    text: str = "a"
    steps: int = 0

    def work(self, out: Path, compute: Any) -> Info:
        """Write the text."""
        (out / "note.txt").write_text(self.text)
        return {"letters": len(self.text)}

    def size(self) -> str:
        """The number of steps, if there are any."""
        return f"{self.steps} steps" if self.steps else ""


@dataclass(frozen=True)
class Measured(Unit):
    """Metrics made by hand."""

    metrics: Metrics

    def work(self, out: Path, compute: Any) -> Info:
        """Write metrics.json."""
        write_record(out / METRICS_FILE, self.metrics)
        return {}


def system(kind: str, name: str, generation: int | None = None) -> System:
    return System(kind, name, generation, 0.75, 0.5, 0.9, 0.7, 0.6, 0.1)


METRICS = Metrics(
    metric="f1",
    labels=["sad", "[bold]happy"],
    test_rows=60,
    generations=2,
    systems=[
        system("ensemble", "old", 0),
        system("pvp", "it_was-1", 1),
        system("mean", "mean of the PVPs", 1),
        system("ensemble", "ensemble", 1),
        system("classifier", "classifier"),
    ],
)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def states(run: Run) -> dict[str, tuple[str, str]]:
    """State and reason by unit; seconds are left out."""
    return {
        unit.dir.name: (state, "" if state == "done" else more)
        for unit, state, more in unit_states(run)
    }


def planned(root: Path, *, steps: int = 300, text: str = "a", force: tuple[str, ...] = ()) -> Run:
    """The plan of two stages."""
    run = Run(root, plan=True, force=force)
    run.do("gen-0/finetune", {"one": Note(text), "two": Note("two")})
    run.do("distill", {"classifier": Note("c", steps)})
    return run


def executed(root: Path) -> None:
    """The first of the two stages."""
    with Run(root) as run:
        run.do("gen-0/finetune", {"one": Note(), "two": Note("two")})


def test_units_are_done_stale_or_to_do_with_their_size(tmp_path: Path) -> None:
    assert states(planned(tmp_path)) == {
        "one": ("to do", ""),
        "two": ("to do", ""),
        "classifier": ("to do", "300 steps"),
    }
    executed(tmp_path)
    assert states(planned(tmp_path, text="b")) == {
        "one": ("stale", "finetune text: a → b"),
        "two": ("done", ""),
        "classifier": ("to do", "300 steps"),
    }
    ((_, _, seconds), *_) = unit_states(planned(tmp_path))
    assert re.fullmatch(r"\d+\.\d s", seconds)


@pytest.mark.parametrize("stage", ["finetune", "gen-0/finetune"])
def test_forced_units_are_to_do(tmp_path: Path, stage: str) -> None:
    executed(tmp_path)
    assert states(planned(tmp_path, force=(stage,))) == {
        "one": ("to do", "forced"),
        "two": ("to do", "forced"),
        "classifier": ("to do", "300 steps"),
    }
    assert states(planned(tmp_path))["one"] == ("done", "")


def test_a_forced_unit_shows_its_size(tmp_path: Path) -> None:
    forced = planned(tmp_path, force=("distill",))
    assert states(forced)["classifier"] == ("to do", "forced, 300 steps")


def test_a_unit_that_generations_share_is_listed_once(tmp_path: Path) -> None:
    run = Run(tmp_path, plan=True)
    for _ in range(2):
        run.do("encode", {"pool": Note()})
    assert [unit.dir.name for unit, _, _ in unit_states(run)] == ["pool"]


def test_a_plan_is_a_table_with_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executed(tmp_path)
    print_units(planned(tmp_path, text="[red]"))
    head, one, two, last, counts = capsys.readouterr().out.splitlines()
    assert head.rstrip().split("  ")[-1] == "time, size or reason"
    assert re.fullmatch(r"gen-0/finetune +one +stale +finetune text: a → \[red\] *", one)
    assert re.fullmatch(r"gen-0/finetune +two +done +\d\.\d s *", two)
    assert re.fullmatch(r"distill +classifier +to do +300 steps *", last)
    assert counts == "1 done, 1 stale, 1 to do"


def test_a_plan_without_units_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_units(Run(tmp_path, plan=True))
    assert capsys.readouterr().out.splitlines()[-1] == "no units"


def test_results_are_a_table_and_where_things_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(tmp_path) as run:
        run.do("evaluate", {"all": Measured(METRICS)})
        run.do("distill", {"classifier": Note()})
        run.do("report", {".": Note()})
    capsys.readouterr()
    print_results(run, "pet")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "f1 of '[bold]happy' on 60 test rows" in lines
    head = next(line for line in lines if line.startswith("system"))
    assert re.split(r"  +", head) == [
        "system",
        "f1 of '[bold]happy'",
        "95 % interval",
        "calibration error",
    ]
    assert not [line for line in lines if line.startswith("old")]  # of an earlier generation
    assert re.search(
        r"^mean of the PVPs +0\.750 +\(0\.500 to 0\.900\) +0\.100$", "\n".join(lines), re.M
    )
    assert re.search(r"^ensemble +0\.750 +0\.500 to 0\.900 +0\.100$", "\n".join(lines), re.M)
    assert "in brackets: the range of the single PVPs" in lines
    assert lines[-4:] == [
        f"classifier   {tmp_path}/distill/classifier",
        f"metrics      {tmp_path}/evaluate/all/metrics.json",
        f"report       {tmp_path}/report/index.html",
        f'try it       pet predict {tmp_path}/distill/classifier --text "..."',
    ]


def test_what_looks_wrong_is_said_below_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = replace(system("baseline", "baseline"), value=0.8)
    with Run(tmp_path) as run:
        run.do("evaluate", {"all": Measured(replace(METRICS, systems=[*METRICS.systems, better]))})
    capsys.readouterr()
    print_results(run, "pet")
    lines = capsys.readouterr().out.splitlines()
    (note,) = [line for line in lines if line.startswith("note ")]
    assert note.startswith(
        "note The classifier's f1 of '[bold]happy', 0.750, is below the baseline's, 0.800: "
    )


def test_without_results_nothing_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(Run(tmp_path, plan=True), "pet")
    assert capsys.readouterr().out.strip() == ""


TASK = Task(
    "mood",
    ("text",),
    ("sad", "happy"),
    "accuracy",
    (
        pattern_of("one", "{text} {mask}", ("sad", "happy"), (("bad", "awful"), ("good",))),
        pattern_of("two", "{mask}: {text}", ("sad", "happy"), (("bad",), ("good",))),
    ),
)


def test_patterns_are_shown_on_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_patterns(TASK, [{"text": "[b] " + "long " * 100}], {})
    out = capsys.readouterr().out
    assert "[b] long" in out
    assert "…" in out
    assert "tokens" not in out
    assert re.search(r"^sad +bad, awful *$", out, re.M)


def test_patterns_that_are_not_default_are_shown_as_such(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = TASK.patterns
    print_patterns(replace(TASK, patterns=(two,), others=(one,)), [{"text": "so"}], {})
    titles = [line for line in capsys.readouterr().out.splitlines() if "──" in line]
    assert [title.rstrip("─ ") for title in titles] == [
        "one (default = false: taken only by name)",
        "two",
    ]


def test_described_patterns_have_tokens_prior_and_notes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {"sad": [["bad"], ["aw", "##ful"]], "happy": [["good"]]}
    described = {
        "one": DescribedPattern(words, ["label words of [1, 2] tokens: 2 masks"], [0.25, 0.75]),
        "two": DescribedPattern({"sad": [["bad"]], "happy": [["good"]]}, []),
    }
    print_patterns(TASK, [{"text": "so"}], described)
    one, two = capsys.readouterr().out.split("two ──")
    assert re.search(r"^label +label words +tokens +prior *$", one, re.M)
    assert re.search(r"^sad +bad, awful +bad  aw ##ful +0\.250 *$", one, re.M)
    assert "note label words of [1, 2] tokens: 2 masks" in one
    assert re.search(r"^label +label words +tokens *$", two, re.M)
    assert "note" not in two


def test_a_prediction_has_the_most_probable_label_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_prediction("so [b]good", {"sad": 0.25, "happy": 0.75})
    text, first, second = capsys.readouterr().out.splitlines()
    assert text == "so [b]good"
    assert first.split()[:2] == ["happy", "75.0%"]
    assert second.split()[:2] == ["sad", "25.0%"]


def test_a_text_without_a_label_has_the_reason_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_prediction("", {}, "empty text")
    print_prediction("so", {"[sad]": 1.0}, "confidence 1.00 < [b]")
    empty, reason, text, other, label = capsys.readouterr().out.splitlines()
    assert (empty, reason) == ("", "  no label: empty text")
    assert (text, other) == ("so", "  no label: confidence 1.00 < [b]")
    assert label.split()[:2] == ["[sad]", "100.0%"]
