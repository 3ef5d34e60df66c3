"""What a person sees of long work where there is no terminal."""

from __future__ import annotations

import pytest

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


def test_no_lines_in_between_if_none_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress("finetune", 3, "units", lines=False) as advance:
        advance(1)
    progress.say("[bold]not markup[/]")
    assert capsys.readouterr().err == "[bold]not markup[/]\n"
