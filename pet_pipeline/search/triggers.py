"""Templates found by gradients: trigger tokens that lower the loss most (AutoPrompt, 2010.15980).

One token at a time is replaced: the gradient with respect to its embedding ranks the whole
vocabulary by how much a replacement would lower the loss (equation 2); the top few are really
tried, all of them in the same batches, and the best one stays if it is an improvement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import cut_batches
from pet_pipeline.encoded import Encoded
from pet_pipeline.encoding import LabelWords
from pet_pipeline.inference import autocast
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.progress import progress
from pet_pipeline.search.infilling import (
    Allowed,
    Gap,
    Shape,
    allowed_tokens,
    gaps_of,
    words_after_space,
)
from pet_pipeline.search.templates import Candidate, LabelledTexts, Location, locations, usable
from pet_pipeline.search.vocabulary import Mask, Vocabulary
from pet_pipeline.tables import Floats

SIZES = ((1, 1), (2, 1), (3, 1), (2, 2))  # trigger tokens left and right of the slot
SWEEPS = 2  # over all tokens of a template
TRIED = 16  # replacements tried at a time


@dataclass(frozen=True)
class Problem:
    """What triggers are searched for: a model, inputs with gaps, their labels and label words."""

    lm: MaskedLM
    gaps: Sequence[Gap]  # whose word is the masks
    gold: Sequence[int]
    words: LabelWords

    @classmethod
    def of(cls, lm: MaskedLM, location: Location, texts: LabelledTexts, max_tokens: int) -> Problem:
        """The search at one location of the slot."""
        words = words_after_space(texts, lm.tokenizer)
        masks = (lm.layout.mask,) * words.n_masks
        gaps = gaps_of(location, texts, lm, max_tokens)
        return cls(lm, [replace(gap, word=masks) for gap in gaps], texts.gold, words)

    def rows(self, trigger: Sequence[int], n_left: int) -> list[Encoded]:
        """The rows with trigger tokens around their slots."""
        return [gap.opened(trigger[:n_left], trigger[n_left:]) for gap in self.gaps]

    def losses(self, rows: Sequence[Encoded], numbers: Sequence[int]) -> Tensor:
        """Cross-entropies (numbers,) of some of the rows, which are those of whole triggers."""
        gold = [self.gold[n % len(self.gold)] for n in numbers]
        scores = self.lm.label_scores([rows[n] for n in numbers], self.words)
        targets = torch.tensor(gold, device=self.lm.device)
        return functional.cross_entropy(scores, targets, reduction="none")


def trigger_templates(
    lm: MaskedLM, texts: LabelledTexts, *, max_tokens: int
) -> list[list[Candidate]]:
    """Candidates of each location of the slot; the score is minus the rows' mean log-loss."""
    vocabulary = Vocabulary(lm.tokenizer)
    allowed = allowed_tokens(vocabulary, texts.words)
    where = locations(texts.columns)
    groups: list[list[Candidate]] = [[] for _ in where]
    with progress("search triggers", len(where) * len(SIZES), "shapes") as advance:
        for group, location in zip(groups, where, strict=True):
            problem = Problem.of(lm, location, texts, max_tokens)
            for n_left, n_right in SIZES:
                shape = Shape(n_left, n_right, location.begins)
                for ids, loss in search_triggers(problem, allowed, shape).items():
                    left, right = vocabulary.text_of(ids[:n_left]), vocabulary.text_of(ids[n_left:])
                    if usable(location, left, right, texts.words):
                        template = location.template(left, right)
                        group.append(Candidate(template, "autoprompt", -loss))
                advance(1)
    return groups


def search_triggers(
    problem: Problem, allowed: Allowed, shape: Shape
) -> dict[tuple[int, ...], float]:
    """All complete triggers that were tried, with their mean losses over the rows."""
    mask = problem.lm.layout.mask
    current = [mask] * shape.size
    best = losses_of(problem, [current], shape.left)[0]
    seen: dict[tuple[int, ...], float] = {}
    for target in [*range(shape.size)] * SWEEPS:
        options = _replacements(problem, allowed, shape, current, target)
        losses = losses_of(problem, options, shape.left)
        for option, loss in zip(options, losses, strict=True):
            if mask not in option:
                seen[tuple(option)] = float(loss)
        # A mask is not a template: it goes even if what replaces it is no better.
        if options and (losses.min() < best or current[target] == mask):
            best, current = losses.min(), options[int(losses.argmin())]
    return seen


def losses_of(problem: Problem, triggers: Sequence[Sequence[int]], n_left: int) -> Floats:
    """Mean losses (triggers,) over the rows."""
    rows = [row for trigger in triggers for row in problem.rows(trigger, n_left)]
    losses = problem.lm.read(rows, lambda batch: problem.losses(rows, batch))
    by_trigger = losses.reshape(len(triggers), len(problem.gaps))
    return np.asarray(by_trigger.mean(1, dtype=np.float64))


def token_gradients(problem: Problem, trigger: Sequence[int], n_left: int, target: int) -> Floats:
    """First-order change (vocabulary,) of the loss if one token of a trigger were another."""
    lm = problem.lm
    rows = problem.rows(trigger, n_left)
    positions = [gap.position(target, n_left) for gap in problem.gaps]
    embeddings = lm.model.to(lm.device).eval().get_input_embeddings()
    embedded: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = embeddings.register_forward_hook(keep)
    total = torch.zeros(embeddings.weight.shape[1], device=lm.device)
    try:
        for batch in cut_batches([len(row) for row in rows], lm.compute.batch_tokens):
            embedded.clear()
            with torch.enable_grad(), autocast(lm.compute):
                loss = problem.losses(rows, batch).sum() / len(rows)
            (gradient,) = torch.autograd.grad(loss, embedded[0])  # (batch, tokens, dimensions)
            at = torch.arange(len(batch)), torch.tensor([positions[n] for n in batch])
            total += gradient[at].sum(0).float()
    finally:
        hook.remove()
    changes: Floats = (embeddings.weight.detach() @ total).cpu().numpy()
    return changes


def _replacements(
    problem: Problem, allowed: Allowed, shape: Shape, current: Sequence[int], target: int
) -> list[list[int]]:
    """The trigger with each of the tokens at one position that promise to lower the loss most."""
    gradients = token_gradients(problem, current, shape.left, target)[allowed.tokens]
    fits = _fitting(allowed, shape, current, target)
    ranked = np.argsort(np.where(fits, gradients, np.inf), kind="stable")[:TRIED]
    return [
        [*current[:target], int(allowed.tokens[n]), *current[target + 1 :]]
        for n in ranked
        if fits[n]
    ]


def _fitting(allowed: Allowed, shape: Shape, current: Sequence[int], target: int) -> Mask:
    """True for the allowed tokens that fit between the trigger's other tokens."""
    index_of = {int(token): n for n, token in enumerate(allowed.tokens)}
    before = [index_of.get(token, -1) for token in current[:target]]
    same_side = target not in (0, shape.left)
    if same_side and before[-1] < 0:  # an open mask before it: nothing to fit to
        return allowed.inside | allowed.attached
    fits = allowed.at(target, shape, before)
    last = target + 1 in (shape.left, len(current))  # of its side
    following = -1 if last else index_of.get(current[target + 1], -1)
    if following >= 0:
        fits = fits.copy()
        fits[following] = False
        if allowed.attached[following]:
            fits &= ~allowed.attached
    return fits
