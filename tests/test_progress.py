"""What a person sees of long work where there is no terminal."""

from __future__ import annotations

import io
import multiprocessing

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


def test_workers_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    progress.say("a line")
    with progress.progress("finetune", 3, "steps") as advance:
        advance(1)
    assert capsys.readouterr().err == ""


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
