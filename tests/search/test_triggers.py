"""AutoPrompt: gradients rank replacements, and those that are kept lower the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HAPPY, SAD, sharpened
from torch.nn import functional

from pet_pipeline.config import Machine
from pet_pipeline.encoding import PatternEncoder, collate
from pet_pipeline.mlm import label_scores
from pet_pipeline.patterns import parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.search.infilling import allowed_tokens, gaps_of
from pet_pipeline.search.templates import pattern_of, places
from pet_pipeline.search.triggers import (
    Problem,
    losses_of,
    search_triggers,
    token_slopes,
    trigger_templates,
)
from pet_pipeline.search.vocabulary import Vocabulary

ROWS = [{"x": text} for text in SAD + HAPPY]
GOLD = [0] * 4 + [1] * 4
WORDS = (("bad",), ("great",))
MACHINE = Machine(device="cpu", precision="float32", threads=1, batch_tokens=100)


def problem_of(folder: Path, number: int = 0) -> tuple[Any, Problem, Any]:
    model, tokenizer = sharpened(load_mlm(folder)), load_tokenizer(folder)
    gaps, layout = gaps_of(places(["x"])[number], tokenizer, ROWS, GOLD, WORDS, 64)
    spelled = PatternEncoder(pattern_of("", "x {mask}", ("a", "b"), WORDS), tokenizer, 64).words
    gaps = [replace(gap, word=(layout.mask,)) for gap in gaps]
    return model, Problem(gaps, GOLD, spelled, layout, MACHINE), tokenizer


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "distilbert"])
def test_losses_are_those_of_the_template(mlm_of: Callable[[str], Path], name: str) -> None:
    model, problem, tokenizer = problem_of(mlm_of(name))
    vocabulary = Vocabulary(tokenizer)
    it, was, so = (
        n for n in vocabulary.inside.nonzero()[0] if vocabulary.texts[n] in ("it", "was", "so")
    )
    found = losses_of(model, problem, [[it, was, so], [so, it, was]], 2)
    for tokens, loss in zip(([it, was, so], [so, it, was]), found, strict=True):
        text = [vocabulary.texts[n] for n in tokens]
        template = f"{{x}} {text[0]} {text[1]} {{mask}} {text[2]}"
        encoder = PatternEncoder(pattern_of("", template, ("a", "b"), WORDS), tokenizer, 64)
        rows = encoder.encode(ROWS)
        inputs = collate(rows, encoder.layout)
        slots = torch.tensor([row.slot for row in rows])
        with torch.no_grad():
            scores = label_scores(model, inputs, slots, encoder.words)
        assert loss == pytest.approx(
            float(functional.cross_entropy(scores, torch.tensor(GOLD))), abs=1e-4
        )


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_slopes_are_directional_derivatives(mlm_of: Callable[[str], Path], name: str) -> None:
    model, problem, tokenizer = problem_of(mlm_of(name))
    trigger = [problem.layout.mask] * 2
    slopes = token_slopes(model, problem, trigger, 1, 0)
    assert slopes.shape == (len(tokenizer),)
    embeddings = model.get_input_embeddings()
    token, step = 20, 1e-3

    def moved(size: float) -> float:
        """The loss with the trigger's first embedding moved towards a token's."""

        def move(_module: Any, args: Any, output: Any) -> Any:
            output = output.clone()
            for row, gap in enumerate(problem.gaps):
                output[row, gap.position(0, 1)] += size * embeddings.weight[token]
            return output

        rows = problem.inputs(trigger, 1)
        hook = embeddings.register_forward_hook(move)
        try:
            with torch.no_grad():
                slots = torch.tensor([row.slot for row in rows])
                inputs = collate(rows, problem.layout)
                scores = label_scores(model.double(), inputs, slots, problem.words)
                return float(functional.cross_entropy(scores.double(), torch.tensor(GOLD)))
        finally:
            hook.remove()

    expected = (moved(step) - moved(-step)) / (2 * step)
    assert slopes[token] == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_a_search_lowers_the_loss(tiny_mlm: Path) -> None:
    model, problem, tokenizer = problem_of(tiny_mlm)
    allowed = allowed_tokens(Vocabulary(tokenizer), WORDS)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    open_loss = losses_of(model, problem, [[problem.layout.mask] * 3], 2)[0]
    seen = search_triggers(model, problem, allowed, 2, 1, begins=False)
    assert min(seen.values()) < open_loss
    for tokens, loss in list(seen.items())[:5]:
        assert losses_of(model, problem, [list(tokens)], 2)[0] == pytest.approx(loss, abs=1e-5)
    assert all(set(tokens) <= set(allowed.tokens.tolist()) for tokens in seen)
    assert search_triggers(model, problem, allowed, 2, 1, begins=False) == seen
    for name, p in model.state_dict().items():
        assert torch.equal(p, weights[name])


def test_templates_of_every_place(tiny_mlm: Path) -> None:
    model, tokenizer = load_mlm(tiny_mlm), load_tokenizer(tiny_mlm)
    rows = [{"x": row["x"], "y": "and so on"} for row in ROWS]
    found = trigger_templates(
        model, tokenizer, rows, GOLD, ["x", "y"], WORDS, max_tokens=64, machine=MACHINE
    )
    assert [len(group) > 5 for group in found] == [True] * 3
    for candidate in (c for group in found for c in group):
        own = " ".join(p for p in parse_template(candidate.template) if isinstance(p, str))
        assert not {"bad", "great"} & set(own.split())
        assert np.isfinite(candidate.score)
