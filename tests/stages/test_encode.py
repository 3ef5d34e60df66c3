"""The tables' rows in every pattern, and their embeddings where those are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Make, inputs_of, planned, result
from testing import CPU, todo

from pet_pipeline import Run
from pet_pipeline.embedding import embed_texts
from pet_pipeline.encoded import read_encoded
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.models import ModelFolder
from pet_pipeline.pretrained import load_tokenizer
from pet_pipeline.stages.results import ENCODED
from pet_pipeline.tables import read_rows, read_scores

EXAMPLES: dict[str, Any] = {"demonstrations": {"enabled": True, "max_tokens": 120}}


def test_rows_are_put_into_every_pattern(
    tiny_settings: Make, tiny_mlm: Path, tiny_tables: dict[str, str]
) -> None:
    settings = tiny_settings(data={"shard_rows": 10, "development": tiny_tables["development"]})
    with Run.open(settings) as run:
        task, inputs = inputs_of(settings, run)
    tokenizer = load_tokenizer(ModelFolder(tiny_mlm))
    root = Path(settings.output) / "prepare"
    for pattern in task.patterns:
        encoder = PatternEncoder(pattern, tokenizer, 48)
        parts = inputs.parts[pattern.name]
        names = ["00000", "00001", "00002", "test", "development"]
        assert [part.name for part in parts] == names
        assert [part.shard for part in parts] == [0, 1, 2, None, None]
        for part in parts:
            file = root / part.name / "table.parquet"
            if part.shard is not None:
                file = root / "pool" / f"part-{part.name}.parquet"
            rows = read_rows(file)
            ids, found = read_encoded(part.encoded.dir / ENCODED)
            assert ids.to_pylist() == [row["id"] for row in rows]
            assert found == encoder.encode(rows)
            assert part.encoded.info == {"rows": len(rows), "tokens": sum(map(len, found))}
            assert part.vectors is None
    assert inputs.vectors is None


def test_texts_are_tokenised_once_per_pattern_and_not_per_model(tiny_settings: Make) -> None:
    one, two = (planned(tiny_settings(finetune={"seeds": seeds})) for seeds in ([1], [1, 2]))
    encoded = [name for name in one if name.startswith("encode/")]
    assert encoded == [name for name in two if name.startswith("encode/")]
    assert len(encoded) == 3 * 2


def test_only_the_inputs_length_reruns_the_encoding(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    longer = todo(tiny_settings(output=output, finetune={"max_tokens": 40}))
    assert [name for name in longer if name.startswith("encode/")] == [
        f"encode/{pattern}-{part}"
        for pattern in ("it_was", "just", "mood")
        for part in ("00000", "test")
    ]
    steps = todo(tiny_settings(output=output, finetune={"steps": 4}))
    assert not [name for name in steps if name.startswith("encode/")]


def test_rows_are_embedded_only_to_draw_similar_demonstrations(tiny_settings: Make) -> None:
    def embedded(**demonstrations: Any) -> list[str]:
        units = planned(tiny_settings(demonstrations=demonstrations))
        return [name for name in units if name.startswith("embed/")]

    assert embedded() == []
    assert embedded(enabled=True, filter=1.0) == []
    assert embedded(enabled=True) == ["embed/00000", "embed/test", "embed/labelled"]


def test_embeddings_are_the_encoders(
    tiny_settings: Make, mlm_of: Callable[[str], Path], tiny_task: Path
) -> None:
    encoder = mlm_of("distilbert")
    demonstrations = {**EXAMPLES["demonstrations"], "encoder": str(encoder)}
    settings = tiny_settings(demonstrations=demonstrations)
    with Run.open(settings) as run:
        _, inputs = inputs_of(settings, run)
    assert inputs.vectors is not None
    assert inputs.vectors.dir.name == "labelled"
    parts = inputs.parts["just"]
    for vectors in (inputs.vectors, *(part.vectors for part in parts)):
        assert vectors is not None
        name = "pool" if vectors.dir.name == "00000" else vectors.dir.name
        (file,) = (Path(settings.output) / "prepare" / name).glob("*.parquet")
        rows = read_rows(file)
        ids, values = read_scores(vectors.dir / "vectors.parquet")
        assert ids.to_pylist() == [row["id"] for row in rows]
        expected = embed_texts(ModelFolder(encoder), rows, ("text",), 48, CPU)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert np.linalg.norm(values, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)


def test_found_patterns_are_checked_when_they_are_known(
    finished: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = finished(
        until="encode",
        finetune={"max_tokens": 9},
        search={"templates": True, "generators": ["connectors"], "keep": 1, "folds": 2, "steps": 1},
    )
    units = planned(settings)
    assert "encode/patterns" in units
    info = result(settings, "encode/patterns").info
    (warning,) = info["warnings"]
    assert info["patterns"] == 1
    assert " by pattern ('found-1' " in warning
    said = capsys.readouterr().err
    assert said.count(f"Checks of the found patterns: 1 warning\n  - {warning}\n") == 1
    assert "encode/patterns" not in planned(finished())
