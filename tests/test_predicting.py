"""A table is labelled as a whole: every row once, in order, with its own columns, and never half."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from testing import CPU, HAPPY, SAD

from pet_pipeline import predicting
from pet_pipeline import progress as progress_module
from pet_pipeline.classifier import Classifier
from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder
from pet_pipeline.predicting import answer, predict_table
from pet_pipeline.sources import find_source
from pet_pipeline.whole_tables import read_whole

TEXTS = [*SAD, *HAPPY, "", " \n"]


@dataclass
class ByLength:
    """A classifier that is the surer of its first label the longer a text is, up to 10 letters."""

    columns: Sequence[str] = ("text",)
    labels: Sequence[str] = ("long", "short")

    def predict_proba(self, rows: Sequence[dict[str, str]]) -> Any:
        long = np.array([min(10, sum(map(len, row.values()))) / 10 for row in rows], np.float32)
        others = np.outer(1 - long, np.ones(len(self.labels) - 1)) / (len(self.labels) - 1)
        return np.column_stack([long, others]).astype(np.float32)


def saved(file: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), file)
    return str(file)


def labelled(table: str, output: Path, classifier: Any = None, **options: Any) -> pa.Table:
    predict_table(classifier or ByLength(), table, str(output), {}, **options)
    return pq.read_table(output)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that gives standard input some bytes; returns where standard output goes."""

    def pipe(data: bytes) -> io.BytesIO:
        out = io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
        return out

    return pipe


def test_every_row_is_labelled_in_order_beside_its_own_columns(
    tiny_mlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classifier = Classifier.new(
        ModelFolder(tiny_mlm), ("sad", "happy"), ("text",), 16, seed=0, compute=CPU
    )
    monkeypatch.setattr(predicting, "STEP_ROWS", 4)
    keys = [f"row {n}" for n in reversed(range(len(TEXTS)))]
    table = saved(tmp_path / "t.parquet", key=keys, message=TEXTS)
    output = tmp_path / "new" / "folder" / "labels.parquet"
    predict_table(classifier, table, str(output), {"text": "message"})
    found = pq.read_table(output)
    assert found.column_names == [
        *("key", "message", "label", "confidence", "why_empty", "prob_sad", "prob_happy")
    ]
    assert (found["key"].to_pylist(), found["message"].to_pylist()) == (keys, TEXTS)
    assert found["label"].to_pylist() == classifier.predict(TEXTS)
    expected = classifier.predict_proba(TEXTS)[:8]
    probs = [found[f"prob_{label}"].to_pylist() for label in classifier.labels]
    assert np.allclose(np.array(probs).T[:8].astype(float), expected, atol=1e-5)
    assert np.allclose(found["confidence"].to_pylist()[:8], expected.max(1), atol=1e-5)
    assert (
        found.slice(8).drop(["key", "message"]).to_pylist()
        == [
            dict.fromkeys(("label", "confidence", "prob_sad", "prob_happy"))
            | {"why_empty": "empty text"}
        ]
        * 2
    )
    assert f"8 of 10 rows labelled: {output}\n" in capsys.readouterr().err
    assert [file.name for file in output.parent.iterdir()] == ["labels.parquet"]


def test_a_threshold_leaves_rows_to_a_person_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a" * n for n in (10, 8, 7, 5, 0)]
    found = labelled(
        saved(tmp_path / "t.parquet", text=texts), tmp_path / "o.parquet", threshold=0.8
    )
    assert found["label"].to_pylist() == ["long", "long", None, None, None]
    assert found["why_empty"].to_pylist() == [
        *(None, None, "confidence 0.70 < 0.80", "confidence 0.50 < 0.80", "empty text")
    ]
    assert found["confidence"].to_pylist() == pytest.approx([1, 0.8, 0.7, 0.5, None])
    assert capsys.readouterr().err.splitlines()[-4:] == [
        f"2 of 5 rows labelled: {tmp_path}/o.parquet",
        "  long                      2   40.0%",
        "  none: below the threshold 2   40.0%",
        "  none: empty text          1   20.0%",
    ]


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_confidence_looks_lower_than_the_threshold_that_it_is_below(low: int, high: int) -> None:
    confidence, threshold = np.float32(low / 10_000), high / 10_000
    reason = predicting._below(confidence, threshold)
    if reason is None:
        assert low >= high
    else:
        shown, limit = reason.removeprefix("confidence ").split(" < ")
        assert low < high
        assert float(shown) <= low / 10_000 + 1e-7
        assert float(shown) < float(limit) == threshold


def test_the_labels_agree_with_the_classifiers_own(tiny_mlm: Path) -> None:
    classifier = Classifier.new(
        ModelFolder(tiny_mlm), ("sad", "happy"), ("text",), 16, seed=0, compute=CPU
    )
    rows = [{"text": text} for text in TEXTS]
    limits = sorted(classifier.predict_proba(rows).max(1).tolist())
    for threshold in (0.0, *limits, 1.0):
        assert answer(classifier, rows, threshold).labels == classifier.predict(rows, threshold)


@pytest.mark.parametrize("own", [[], ["label"], ["predicted"]])
def test_the_tables_own_label_is_kept(tmp_path: Path, own: list[str]) -> None:
    columns = {name: ["mine"] for name in own}
    found = labelled(saved(tmp_path / "t.parquet", text=["a"], **columns), tmp_path / "o.parquet")
    assert found.drop(["confidence", "why_empty", "prob_long", "prob_short"]).to_pylist() == [
        {
            "text": "a",
            **dict.fromkeys(own, "mine"),
            ("predicted" if "label" in own else "label"): "short",
        }
    ]


def test_columns_that_would_be_there_twice(tmp_path: Path) -> None:
    columns = {name: ["x"] for name in ("label", "predicted", "prob_long")}
    table = saved(tmp_path / "t.parquet", text=["a"], **columns)
    with pytest.raises(UserError) as error:
        predict_table(ByLength(), table, str(tmp_path / "o.parquet"), {})
    assert str(error.value) == (
        "2 problems:\n"
        f"  - --table: {table} has a column 'predicted', and one of this name is added; rename or drop it\n"
        f"  - --table: {table} has a column 'prob_long', and one of this name is added; rename or drop it"
    )


def test_frequent_labels_are_counted_and_the_others_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predicting, "SHOWN_LABELS", 2)

    class Echo(ByLength):
        def predict_proba(self, rows: Sequence[dict[str, str]]) -> Any:
            return np.array([[float(row["text"] == label) for label in "abcd"] for row in rows])

    table = saved(tmp_path / "t.parquet", text=[*"bbbbbb", *"ccc", *"aa", *"d" * 2])
    labelled(table, tmp_path / "o.parquet", Echo(labels="abcd"))
    assert capsys.readouterr().err.splitlines()[-3:] == [
        f"13 of 13 rows labelled: {tmp_path}/o.parquet",
        "  b               6   46.2%",
        "  3 other labels  7   53.8%",
    ]


few = settings(max_examples=25)  # each writes files
NAMES = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=5
)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(st.characters(codec="utf-8"), max_size=6),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "list": st.lists(st.integers(0, 9), min_size=1, max_size=3),
}


@st.composite
def tables(draw: st.DrawFn, kinds: Sequence[str], min_columns: int = 0) -> pa.Table:
    """Random columns around the one of texts; in each at least one value that is not null."""
    added = ("text", "label", "confidence", "why_empty")
    own = NAMES.filter(lambda name: name not in added)
    names = draw(st.lists(own, unique=True, min_size=min_columns, max_size=4))
    n_rows = draw(st.integers(1, 6))
    columns = {}
    for name in names:
        cells = CELLS[draw(st.sampled_from(kinds))]
        rest = st.lists(cells | st.none(), min_size=n_rows - 1, max_size=n_rows - 1)
        columns[name] = [draw(cells), *draw(rest)]
    texts = draw(st.lists(CELLS["text"], min_size=n_rows, max_size=n_rows))
    place = draw(st.integers(0, len(names)))
    items = list(columns.items())
    return pa.table(dict([*items[:place], ("text", texts), *items[place:]]))


def same(found: pa.Table, table: pa.Table) -> None:
    own = found.select(table.column_names)
    assert found.column_names[: table.num_columns] == table.column_names
    assert own.schema.types == table.schema.types
    assert own.to_pylist() == table.to_pylist()
    empty = [not (text or "").strip() for text in table["text"].to_pylist()]
    assert [label is None for label in found["label"].to_pylist()] == empty


@few
@given(tables(tuple(CELLS)))
def test_a_parquet_table_keeps_its_columns(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    pq.write_table(table, folder / "t.parquet")
    same(labelled(str(folder / "t.parquet"), folder / "o.parquet"), table)


@few
@given(tables(tuple(CELLS)))
def test_json_lines_keep_their_values(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
    (folder / "t.jsonl").write_text("".join(lines))
    predict_table(ByLength(), str(folder / "t.jsonl"), str(folder / "o.jsonl"), {})
    found = [json.loads(line) for line in (folder / "o.jsonl").read_bytes().splitlines()]
    assert [list(row)[: table.num_columns] for row in found] == [table.column_names] * len(found)
    assert [{name: row[name] for name in table.column_names} for row in found] == table.to_pylist()
    same(labelled(str(folder / "t.jsonl"), folder / "o.parquet"), table)


@few
@given(tables(["text"], min_columns=1), st.sampled_from([",", ";", "|", "\t"]))
def test_csv_keeps_its_fields_as_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, delimiter: str
) -> None:
    folder, suffix = tmp_path_factory.mktemp("csv"), ".tsv" if delimiter == "\t" else ".csv"
    rows = [[value or "" for value in row.values()] for row in table.to_pylist()]
    with (folder / f"t{suffix}").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([table.column_names, *rows])
    output = folder / f"o{suffix}"
    predict_table(ByLength(), str(folder / f"t{suffix}"), str(output), {})
    with output.open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file, delimiter=delimiter)
    assert header[: table.num_columns] == table.column_names
    assert [row[: table.num_columns] for row in found] == rows
    source = find_source(str(output))
    again = [
        row for batch in read_whole(source, ["text"], {}).batches for row in batch.own.to_pylist()
    ]
    assert [list(row.values())[: table.num_columns] for row in again] == rows


def test_lines_of_standard_input_become_csv_on_standard_output(
    piped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = piped("a, b\r\n\nfür alle ☺\n".encode())
    predict_table(ByLength(), "-", "-", {})
    assert out.getvalue().decode().splitlines() == [
        "text,label,confidence,why_empty,prob_long,prob_short",
        '"a, b",short,0.6,,0.4,0.6',
        ",,,empty text,,",
        "für alle ☺,long,1,,1,0",
    ]
    assert capsys.readouterr().err.startswith("2 of 3 rows labelled: standard output\n")


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".csv", b"id;text\n7;a\n"),
        (".tsv", b"id\ttext\n7\ta\n"),
        (".jsonl", b'{"id": "7", "text": "a"}\n'),
    ],
)
def test_a_table_on_standard_input_and_json_lines_on_output(
    piped: Any, suffix: str, data: bytes
) -> None:
    out = piped(data)
    predict_table(ByLength(), "-", "-", {}, input_suffix=suffix, output_suffix=".jsonl")
    (line,) = out.getvalue().decode().splitlines()
    assert json.loads(line) == {
        "id": "7",
        "text": "a",
        "label": "short",
        "confidence": 0.9,
        "why_empty": None,
        "prob_long": 0.1,
        "prob_short": 0.9,
    }


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        (".txt", b"", "--table: standard input has no rows"),
        (".csv", b"text\n", "--table: standard input has no rows"),
        (".txt", b"a\n\xff\n", "--table: standard input: line 2 is not UTF-8 text"),
        (".jsonl", b"{]\n", "--table: standard input: cannot be read: JSON parse error"),
        (
            ".csv",
            b"txt\na\n",
            "--table: standard input has no column 'text'; no delimiter (',', ';', '\\t', '|') was "
            "found, and it has 'txt'; if it is 'txt', add --column text=txt",
        ),
    ],
)
def test_standard_input_that_cannot_be_read(
    piped: Any, suffix: str, data: bytes, message: str
) -> None:
    out = piped(data)
    with pytest.raises(UserError) as error:
        predict_table(ByLength(), "-", "-", {}, input_suffix=suffix)
    assert str(error.value).startswith(message)
    assert out.getvalue() == b""


def test_lines_of_text_are_for_a_classifier_of_one_text(piped: Any) -> None:
    piped(b"a\n")
    classifier: Any = ByLength(columns=("premise", "hypothesis"))
    with pytest.raises(UserError) as error:
        predict_table(classifier, "-", "-", {})
    assert str(error.value) == (
        "--table: standard input is one text per line, and this classifier reads 'premise', "
        "'hypothesis'; give --format csv or jsonl"
    )


def test_progress_is_never_on_standard_output(
    piped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = io.StringIO()
    monkeypatch.setattr(progress_module, "_console", Console(file=bars, force_terminal=True))
    monkeypatch.setattr(predicting, "STEP_ROWS", 1)
    out = piped(b"")
    predict_table(ByLength(), saved(tmp_path / "t.parquet", text=["a", "b"]), "-", {})
    assert out.getvalue().decode().splitlines()[1:] == [
        "a,short,0.9,,0.1,0.9",
        "b,short,0.9,,0.1,0.9",
    ]
    assert "predict" in bars.getvalue()
    assert "short,0.9" not in bars.getvalue()


def test_without_a_total_there_is_a_rate_and_no_time_left(
    piped: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(predicting, "STEP_ROWS", 2)
    piped(b"a\nb\nc\n")
    predict_table(ByLength(), "-", "-", {})
    two, three, *_ = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"  predict: 2 rows, [\d.,]+ rows/s", two)
    assert re.fullmatch(r"  predict: 3 rows, [\d.,]+ rows/s", three)


def test_memory_does_not_grow_with_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are written before the next ones are looked at."""
    monkeypatch.setattr(predicting, "STEP_ROWS", 2)
    output, sizes = tmp_path / "o.csv", []

    class Looking(ByLength):
        def predict_proba(self, rows: Sequence[dict[str, str]]) -> Any:
            sizes.append((tmp_path / ".o.csv.partial").read_text().count("\n"))
            assert len(rows) <= 2
            return super().predict_proba(rows)

    predict_table(Looking(), saved(tmp_path / "t.parquet", text=list("abcde")), str(output), {})
    assert sizes == [1, 3, 5]  # with the header


def test_a_file_that_is_there_is_replaced_also_the_table_itself(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text\na\n")
    predict_table(ByLength(), str(table), str(table), {})
    assert table.read_text() == (
        "text,label,confidence,why_empty,prob_long,prob_short\na,short,0.9,,0.1,0.9\n"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pa.array([], pa.string()), "--table: {} has no rows"),
        ([["a list"]], "--table: {}: cannot be read: Unsupported cast from list"),
    ],
)
def test_nothing_is_written_of_a_table_that_cannot_be_read(
    tmp_path: Path, texts: Any, message: str
) -> None:
    table = saved(tmp_path / "t.parquet", text=texts)
    output = tmp_path / "labels.csv"
    output.write_text("older")
    with pytest.raises(UserError) as error:
        predict_table(ByLength(), table, str(output), {})
    assert str(error.value).startswith(message.format(table))
    assert output.read_text() == "older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.csv", "t.parquet"]


def test_nothing_is_written_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "STEP_ROWS", 4)

    class Stopped(ByLength):
        calls = 0

        def predict_proba(self, rows: Sequence[dict[str, str]]) -> Any:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().predict_proba(rows)

    table = saved(tmp_path / "t.parquet", text=TEXTS)
    with pytest.raises(KeyboardInterrupt):
        predict_table(Stopped(), table, str(tmp_path / "labels.csv"), {})
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    table = saved(tmp_path / "t.parquet", text=TEXTS, image=[b"x"] * len(TEXTS))
    for output, message in {
        tmp_path
        / "t.parquet"
        / "o.parquet": f"--output: {table} is a file; name a file in a folder",
        tmp_path / "o.csv": (
            f"--output: {tmp_path}/o.csv: binary data, in 'image', cannot be written as text; "
            "name a .parquet file, or leave it out of the table"
        ),
    }.items():
        with pytest.raises(UserError) as error:
            predict_table(ByLength(), table, str(output), {})
        assert str(error.value) == message


def test_a_full_disk_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predicting, "write_batches", full)
    with pytest.raises(UserError) as error:
        labelled(saved(tmp_path / "t.parquet", text=["a"]), tmp_path / "o.parquet")
    assert str(error.value) == (
        f"--output: {tmp_path}/o.parquet: No space left on device; name another file"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
