"""Which tokens are predicted, and what stands in their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing import CPU

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import pattern_of

SHARED = [HealthCheck.function_scoped_fixture]
ROWS = [{"text": "the film was long"}, {"text": "nice"}, {"text": "a very good day and more of it"}]
LONG = (("come back", "great"), ("never come back", "bad", "in other words"))
TEMPLATES = ["{text} so {mask} {sep} the end", "{mask}: {text}", "{demos} {text} {mask}"]


@pytest.fixture(scope="module")
def lm(tiny_mlm: Path) -> MaskedLM:
    return MaskedLM.load(ModelFolder(tiny_mlm), CPU)


def encoder(lm: MaskedLM, template: str) -> PatternEncoder:
    return PatternEncoder(pattern_of("p", template, ("a", "b"), LONG), lm.tokenizer, 48)


@settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
@given(
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.sampled_from(TEMPLATES),
    st.lists(st.sampled_from(["", "[MASK] [SEP]", "the film", "nice day"]), max_size=4),
)
def test_only_texts_and_words_of_the_template_are_predicted(
    lm: MaskedLM, seed: int, fraction: float, template: str, texts: list[str]
) -> None:
    soft = Encoded.of([7, 8], Role.SOFT)
    rows = [
        row.splice(slice(1, 1), soft)
        for row in encoder(lm, template).encode([{"text": text} for text in texts])
    ]
    masked = lm.masking(fraction).texts(rows, np.random.default_rng(seed))
    allowed = {int(Role.TEXT), int(Role.TEMPLATE)}
    for text in masked:
        assert {text.row.roles[n] for n in text.positions} <= allowed
        assert len(text.positions) == len(text.targets) == len(set(text.positions.tolist())) > 0
        ids = np.array(text.row.ids)
        ids[text.positions] = text.targets
        assert replace(text.row, ids=tuple(ids.tolist())) in rows  # nothing else is changed
    assert bool(masked) == any(allowed & set(row.roles) for row in rows)


def test_all_of_the_text_is_predicted_by_a_fraction_of_1(lm: MaskedLM) -> None:
    rows = encoder(lm, TEMPLATES[0]).encode(ROWS)
    masked = lm.masking(1.0).texts(rows, np.random.default_rng(0))
    special = {lm.tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]")}
    for row, text in zip(rows, masked, strict=True):
        assert text.positions.tolist() == [n for n, i in enumerate(row.ids) if i not in special]
        assert text.targets.tolist() == [i for i in row.ids if i not in special]


def test_without_a_token_to_predict_there_is_nothing(lm: MaskedLM) -> None:
    rows = encoder(lm, "{text} {mask}").encode([{"text": ""}] * 3)
    assert lm.masking(1.0).texts(rows, np.random.default_rng(0)) == []
    assert lm.masking(1.0).texts([], np.random.default_rng(0)) == []


def test_a_fraction_of_the_tokens_is_masked(lm: MaskedLM) -> None:
    rows = [Encoded.of([7] * 100, Role.TEXT)] * 100
    masked = lm.masking(0.15).texts(rows, np.random.default_rng(0))
    tokens = np.array([text.row.ids[n] for text in masked for n in text.positions])
    assert len(tokens) == pytest.approx(1500, abs=150)
    assert (tokens == lm.layout.mask).mean() == pytest.approx(0.8, abs=0.03)
    assert (tokens == 7).mean() == pytest.approx(0.1, abs=0.03)
    assert len(set(tokens.tolist())) > 50
    assert tokens.max() < 206
