"""The null prompts' protocol chooses rates on folds, prints what was measured, and resumes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

from pet_pipeline.search.selection import corrected_losses

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUICK = [
    *("finetune.steps=2", "finetune.max_tokens=48", "finetune.batch_size=4"),
    *("machine.threads=1", "machine.jobs=1", "machine.device=cpu", "machine.precision=float32"),
]


def test_null_prompts_with_bitfit(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    program = importlib.import_module("null_prompts")
    options: dict[str, Any] = {
        "output": tmp_path / "runs",
        "sets": "mood",
        "seeds": "13",
        "rates": "1e-3,3e-2",
        "full_rates": "0",
        "folds": 2,
        "patterns": "2",
        "test_rows": 0,
        "markdown": False,
        "override": [*QUICK, f"model={tiny_mlm}", "learning_rate=4e-4"],
    }

    def run(**more: Any) -> str:
        program.main(datasets, **{**options, **more})
        return capsys.readouterr().out

    table = run()
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["mood,", "accuracy", "in", "percent"]
    root = tmp_path / "runs" / "mood-13"
    for kind, names in PATTERNS.items():
        found = {}
        for rate in ("0.001", "0.03"):
            accuracy, log_loss = held_out(root / f"{kind}-bitfit", rate)
            found[rate] = log_loss
            line = next(cells for cells in lines if cells[:3] == [kind, "bitfit", rate])
            assert line[3:7] == [f"{100 * accuracy:.1f}", "±", "0.0", f"{log_loss:.3f}"]
        chosen = min(found, key=lambda rate: found[rate])
        for rate in found:
            line = next(cells for cells in lines if cells[:3] == [kind, "bitfit", rate])
            assert line[7:] == ["1" if rate == chosen else "0", "of", "1"]
        for method, rate in (("bitfit", chosen), ("full", "0.0004")):
            run_folder = root / f"{kind}-{method}"
            tuned = run_folder / "gen-0/finetune"
            assert sorted(f.name for f in tuned.iterdir()) == [f"{name}-1" for name in names]
            metrics = json.loads((run_folder / "evaluate/all/metrics.json").read_text())
            reached = {system["kind"]: system["accuracy"] for system in metrics["systems"]}
            single, together = f"{100 * reached['mean']:.1f}", f"{100 * reached['ensemble']:.1f}"
            expected = [kind, method, single, "±", "0.0", together, "±", "0.0", rate]
            assert expected in lines
    logs = sorted(root.rglob("log.jsonl"))
    assert len(logs) == 4

    def units_done() -> list[int]:
        return [log.read_text().count('"event": "unit"') for log in logs]

    before = units_done()
    assert run() == table
    markdown = run(markdown=True)
    assert units_done() == before  # nothing was done twice
    assert markdown.count("| null | bitfit |") == 3
    both = run(full_rates="1e-4,1e-3")
    assert sum(line.split()[:2] == ["null", "full"] for line in both.splitlines()) == 3


def test_user_errors(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    program = importlib.import_module("null_prompts")

    def run(**more: Any) -> None:
        options: dict[str, Any] = {
            "output": tmp_path / "runs",
            "sets": "mood",
            "seeds": "13",
            "rates": "1e-3,3e-2",
            "full_rates": "0",
            "folds": 2,
            "patterns": "1",
            "test_rows": 0,
            "markdown": False,
            "override": [*QUICK, f"model={tiny_mlm}"],
        }
        program.main(datasets, **{**options, **more})

    with pytest.raises(typer.BadParameter, match="'a few': numbers with commas"):
        run(rates="a few")
    with pytest.raises(typer.BadParameter, match="different rates below 1 are needed"):
        run(rates="1e-3,0.001")
    with pytest.raises(typer.BadParameter, match="0, the default rate, is not one to choose from"):
        run(full_rates="0,1e-3")
    with pytest.raises(typer.BadParameter, match=r"mod/kshot.parquet: no such file"):
        run(sets="mod")
    with pytest.raises(typer.Exit) as stopped:
        run(override=["finetune.select_folds=3"])
    assert stopped.value.exit_code == 2
    message = "error: --set finetune.select_folds: this program sets it; use --folds"
    assert message in capsys.readouterr().err
    (tmp_path / "patterns/mood/null_end.toml").unlink()
    with pytest.raises(typer.Exit):
        run()
    assert "patterns/mood: has no null prompt; add a file null_end.toml" in capsys.readouterr().err


PATTERNS = {"null": ["null_end"], "hand-written": ["it_was", "just"]}
LABELS = ["sad"] * 4 + ["happy"] * 4


def held_out(run_folder: Path, rate: str) -> tuple[float, float]:
    """Accuracy and log-loss of a rate on the rows of both folds, by the patterns in turn."""
    scores = np.zeros((8, 2), np.float32)
    for fold in (0, 1):
        unit = f"rate-{rate}-steps-2-fold-{fold}"
        for row in pq.read_table(run_folder / "select" / unit / "scores.parquet").to_pylist():
            scores[row["id"]] = row["scores"]
    gold = [("sad", "happy").index(label) for label in LABELS]
    losses = corrected_losses(scores, gold, 2)
    return float(np.mean(scores.argmax(1) == np.array(gold))), float(losses.mean())
