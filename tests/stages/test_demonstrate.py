"""Demonstrations in a run: drawn from the labelled rows, never from a row for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import QUICK, Make, planned, result
from testing import CPU, run, todo

from pet_pipeline import embedding, load_task
from pet_pipeline.demonstrations import NO_ROW
from pet_pipeline.embedding import embed_texts
from pet_pipeline.models import ModelFolder
from pet_pipeline.pvp import Pvp
from pet_pipeline.stages.demonstrate import Examples, demonstrate, read_vectors, say_room
from pet_pipeline.tables import read_rows, read_scores

EXAMPLES: dict[str, Any] = {"enabled": True, "draws": 2, "max_tokens": 120}


def scores(settings: Any, model: str) -> np.ndarray:
    file = Path(settings.output) / "gen-0" / "annotate" / f"{model}-test" / "scores.parquet"
    return read_scores(file)[1]


def test_demonstrations_in_a_whole_run(finished: Make, tiny_settings: Make) -> None:
    settings = tiny_settings(demonstrations=EXAMPLES)
    run(settings)
    assert todo(settings) == []
    root = Path(settings.output)
    for name in ("it_was-1", "just-1", "mood-1"):
        assert result(settings, f"gen-0/finetune/{name}").info["demonstrations"] == 2
    plain = finished()
    assert np.abs(scores(settings, "it_was-1") - scores(plain, "it_was-1")).max() > 1e-3
    assert (root / "embed" / "00000").exists()
    assert not (Path(plain.output) / "embed").exists()
    assert "demonstrations" in (root / "report/index.html").read_text()
    more = tiny_settings(demonstrations={**EXAMPLES, "draws": 3})
    assert todo(more)[0] == "gen-0/annotate/it_was-1-00000"  # tuning does not depend on the draws


def test_settings_of_demonstrations_count_only_with_them(
    finished: Make, tiny_settings: Make
) -> None:
    unused = {"draws": 9, "filter": 0.1, "max_tokens": 99}
    assert todo(tiny_settings(output=finished().output, demonstrations=unused)) == ["report"]


def test_an_encoder_of_ones_own_compares_the_rows(
    tiny_settings: Make, mlm_of: Callable[[str], Path]
) -> None:
    encoder = str(mlm_of("distilbert"))
    settings = tiny_settings(demonstrations={**EXAMPLES, "encoder": encoder}, **QUICK)
    unit = planned(settings)["gen-0/finetune/just-1"].unit
    assert unit.examples.encoder == ModelFolder(Path(encoder))
    run(settings, until="annotate")
    vectors = read_vectors(result(settings, "embed/labelled"))
    assert vectors is not None
    assert vectors.shape == (8, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert read_vectors(None) is None


@pytest.fixture
def examples(finished: Make, tiny_mlm: Path) -> Examples:
    return Examples(
        labelled=result(finished(), "prepare/labelled"),
        columns=("text",),
        encoder=ModelFolder(tiny_mlm),
        fraction=0.5,
        max_tokens=120,
        text_tokens=48,
    )


@pytest.fixture
def pvp(finished: Make, tiny_mlm: Path) -> Pvp:
    pattern = load_task(finished().task).patterns[0]
    return Pvp.load(ModelFolder(tiny_mlm), pattern, max_tokens=48, compute=CPU)


def labelled_rows(examples: Examples) -> list[dict[str, Any]]:
    return read_rows(examples.labelled.dir / "table.parquet")


def test_without_examples_rows_are_only_put_into_the_pattern(pvp: Pvp, examples: Examples) -> None:
    rows = labelled_rows(examples)
    ready = demonstrate(pvp, None, rows, range(8), draws=1, compute=CPU)
    assert ready.encoded == pvp.encoder.encode(rows)
    assert ready.vectors is ready.support is pvp.demonstrations is None


def test_training_rows_are_shown_others_of_the_support(pvp: Pvp, examples: Examples) -> None:
    rows = labelled_rows(examples)
    added = [{"id": 9, "text": "a new text"}]
    support = [0, 1, 4, 5, 6]  # the others are held out
    ready = demonstrate(pvp, examples, rows + added, support, draws=1, compute=CPU)
    assert ready.support == [0, 1, NO_ROW, NO_ROW, 2, 3, 4, NO_ROW, NO_ROW]
    assert pvp.demonstrations is not None
    for seed in range(20):
        drawn = pvp.demonstrations.draw(ready, seed)
        assert set(drawn[:, 0]) <= {0, 1}
        assert set(drawn[:, 1]) <= {2, 3, 4}
        for row, numbers in enumerate(ready.support):
            assert numbers not in drawn[row] or numbers == NO_ROW
    expected = embed_texts(examples.encoder, rows + added, ("text",), 48, CPU)
    assert ready.vectors == pytest.approx(expected, abs=1e-5)


def test_rows_are_not_embedded_if_all_are_alike(
    pvp: Pvp, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "embed_texts", None)
    rows = labelled_rows(examples)
    ready = demonstrate(pvp, replace(examples, fraction=1), rows, range(8), draws=1, compute=CPU)
    assert ready.vectors is None


def test_lack_of_room_is_said(
    pvp: Pvp, examples: Examples, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = labelled_rows(examples)
    ready = demonstrate(pvp, examples, rows, range(8), draws=1, compute=CPU)
    assert say_room(pvp, ready, 0, "here") == 2
    assert capsys.readouterr().err == ""
    tight = replace(examples, max_tokens=24)
    ready = demonstrate(pvp, tight, rows, range(8), draws=1, compute=CPU)
    count = say_room(pvp, ready, 0, "here")
    assert count < 2
    assert (
        f"here: {count:.1f} of 2.0 demonstrations fit into an input, other draws show other "
        "labels; a higher demonstrations.max_tokens makes room for more"
    ) in capsys.readouterr().err
