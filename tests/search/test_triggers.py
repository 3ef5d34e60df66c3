"""AutoPrompt: gradients rank replacements, and those that are kept lower the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testing import CPU, HAPPY, SAD, sharpened
from torch.nn import functional

from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import parse_template, pattern_of
from pet_pipeline.search.infilling import Shape, allowed_tokens
from pet_pipeline.search.templates import LabelledTexts, locations
from pet_pipeline.search.triggers import (
    Problem,
    losses_of,
    search_triggers,
    token_gradients,
    trigger_templates,
)
from pet_pipeline.search.vocabulary import Vocabulary

ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4
WORDS = (("bad",), ("great",))
TEXTS = LabelledTexts(ROWS, GOLD, ["x"], WORDS)


def load(folder: Path) -> MaskedLM:
    return MaskedLM.load(ModelFolder(folder), replace(CPU, batch_tokens=100))


def problem_of(folder: Path, number: int = 0) -> Problem:
    lm = load(folder)
    sharpened(lm.model)
    return Problem.of(lm, locations(["x"])[number], TEXTS, 64)


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "distilbert"])
def test_losses_are_those_of_the_template(mlm_of: Callable[[str], Path], name: str) -> None:
    problem = problem_of(mlm_of(name))
    vocabulary = Vocabulary(problem.lm.tokenizer)
    it, was, so = (
        n for n in vocabulary.inside.nonzero()[0] if vocabulary.texts[n] in ("it", "was", "so")
    )
    found = losses_of(problem, [[it, was, so], [so, it, was]], 2)
    for tokens, loss in zip(([it, was, so], [so, it, was]), found, strict=True):
        text = [vocabulary.texts[n] for n in tokens]
        pattern = pattern_of("", f"{{x}} {text[0]} {text[1]} {{mask}} {text[2]}", ("a", "b"), WORDS)
        encoder = PatternEncoder(pattern, problem.lm.tokenizer, 64)
        with torch.no_grad():
            scores = problem.lm.label_scores(encoder.encode(ROWS), encoder.words)
        assert loss == pytest.approx(
            float(functional.cross_entropy(scores, torch.tensor(GOLD))), abs=1e-4
        )


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_gradients_are_directional_derivatives(mlm_of: Callable[[str], Path], name: str) -> None:
    problem = problem_of(mlm_of(name))
    model = problem.lm.model
    trigger = [problem.lm.layout.mask] * 2
    gradients = token_gradients(problem, trigger, 1, 0)
    assert gradients.shape == (len(problem.lm.tokenizer),)
    embeddings = model.get_input_embeddings()
    token, step = 20, 1e-3

    def moved(size: float) -> float:
        """The loss with the trigger's first embedding moved towards a token's."""

        def move(_module: Any, args: Any, output: Any) -> Any:
            output = output.clone()
            for row, gap in enumerate(problem.gaps):
                output[row, gap.position(0, 1)] += size * embeddings.weight[token]
            return output

        rows = problem.rows(trigger, 1)
        hook = embeddings.register_forward_hook(move)
        try:
            with torch.no_grad():
                model.double()
                scores = problem.lm.label_scores(rows, problem.words)
                return float(functional.cross_entropy(scores.double(), torch.tensor(GOLD)))
        finally:
            hook.remove()

    expected = (moved(step) - moved(-step)) / (2 * step)
    assert gradients[token] == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_a_search_lowers_the_loss(tiny_mlm: Path) -> None:
    problem = problem_of(tiny_mlm)
    model = problem.lm.model
    allowed = allowed_tokens(Vocabulary(problem.lm.tokenizer), WORDS)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    open_loss = losses_of(problem, [[problem.lm.layout.mask] * 3], 2)[0]
    seen = search_triggers(problem, allowed, Shape(2, 1))
    assert min(seen.values()) < open_loss
    for tokens, loss in list(seen.items())[:5]:
        assert losses_of(problem, [list(tokens)], 2)[0] == pytest.approx(loss, abs=1e-5)
    assert all(set(tokens) <= set(allowed.tokens.tolist()) for tokens in seen)
    assert search_triggers(problem, allowed, Shape(2, 1)) == seen
    for name, p in model.state_dict().items():
        assert torch.equal(p, weights[name])


def test_nothing_is_tried_where_nothing_fits(tiny_mlm: Path) -> None:
    problem = problem_of(tiny_mlm)
    allowed = allowed_tokens(Vocabulary(problem.lm.tokenizer), WORDS)
    nothing = replace(
        allowed, **{kind: np.zeros_like(allowed.first) for kind in ("first", "inside", "attached")}
    )
    assert search_triggers(problem, nothing, Shape(1, 1)) == {}


def test_templates_of_every_location(tiny_mlm: Path) -> None:
    rows = [{"x": row["x"], "y": "and so on"} for row in ROWS]
    texts = LabelledTexts(rows, GOLD, ["x", "y"], WORDS)
    found = trigger_templates(load(tiny_mlm), texts, max_tokens=64)
    assert [len(group) > 5 for group in found] == [True] * 3
    for candidate in (c for group in found for c in group):
        own = " ".join(p for p in parse_template(candidate.template) if isinstance(p, str))
        assert not {"bad", "great"} & set(own.split())
        assert np.isfinite(candidate.score)
