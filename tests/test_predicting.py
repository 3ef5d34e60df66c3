"""A table is labelled as a whole: every row once, in order, and never half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from testing import CPU, HAPPY, SAD

from pet_pipeline.classifier import Classifier
from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder
from pet_pipeline.predicting import predict_table

TEXTS = [*SAD, *HAPPY, ""]


@pytest.fixture
def classifier(tiny_mlm: Path) -> Classifier:
    """An untrained classifier of two labels."""
    return Classifier.new(
        ModelFolder(tiny_mlm), ("sad", "happy"), ("text",), 16, seed=0, compute=CPU
    )


def saved(file: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), file)
    return str(file)


def test_every_row_is_labelled_in_order(
    classifier: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pet_pipeline.sources.BATCH_ROWS", 4)  # three batches
    ids = [f"row {n}" for n in reversed(range(len(TEXTS)))]
    table = saved(tmp_path / "t.parquet", key=ids, message=TEXTS)
    output = tmp_path / "new" / "folder" / "labels.parquet"
    predict_table(classifier, table, output, {"text": "message", "id": "key"})
    labelled = pq.read_table(output)
    assert labelled["id"].to_pylist() == ids
    expected = classifier.predict([{"text": text} for text in TEXTS])
    assert np.allclose(np.stack(labelled["probs"].to_pylist()), expected, atol=1e-5)
    names = [classifier.labels[n] for n in expected.argmax(1)]
    assert labelled["label"].to_pylist() == names
    assert capsys.readouterr().err.endswith(f"9 rows labelled: {output}\n")
    assert [file.name for file in output.parent.iterdir()] == ["labels.parquet"]


def test_a_file_that_is_there_is_replaced(classifier: Classifier, tmp_path: Path) -> None:
    output = tmp_path / "labels.parquet"
    output.write_text("older")
    predict_table(classifier, saved(tmp_path / "t.parquet", text=TEXTS[:2]), output, {})
    assert pq.read_table(output)["id"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pa.array([], pa.string()), "--table: {} has no rows"),
        ([["a list"]], "--table: {}: cannot be read: Unsupported cast from list"),
    ],
)
def test_nothing_is_written_of_a_table_that_cannot_be_read(
    classifier: Classifier, tmp_path: Path, texts: Any, message: str
) -> None:
    table = saved(tmp_path / "t.parquet", text=texts)
    output = tmp_path / "labels.parquet"
    output.write_text("older")
    with pytest.raises(UserError) as error:
        predict_table(classifier, table, output, {})
    assert str(error.value).startswith(message.format(table))
    assert output.read_text() == "older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.parquet", "t.parquet"]


def test_nothing_is_written_when_it_is_stopped(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.sources.BATCH_ROWS", 4)
    predicted = classifier.predict
    calls = []

    def predict(rows: Any) -> Any:
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predicted(rows)

    monkeypatch.setattr(classifier, "predict", predict)
    table = saved(tmp_path / "t.parquet", text=TEXTS)
    with pytest.raises(KeyboardInterrupt):
        predict_table(classifier, table, tmp_path / "labels.parquet", {})
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_an_output_that_cannot_be_written(classifier: Classifier, tmp_path: Path) -> None:
    table = saved(tmp_path / "t.parquet", text=TEXTS)
    output = tmp_path / "t.parquet" / "labels.parquet"
    with pytest.raises(UserError) as error:
        predict_table(classifier, table, output, {})
    assert str(error.value) == f"--output: {table} is a file; name a file in a folder"
