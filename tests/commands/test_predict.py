"""`pet predict`: texts and tables, files and pipes, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from click.testing import Result as Ended
from testing import CPU
from typer.testing import CliRunner

from pet_pipeline import progress
from pet_pipeline.classifier import Classifier
from pet_pipeline.cli import app
from pet_pipeline.models import ModelFolder


@pytest.fixture(scope="module")
def folders(tiny_mlm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A classifier of texts, one of pairs, and a run that has the first."""
    folder = tmp_path_factory.mktemp("classifiers")
    for name, columns in (("run/distill/classifier", ["text"]), ("pairs", ["first", "second"])):
        made = Classifier.new(
            ModelFolder(tiny_mlm), ("sad", "happy"), columns, 16, seed=0, compute=CPU
        )
        made.save(folder / name)
    (folder / "run" / "config.toml").write_text("")
    return {
        "texts": str(folder / "run" / "distill" / "classifier"),
        "pairs": str(folder / "pairs"),
        "run": str(folder / "run"),
    }


def pet(*words: str, data: bytes = b"") -> Ended:
    ended = CliRunner().invoke(app, ["predict", *words, "--device", "cpu"], input=data)
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    return ended


def probs(classifier: str, *rows: dict[str, str]) -> list[dict[str, Any]]:
    loaded = Classifier(classifier, CPU)
    found = loaded.predict_proba(list(rows)).tolist()
    return [
        pytest.approx(dict(zip(loaded.labels, p, strict=True)), abs=1e-3) for p in found
    ]  # bfloat16, where it is fast


def test_texts_are_shown_with_their_labels_the_most_probable_first(
    folders: dict[str, str],
) -> None:
    shown = pet(folders["texts"], "--text", "a great day", "--text", "bad [b]food").stdout
    first, *_ = blocks = shown.split("bad [b]food\n")
    assert len(blocks) == 2
    (expected,) = probs(folders["texts"], {"text": "a great day"})
    ordered = sorted(expected.expected.items(), key=lambda item: -item[1])
    text, *lines = first.splitlines()
    assert text == "a great day"
    assert [line.split()[:2] for line in lines] == [[name, f"{p:.1%}"] for name, p in ordered]


def test_json_has_an_object_per_text(folders: dict[str, str]) -> None:
    ended = pet(folders["texts"], "--json", "--text", "größer", "--text", "", "--threshold", "1")
    first, empty = map(json.loads, ended.stdout.splitlines())
    assert '"größer"' in ended.stdout
    assert ended.stderr == ""
    assert list(first) == ["text", "label", "confidence", "why_empty", "probs"]
    (expected,) = probs(folders["texts"], {"text": "größer"})
    assert first["probs"] == expected
    assert first["confidence"] == max(first["probs"].values())
    assert first["label"] is None
    assert first["why_empty"].endswith(" < 1.00")
    assert empty == {
        "text": "",
        "label": None,
        "confidence": None,
        "why_empty": "empty text",
        "probs": None,
    }
    (sure,) = pet(folders["texts"], "--json", "--text", "a").stdout.splitlines()
    found = json.loads(sure)
    assert found["label"] == max(found["probs"], key=found["probs"].get)
    assert found["why_empty"] is None


def test_a_text_without_a_label_says_why(folders: dict[str, str]) -> None:
    shown = pet(folders["texts"], "--text", "day", "--text", " ", "--threshold", "0.999").stdout
    lines = shown.splitlines()
    assert lines[1].startswith("  no label: confidence 0.")
    assert lines[1].endswith(" < 0.999")
    assert len(lines) == 6
    assert lines[-1] == "  no label: empty text"


def test_a_pair_is_read_as_one(folders: dict[str, str]) -> None:
    words = ("--text", "great", "--pair", "bad", "--json")
    found = json.loads(pet(folders["pairs"], *words).stdout)
    assert (found["text"], found["pair"]) == ("great", "bad")
    (expected,) = probs(folders["pairs"], {"first": "great", "second": "bad"})
    assert found["probs"] == expected


def test_a_run_stands_for_its_classifier(folders: dict[str, str]) -> None:
    words = ("--text", "great", "--json")
    assert pet(folders["run"], *words).stdout == pet(folders["texts"], *words).stdout


def test_tables_are_read_and_written_by_suffix(folders: dict[str, str], tmp_path: Path) -> None:
    table = pa.table({"key": [7, 5, 9], "label": ["x", "y", None], "message": ["great", "", "bad"]})
    pq.write_table(table, tmp_path / "in.parquet")
    mapped = ("--column", "text=message")
    outputs = [str(tmp_path / f"out{suffix}") for suffix in (".csv", ".jsonl", ".parquet")]
    for source, output in zip([str(tmp_path / "in.parquet"), *outputs], outputs, strict=False):
        words = (folders["texts"], "--table", source, "--output", output, *mapped)
        ended = pet(*words)
        assert ended.stdout == ""
        assert f"2 of 3 rows labelled: {output}" in ended.stderr
        drop_added(Path(output), tmp_path)
    assert pq.read_table(outputs[-1]).to_pylist() == [
        {"key": "7", "label": "x", "message": "great"},
        {"key": "5", "label": "y", "message": ""},
        {"key": "9", "label": "", "message": "bad"},
    ]


def drop_added(file: Path, folder: Path) -> None:
    """Leave only a table's own columns in it, after a look at the added ones."""
    if file.suffix == ".parquet":
        table = pq.read_table(file)
    elif file.suffix == ".csv":
        table = pa_csv.read_csv(file)
    else:
        table = pa.Table.from_pylist([json.loads(line) for line in file.read_text().splitlines()])
    own, added = table.column_names[:3], table.column_names[3:]
    assert own == ["key", "label", "message"]
    assert added == ["predicted", "confidence", "why_empty", "prob_sad", "prob_happy"]
    if file.suffix == ".parquet":
        pq.write_table(table.select(own), file)
    elif file.suffix == ".jsonl":
        lines = [json.dumps(row) + "\n" for row in table.select(own).to_pylist()]
        file.write_text("".join(lines))
    else:
        lines = [",".join(line.split(",")[:3]) + "\n" for line in file.read_text().splitlines()]
        file.write_text("".join(lines))


def test_standard_input_and_output_are_the_default_of_a_pipe(folders: dict[str, str]) -> None:
    ended = pet(folders["texts"], "--table", "-", data=b"great\n\n")
    header, great, empty = ended.stdout.splitlines()
    assert header == "text,label,confidence,why_empty,prob_sad,prob_happy"
    assert great.startswith("great,")
    assert empty == ",,,empty text,,"
    assert ended.stderr.startswith("1 of 2 rows labelled: standard output\n")
    words = ("--table", "-", "--format", "csv", "--output", "-", "--json")
    ended = pet(folders["texts"], *words, data=b"n,text\n1,great\n")
    found = json.loads(ended.stdout)
    assert list(found.items())[:2] == [("n", "1"), ("text", "great")]
    assert {"label", "confidence", "why_empty", "prob_sad", "prob_happy"} < set(found)


def test_quiet_says_nothing_but_results(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_verbosity", "normal")  # and again after this test
    ended = pet(folders["texts"], "--table", "-", "--quiet", data=b"great\n")
    assert ended.stderr == ""
    assert ended.stdout.startswith("text,label,")
