"""What a PVP says: averaged over draws, without the labels' prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HAPPY, SAD, sharpened
from scipy.special import log_softmax, softmax

from pet_pipeline.config import Machine
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.inference import score_rows
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.scoring import Draws, content_free_rows, log_prior, score_pvp
from pet_pipeline.search.demonstrations import Demonstrations, Support
from pet_pipeline.search.templates import pattern_of

MACHINE = Machine(device="cpu", precision="float32", threads=1)
ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4


@pytest.fixture
def parts(tiny_mlm: Path) -> tuple[Any, PatternEncoder, Draws]:
    words = (("bad",), ("great", "good"))
    pattern = pattern_of("p", "{x} it was {mask}.", ("sad", "happy"), words)
    encoder = PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)
    demonstrations = Demonstrations(encoder, ROWS, Support(GOLD, 2), 120)
    return sharpened(load_mlm(tiny_mlm)), encoder, Draws(demonstrations, 3, seed=5, own=range(8))


def test_scores_are_the_mean_over_the_draws(parts: tuple[Any, PatternEncoder, Draws]) -> None:
    model, encoder, draws = parts
    rows = encoder.encode(ROWS)
    each = []
    for number in range(3):
        shown = draws.shown(rows, number)
        assert (shown.count, shown.left_out) == (2, 0)
        each.append(
            score_rows(model, shown.rows, encoder.layout, encoder.words, machine=MACHINE, what="t")
        )
    found = score_pvp(model, encoder, rows, machine=MACHINE, what="t", draws=draws)
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    assert np.abs(each[0] - each[1]).max() > 1e-3
    plain = score_pvp(model, encoder, rows, machine=MACHINE, what="t")
    assert np.abs(plain - found).max() > 1e-3


def test_some_rows_keep_what_they_are(parts: tuple[Any, PatternEncoder, Draws]) -> None:
    _, encoder, draws = parts
    vectors = np.eye(8)
    some = Draws(draws.demonstrations, 3, 5, vectors, range(8)).of([6, 2])
    assert some.own == [6, 2]
    assert some.vectors is not None
    assert some.vectors.tolist() == vectors[[6, 2]].tolist()
    anywhere = some.anywhere()
    assert anywhere.own is None
    assert anywhere.vectors is None
    rows = encoder.encode(ROWS)
    show = draws.shown_at(rows)
    assert show([3, 1], 7) == draws.of([3, 1]).shown([rows[3], rows[1]], 7).rows
    assert show([3, 1], 7) != show([3, 1], 8)


def test_normalised_scores_are_log_probabilities(parts: tuple[Any, PatternEncoder, Draws]) -> None:
    model, encoder, _ = parts
    rows = encoder.encode(ROWS)
    plain = score_pvp(model, encoder, rows, machine=MACHINE, what="t")
    found = score_pvp(model, encoder, rows, machine=MACHINE, what="t", normalise=True)
    assert (found < 0).all()
    assert log_softmax(found, axis=1) == pytest.approx(log_softmax(plain, axis=1), abs=1e-4)


def test_priors() -> None:
    scores = np.log(np.array([[0.2, 0.1], [0.4, 0.2]]))
    mean = softmax(scores, axis=1).mean(0)
    assert log_prior(scores, "contextual") == pytest.approx(np.log(mean))
    assert log_prior(scores, "pmi") == pytest.approx(np.log([0.3, 0.15]))
    # A text that says nothing is undecided after it.
    one = scores[:1]
    for kind in ("contextual", "pmi"):
        assert softmax(one - log_prior(one, kind), axis=1) == pytest.approx(np.array([[0.5, 0.5]]))


def test_content_free_rows_fill_every_column() -> None:
    rows = content_free_rows(["a", "b"])
    assert len(rows) >= 3
    assert all(set(row) == {"a", "b"} and row["a"] == row["b"] for row in rows)
