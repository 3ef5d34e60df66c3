"""The simulation of `pet label-next` runs its rounds, prints its table, and resumes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from testing import HAPPY, SAD, rows

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUICK = [
    *("finetune.steps=2", "finetune.max_tokens=48", "finetune.batch_size=4"),
    *("machine.threads=1", "machine.jobs=1", "machine.device=cpu", "machine.precision=float32"),
]


@pytest.fixture
def datasets(tmp_path: Path, tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one set, and the task it belongs to where the program looks for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patterns").mkdir()
    (tmp_path / "patterns" / "mood").symlink_to(tiny_task)
    folder = tmp_path / "sets" / "mood"
    folder.mkdir(parents=True)
    labels = ["sad"] * 4 + ["happy"] * 4
    shots = {"id": [*map(str, range(8))], "text_a": SAD + HAPPY, "label": labels}
    more: dict[str, list[Any]] = {"split": ["train"] * 8, "seed": [13] * 8}
    pq.write_table(pa.table(shots | more), folder / "kshot.parquet")
    pool = [f"{text} {more}" for more in ("today", "again", "of course") for text in SAD + HAPPY]
    ids = [f"u{n}" for n in range(24)]
    pq.write_table(
        pa.table({"id": ids, "text_a": pool, "gold": labels * 3}), folder / "unlabeled.parquet"
    )
    test = {"text_a": [f"{text} then" for text in SAD + HAPPY], "label": labels}
    pq.write_table(pa.table(test), folder / "test.parquet")
    return folder.parent


def test_the_simulation(
    datasets: Path,
    tmp_path: Path,
    tiny_mlm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    main = runpy.run_path(str(PIPELINES / "label_next_simulation.py"))["main"]
    options: dict[str, Any] = {
        "output": tmp_path / "runs",
        "sets": "mood",
        "seeds": "13",
        "rounds": 2,
        "rows": 3,
        "start": 2,
        "patterns": 2,
        "pool_rows": 20,
        "test_rows": 6,
        "override": [*QUICK, f"model={tiny_mlm}"],
    }

    def run(**more: Any) -> str:
        main(datasets, **{**options, **more})
        return capsys.readouterr().out

    table = run()
    root = tmp_path / "runs" / "mood-13"
    lines = [line.split() for line in table.splitlines()[-3:]]
    assert [line[0] for line in lines] == ["0", "3", "6"]
    for arm, column in (("label-next", 1), ("random", 4)):
        labelled = rows(root / arm / "labelled.parquet")
        assert len(labelled) == 2 * 2 + 2 * 3
        assert all((row["label"] == "sad") == (row["text_a"] in sads()) for row in labelled)
        for number in (1, 2):
            accuracy = json.loads((root / f"{arm}-{number}.json").read_text())["accuracy"]
            assert lines[number][column] == f"{100 * accuracy:.1f}"
    assert [file.name for file in sorted((root / "start/gen-0/finetune").iterdir())] == [
        "it_was-1",
        "just-1",
    ]
    assert len(rows(tmp_path / "runs/samples/mood-test-all-6.parquet")) == 6
    logs = [
        root / "start/log.jsonl",
        *(root / arm / "log.jsonl" for arm in ("label-next", "random")),
    ]

    def units() -> list[int]:
        """Units that were run, in each folder."""
        return [log.read_text().count('"event": "unit"') for log in logs]

    before = units()
    assert run() == table
    assert units() == before  # nothing was done twice
    (root / "random-2.json").unlink()  # stopped before its result was written
    assert run() == table
    assert units() == before
    with pytest.raises(typer.Exit):
        run(rows=4)
    assert "mood-13: its rounds have other settings" in capsys.readouterr().err


def sads() -> set[str]:
    """The texts of the set that are sad."""
    return {text + more for text in SAD for more in ("", " today", " again", " of course")}
