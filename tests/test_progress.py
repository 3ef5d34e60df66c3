"""What a person sees of long work where there is no terminal."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterator

import pytest
from rich.console import Console

from pet_pipeline import progress


def test_lines_have_a_count_a_rate_and_a_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress("annotate mood-1", 30, "rows") as advance:
        advance(10)
        advance(20)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("  annotate mood-1: 10/30 rows, ")
    assert line.endswith(" left")
    assert " rows/s, " in line


def test_lines_are_left_out_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress("finetune", 3, "units", lines=False) as advance:
        advance(1)
    progress.say("[bold]not markup[/]")
    assert capsys.readouterr().err == "[bold]not markup[/]\n"


def test_no_line_when_all_is_done_or_too_soon_after_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress("finetune", 3, "steps") as advance:
        advance(3)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 99.0)
    with progress.progress("finetune", 3, "steps") as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_workers_print_nothing_and_keep_what_they_say_for_their_parent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with monkeypatch.context() as worker:
        worker.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
        progress.say("a line")
        progress.warn("a warning")
        with progress.progress("finetune", 3, "steps") as advance:
            advance(1)
    assert capsys.readouterr().err == ""
    lines = progress.take_lines()
    assert progress.take_lines() == ()
    progress.repeat(lines)
    assert capsys.readouterr().err == "a line\na warning\n"


@pytest.fixture
def normal() -> Iterator[None]:
    yield
    progress.set_verbosity("normal")


@pytest.mark.usefixtures("normal")
def test_a_quiet_program_prints_warnings_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    for verbosity, expected in (("quiet", ["careful"]), ("verbose", ["a line", "careful", "  f"])):
        progress.set_verbosity(verbosity)  # type: ignore[arg-type]
        progress.say("a line")
        progress.warn("careful")
        with progress.progress("f", 3, "steps") as advance:
            advance(1)
        assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == expected


@pytest.mark.usefixtures("normal")
@pytest.mark.parametrize(
    ("verbosity", "terminal", "expected"),
    [
        ("quiet", False, False),
        ("quiet", True, False),
        ("normal", False, True),  # a log
        ("normal", True, False),
        ("verbose", False, True),
        ("verbose", True, True),
    ],
)
def test_units_have_lines_in_logs_and_on_request(
    verbosity: progress.Verbosity,
    terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    monkeypatch.setattr(progress, "_console", console)
    progress.set_verbosity(verbosity)
    assert progress.shows_units() is expected


def test_a_bar_has_a_note_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "_console", screen)
    notes = iter(f"note {n}" for n in range(10**6))
    with progress.progress("units", 2, "units", note=lambda: next(notes)):
        progress._bars[0].refresh()
        progress._bars[0].refresh()
    assert screen.file.getvalue().count("note ") >= 2


def test_bars_within_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "_console", screen)

    def work() -> None:
        with progress.progress("units", 2, "units") as outer:
            outer(1)
            with progress.progress("steps of one", 4, "steps"):
                progress.say("a line between")
                raise RuntimeError

    for _ in range(2):  # after an error the display has stopped, and the next one can start
        with pytest.raises(RuntimeError):
            work()
    for text in ("units", "steps of one", "a line between\n"):
        assert screen.file.getvalue().count(text) >= 2
    assert not progress._bars
