"""The comparison of ways of tuning runs, prints what its runs measured, and resumes."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors.numpy import load_file
from testing import rows

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUICK = [
    *("finetune.steps=2", "finetune.max_tokens=48", "finetune.batch_size=4"),
    *("machine.threads=1", "machine.jobs=1", "machine.device=cpu", "machine.precision=float32"),
]


def test_all_ways_of_tuning_in_one_table(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    program = importlib.import_module("soft_prompts")  # by name: its functions are pickled
    options: dict[str, Any] = {
        "output": tmp_path / "runs",
        "sets": "mood",
        "seeds": "13,21",
        "methods": "full,prompt_tuning",
        "patterns": "2",
        "test_rows": 6,
        "markdown": False,
        "override": [*QUICK, f"model={tiny_mlm}"],
    }

    def run(**more: Any) -> str:
        program.main(datasets, **{**options, **more})
        return capsys.readouterr().out

    table = run()
    assert table.splitlines()[0].strip() == "mood, accuracy in percent"
    cells = {line.split()[0]: line.split() for line in table.splitlines()[-2:]}
    runs = {
        method: [tmp_path / "runs" / f"mood-{seed}" / method for seed in (13, 21)]
        for method in ("full", "prompt_tuning")
    }
    for method, folders in runs.items():
        systems = [
            {system["kind"]: system["accuracy"] for system in read(f / "evaluate/all/metrics.json")}
            for f in folders
        ]
        for kind, column in (("mean", 1), ("ensemble", 4)):
            mean = sum(system[kind] for system in systems) / 2
            apart = abs(systems[0][kind] - systems[1][kind]) / 2**0.5  # sample deviation of two
            assert cells[method][column : column + 3] == [f"{100 * mean:.1f}", "±", f"{100 * apart:.1f}"]  # fmt: skip
        units = [read_unit(f / "gen-0/finetune" / p) for f in folders for p in PATTERNS]
        seconds = sum(unit["seconds"] for unit in units) / len(units)
        assert float(cells[method][8]) == pytest.approx(seconds, abs=0.051)
        cost = read_unit(folders[0] / "cost/updates")["info"]
        assert cost["updates"] == 2
        assert cells[method][9] == f"{1000 * cost['seconds'] / 2:.0f}"
        assert cells[method][10] == f"{cost['peak_mib']:,.0f}"
        assert 100 < cost["peak_mib"] < 4000
        assert not (folders[1] / "cost").exists()  # it does not depend on the sample
        saved = [
            sum(file.stat().st_size for file in (f / "gen-0/finetune" / p / "model").iterdir())
            for f in folders
            for p in PATTERNS
        ]
        kib = sum(saved) / len(saved) / 1024
        assert float(cells[method][11].replace(",", "")) == pytest.approx(kib, abs=0.051)
    full = load_file(runs["full"][0] / "gen-0/finetune/it_was-1/model/model.safetensors")
    trained = sum(v.size for name, v in full.items() if "word_embeddings" not in name)
    assert cells["full"][7] == f"{trained:,}"
    assert cells["prompt_tuning"][7] == "320"  # 10 tokens of 32
    tuned = read_unit(runs["prompt_tuning"][0] / "gen-0/finetune/it_was-1")["info"]
    assert tuned["trainable"] == 320
    assert len(rows(runs["full"][0] / "prepare/test/table.parquet")) == 6
    logs = [folder / "log.jsonl" for folders in runs.values() for folder in folders]

    def units_done() -> list[int]:
        return [log.read_text().count('"event": "unit"') for log in logs]

    before = units_done()
    assert run() == table
    markdown = run(markdown=True)
    assert units_done() == before  # nothing was done twice
    written = [line for line in markdown.splitlines() if line.startswith("|")]
    assert written[0].startswith("| method | single PVPs | ensemble | trained parameters |")
    assert written[1].startswith("| --- | ---: |")
    assert [re.sub(r"[|\s]+", " ", line).split() for line in written[2:]] == [*cells.values()]


def test_user_errors(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    program = importlib.import_module("soft_prompts")

    def run(**more: Any) -> None:
        options: dict[str, Any] = {
            "output": tmp_path / "runs",
            "sets": "mood",
            "seeds": "13",
            "methods": "head",
            "patterns": "1",
            "test_rows": 0,
            "markdown": False,
            "override": [*QUICK, f"model={tiny_mlm}"],
        }
        program.main(datasets, **{**options, **more})

    with pytest.raises(typer.BadParameter, match="'heads': no such method; there are full, bitfit"):
        run(methods="heads")
    with pytest.raises(typer.BadParameter, match=r"mod/kshot.parquet: no such file"):
        run(sets="mood,mod")
    with pytest.raises(typer.BadParameter, match=r"no rows of seed '12'; \['13', '21'\]"):
        run(seeds="13,12")
    for wrong, message in {
        "finetune.step=1": "finetune.step: no such setting",
        "finetune.method=lora": "--set finetune.method: this program sets it; use --methods",
        "finetune.steps=0": "finetune.steps: 0 tunes nothing",
    }.items():
        with pytest.raises(typer.Exit) as stopped:
            run(override=[*QUICK, f"model={tiny_mlm}", wrong])
        assert stopped.value.exit_code == 2
        assert f"error: {message}" in capsys.readouterr().err.replace("settings: ", "")
    with pytest.raises(typer.Exit):
        run(patterns="it_is")
    assert "'it_is' is not a pattern of the task mood" in capsys.readouterr().err


PATTERNS = ("it_was-1", "just-1")


def read(file: Path) -> list[dict[str, Any]]:
    """The systems of a run's metrics."""
    systems: list[dict[str, Any]] = json.loads(file.read_text())["systems"]
    return systems


def read_unit(folder: Path) -> dict[str, Any]:
    """The record of a unit."""
    record: dict[str, Any] = json.loads((folder / "unit.json").read_text())
    return record
