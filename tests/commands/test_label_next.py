"""`pet label-next`: what it writes, what it merges, and what it says."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result as Ended
from testing import SAD, rows, run
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.settings import check_settings
from pet_pipeline.sources import find_source, read_batches

HARD = ['a "good" film, so good', "one;two\r\nthree\n\n", "\ttab, 'quote' \\ back", "{braces} über"]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_mlm: Path,
    tiny_task: Path,
    tiny_tables: dict[str, str],
) -> Path:
    """A run that is finished up to its ensemble, whose pool has texts that are hard to write."""
    folder = tmp_path_factory.mktemp("label-next")
    pq.write_table(pa.table({"text": [*HARD, *SAD, "good day", "bad day"]}), folder / "p.parquet")
    settings = check_settings(
        {
            "task": str(tiny_task),
            "model": str(tiny_mlm),
            "output": str(folder / "run"),
            "data": {"labelled": tiny_tables["labelled"], "pool": str(folder / "p.parquet")},
            "finetune": {"steps": 2, "batch_size": 4, "max_tokens": 48},
            "ensemble": {"temperature": 1.0},
            "distill": {"enabled": False},
            "baseline": {"enabled": False},
            "machine": {"threads": 1, "precision": "float32", "device": "cpu"},
        }
    )
    run(settings, until="ensemble")
    return folder / "run"


@pytest.fixture
def mine(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "mine"))


def label_next(*words: object, code: int = 0) -> Ended:
    """What comes of the command."""
    ended = CliRunner().invoke(app, ["label-next", *map(str, words)], env={"COLUMNS": "200"})
    assert ended.exit_code == code, f"{ended.output}\n{ended.exception!r}"
    return ended


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_texts_are_written_as_they_are_and_read_back(
    finished: Path, tmp_path: Path, suffix: str
) -> None:
    todo = tmp_path / "new" / f"todo.{suffix}"
    shown = label_next(finished, "--n", 5, "--output", todo).stdout
    columns = ("text", "guess", "confidence", "label")
    (batch,) = read_batches(find_source(str(todo)), columns, {}, None)
    written = batch.to_pylist()
    assert len(written) == 5
    assert {row["text"] for row in written} <= {*HARD, "good day", "bad day"}
    assert len({row["text"] for row in written} & set(HARD)) >= 3
    assert {row["label"] for row in written} == {""}
    assert {row["guess"] for row in written} <= {"sad", "happy"}
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in written)
    assert [file.name for file in todo.parent.iterdir()] == [todo.name]
    assert shown.startswith(f"written: {todo}\nfill its column 'label' with 'sad', 'happy'; ")
    assert f"label-next {finished} --merge {todo}" in shown


def test_without_a_file_the_rows_are_shown(finished: Path, tmp_path: Path) -> None:
    shown = label_next(finished, "--n", 6, "--by", "entropy")
    assert 'a "good" film, so good' in shown.stdout
    assert "one;two three" in shown.stdout
    assert f"label-next {finished} --n 6 --by entropy --output todo.csv" in shown.stdout
    assert "without a label" not in shown.stderr
    fewer = label_next(finished).stderr
    assert "the pool has only 6 texts without a label" in fewer


def fill(todo: Path, labels: list[str]) -> None:
    """Fill in a CSV file as a spreadsheet does."""
    with todo.open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    with todo.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], delimiter=";", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row, label in zip(table, labels, strict=True):
            writer.writerow(row | {"label": label})


def test_a_filled_file_is_merged_and_what_is_to_be_done_again_is_said(
    mine: Path, tmp_path: Path
) -> None:
    todo = tmp_path / "todo.csv"
    label_next(mine, "--n", 4, "--output", todo)
    label_next(mine, "--n", 5, "--output", todo)  # nothing is filled in yet
    fill(todo, ["sad", "", "happy", "happy", ""])
    refused = label_next(mine, "--output", todo, code=2).stderr
    assert refused == (
        f"error: --output: {todo} has 3 labels, which would be lost; merge it first "
        f"(--merge {todo}), or name another file\n"
    )
    lines = label_next(mine, "--merge", todo).stdout.splitlines()
    labelled = mine / "labelled.parquet"
    assert lines[:3] == [
        f"3 rows added to {labelled}: sad 5, happy 6",
        f"2 rows of {todo} without a label, left out",
        f"the next run reads {labelled} in place of data.labelled; it has 10 units to do, by "
        "stage:",
    ]
    assert [line.split() for line in lines[3:-1]] == [
        *(["prepare", "2"], ["gen-0/finetune", "3"], ["gen-0/annotate", "3"]),
        *(["gen-0/ensemble", "1"], ["report", "1"]),
    ]
    assert lines[-1].endswith(f"run {mine}/config.toml")
    assert [row["text"] in HARD or "day" in row["text"] for row in rows(labelled)[8:]] == [True] * 3
    again = label_next(mine, "--merge", todo).stdout
    assert again.startswith(f"0 rows added to {labelled}: sad 5, happy 6\n3 rows of {todo} merged")
    stale = label_next(mine, "--n", 2, code=2).stderr
    assert "settings or tables have changed since its ensemble was made (prepare/labelled" in stale
    status = CliRunner().invoke(app, ["status", str(mine)], env={"COLUMNS": "200"}).stdout
    assert f"labelled rows: {labelled}, in place of data.labelled" in status


def test_mistakes(finished: Path, tmp_path: Path) -> None:
    def error(*words: object) -> str:
        return label_next(*words, code=2).stderr

    assert error(tmp_path) == (
        f"error: {tmp_path}: not a run (no config.toml); name the folder that --output named\n"
    )
    assert error(finished, "--merge", "a.csv", "--output", "b.csv") == (
        "error: --merge: reads a filled file, and --output writes one; give either\n"
    )
    assert error(finished, "--by", "margins") == (
        "error: --by: 'margins' is not a criterion; did you mean 'margin'?\n"
    )
    assert "todo.xls: '.xls' is not a suffix of tables" in error(finished, "--output", "todo.xls")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert error(finished, "--output", other) == (
        f"error: --output: {other} exists and has no column 'label'; name another file\n"
    )
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert error(finished, "--output", folder) == (
        f"error: --output: {folder} is a folder; name a file, such as {folder}/todo.csv\n"
    )
    assert error(finished, "--output", other / "todo.csv") == (
        f"error: --output: {other}/todo.csv: File exists; name another file\n"
    )
    assert f"{tmp_path}/none.csv: no such file or folder" in error(
        finished, "--merge", tmp_path / "none.csv"
    )
    assert label_next(finished, "--n", 0, code=2)
