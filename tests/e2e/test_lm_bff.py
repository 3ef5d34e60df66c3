"""The LM-BFF recipe runs, prints the paper's table, and resumes where it was stopped."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from testing import HAPPY, SAD

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUICK = [
    "finetune.steps=2",
    "finetune.max_tokens=48",
    "demonstrations.max_tokens=120",
    "demonstrations.draws=2",
    "baseline.steps=2",
    "search.candidates=4",
    "search.beam=2",
    "search.steps=1",
    "search.keep=2",
    "search.folds=2",
    "machine.threads=1",
    "machine.jobs=1",
    "machine.device=cpu",
]


@pytest.fixture
def datasets(tmp_path: Path, tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one set, and the task it belongs to where the program looks for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patterns").mkdir()
    (tmp_path / "patterns" / "mood").symlink_to(tiny_task)
    folder = tmp_path / "sets" / "mood"
    folder.mkdir(parents=True)
    table = {"text_a": SAD + HAPPY, "label": ["sad"] * 4 + ["happy"] * 4}
    rows: dict[str, list[Any]] = {"text_a": [], "label": [], "split": [], "seed": []}
    for seed in (13, 21):
        for split in ("train", "dev"):
            rows["text_a"] += [f"{text} {split} {seed}" for text in table["text_a"]]
            rows["label"] += table["label"]
            rows["split"] += [split] * 8
            rows["seed"] += [seed] * 8
    pq.write_table(pa.table(rows), folder / "kshot.parquet")
    pool = [f"{text} too" for text in SAD + HAPPY]
    pq.write_table(pa.table({"text_a": pool}), folder / "unlabeled.parquet")
    pq.write_table(pa.table(table), folder / "test.parquet")
    return folder.parent


def test_the_recipe(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    main = runpy.run_path(str(PIPELINES / "lm_bff.py"))["main"]
    options: dict[str, Any] = {
        "output": tmp_path / "runs",
        "sets": "mood",
        "seeds": "13,21",
        "override": [*QUICK, f"model={tiny_mlm}"],
    }

    def run(**more: Any) -> str:
        main(datasets, **{"systems": ALL, "test_rows": 0, **options, **more})
        return capsys.readouterr().out

    table = run()
    for line in (
        "fine-tuning without a prompt",
        "prompt, zero-shot",
        "prompt and demonstrations, zero steps",
        "prompt-based FT (manual)",
        "prompt-based FT (auto)",
        "+ demonstrations",
        "both: manual, auto",
    ):
        assert line in table
    assert table.count("best on dev") == table.count("mean") == 6
    assert sorted(f.name for f in (tmp_path / "runs" / "mood-21").iterdir()) == sorted(
        [*ALL.split(","), "search"]
    )
    log = tmp_path / "runs/mood-13/manual/log.jsonl"
    units = log.read_text().count('"event": "unit"')
    assert run() == table
    assert log.read_text().count('"event": "unit"') == units  # nothing was done twice
    assert "best on dev" in run(systems="manual", test_rows=4, output=tmp_path / "fewer")
    assert "best on dev" in run(
        systems="manual,auto",
        seeds="13",
        output=tmp_path / "chosen",
        override=[*options["override"], 'patterns=["mood"]'],
    )
    tuned = tmp_path / "chosen" / "mood-13"
    assert [f.name for f in (tuned / "manual/gen-0/finetune").iterdir()] == ["mood-1"]
    assert len([*(tuned / "auto/gen-0/finetune").iterdir()]) == 2  # all that were found
    with pytest.raises(typer.BadParameter, match="'best': no such system; there are zero-shot"):
        run(systems="best")
    with pytest.raises(typer.BadParameter, match=r"mod/kshot.parquet: no such file"):
        run(sets="mood,mod")
    with pytest.raises(typer.BadParameter, match=r"no rows of seed '12'; \['13', '21'\]"):
        run(seeds="13,12")
    with pytest.raises(typer.Exit):
        run(systems="manual", override=["finetune.step=1"])
    assert "finetune.step: no such setting" in capsys.readouterr().err


ALL = "zero-shot,in-context,manual,manual-demos,auto,auto-demos"
