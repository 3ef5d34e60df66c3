"""Templates found by gradients: trigger tokens that lower the loss most (AutoPrompt, 2010.15980).

One token at a time is replaced: the gradient with respect to its embedding ranks the whole
vocabulary by how much a replacement would lower the loss (equation 2); the likeliest few are
really tried, all of them in the same batches, and the best one stays if it is an improvement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.batches import cut_batches
from pet_pipeline.config import Machine
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, LabelWords, Layout, PatternEncoder, collate
from pet_pipeline.mlm import label_scores
from pet_pipeline.pretrained import autocast, device_of
from pet_pipeline.progress import progress
from pet_pipeline.search.infilling import Allowed, Gap, allowed_tokens, gaps_of, spell
from pet_pipeline.search.templates import Candidate, Words, pattern_of, places, usable
from pet_pipeline.search.vocabulary import Vocabulary

SHAPES = ((1, 1), (2, 1), (3, 1), (2, 2))  # trigger tokens left and right of the slot
SWEEPS = 2  # over all tokens of a template
TRIED = 16  # replacements tried at a time


@dataclass(frozen=True)
class Problem:
    """What triggers are searched for: inputs with gaps, their labels and the label words."""

    gaps: Sequence[Gap]
    gold: Sequence[int]
    words: LabelWords
    layout: Layout
    machine: Machine

    def inputs(self, tokens: Sequence[int], n_left: int) -> list[Encoded]:
        """The rows with trigger tokens around their masks, which begin at each row's slot."""
        opened = [gap.opened(tokens[:n_left], tokens[n_left:]) for gap in self.gaps]
        return [replace(row, slot=row.slot + n_left) for row in opened]


def trigger_templates(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    columns: Sequence[str],
    words: Words,
    *,
    max_tokens: int,
    machine: Machine,
) -> list[list[Candidate]]:
    """Candidates of each place of the slot; the score is minus the log-loss of the labelled rows.

    gold: (rows,) label numbers
    """
    vocabulary = Vocabulary(tokenizer)
    allowed = allowed_tokens(vocabulary, words)
    labels = tuple(str(n) for n in range(len(words)))
    spelled = PatternEncoder(pattern_of("", "x {mask}", labels, words), tokenizer, max_tokens).words
    spots = places(columns)
    found: list[list[Candidate]] = [[] for _ in spots]
    with progress("search triggers", len(spots) * len(SHAPES), "shapes") as advance:
        for group, place in zip(found, spots, strict=True):
            gaps, layout = gaps_of(place, tokenizer, rows, gold, words, max_tokens)
            open_gaps = [replace(gap, word=(layout.mask,) * spelled.n_masks) for gap in gaps]
            problem = Problem(open_gaps, gold, spelled, layout, machine)
            for shape in SHAPES:
                seen = search_triggers(model, problem, allowed, *shape, begins=not place.before)
                for tokens, loss in seen.items():
                    left, right = (
                        spell(vocabulary, part) for part in (tokens[: shape[0]], tokens[shape[0] :])
                    )
                    if usable(place, left, right, words):
                        template = place.template(left, right)
                        group.append(Candidate(template, "autoprompt", -loss))
                advance(1)
    return found


def search_triggers(
    model: Any, problem: Problem, allowed: Allowed, n_left: int, n_right: int, *, begins: bool
) -> dict[tuple[int, ...], float]:
    """All complete triggers that were tried, with their mean losses over the rows."""
    model.to(device_of(problem.machine)).eval()
    mask = problem.layout.mask
    current = [mask] * (n_left + n_right)
    best = losses_of(model, problem, [current], n_left)[0]
    seen: dict[tuple[int, ...], float] = {}
    for _ in range(SWEEPS):
        for target in range(len(current)):
            slope = token_slopes(model, problem, current, n_left, target)[allowed.tokens]
            usable_here = _mask_at(allowed, current, target, n_left, begins)
            ranked = np.argsort(np.where(usable_here, slope, np.inf), kind="stable")[:TRIED]
            options = [
                [*current[:target], int(allowed.tokens[n]), *current[target + 1 :]]
                for n in ranked
                if usable_here[n]
            ]
            losses = losses_of(model, problem, options, n_left)
            for option, loss in zip(options, losses, strict=True):
                if mask not in option:
                    seen[tuple(option)] = float(loss)
            # A mask is no template: it goes even if what takes its place is no better.
            if len(options) and (losses.min() < best or current[target] == mask):
                best, current = losses.min(), options[int(losses.argmin())]
    return seen


@torch.inference_mode()
def losses_of(
    model: Any, problem: Problem, triggers: Sequence[Sequence[int]], n_left: int
) -> Floats:
    """Mean losses (triggers,) over the rows."""
    device = device_of(problem.machine)
    rows = [row for tokens in triggers for row in problem.inputs(tokens, n_left)]
    losses = np.zeros(len(rows))
    with autocast(problem.machine, device):
        for batch in cut_batches([len(row.ids) for row in rows], problem.machine.batch_tokens):
            losses[batch] = _losses(model, problem, [rows[n] for n in batch], batch).cpu().numpy()
    return np.asarray(losses.reshape(len(triggers), -1).mean(1))


def token_slopes(
    model: Any, problem: Problem, trigger: Sequence[int], n_left: int, target: int
) -> Floats:
    """First-order change (vocabulary,) of the loss if a trigger token were another one."""
    device = device_of(problem.machine)
    rows = problem.inputs(trigger, n_left)
    spots = [gap.position(target, n_left) for gap in problem.gaps]
    embedded: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    embeddings = model.get_input_embeddings()
    hook = embeddings.register_forward_hook(keep)
    slope = torch.zeros(embeddings.weight.shape[1], device=device)
    try:
        for batch in cut_batches([len(row.ids) for row in rows], problem.machine.batch_tokens):
            embedded.clear()
            with torch.enable_grad(), autocast(problem.machine, device):
                loss = _losses(model, problem, [rows[n] for n in batch], batch).sum() / len(rows)
            (gradient,) = torch.autograd.grad(loss, embedded[0])
            at = torch.arange(len(batch)), torch.tensor([spots[n] for n in batch])
            slope += gradient[at].sum(0).float()
    finally:
        hook.remove()
    found: Floats = (embeddings.weight.detach() @ slope).cpu().numpy()
    return found


def _losses(
    model: Any, problem: Problem, rows: Sequence[Encoded], numbers: Sequence[int]
) -> Tensor:
    device = device_of(problem.machine)
    slots = torch.tensor([row.slot for row in rows], device=device)
    gold = torch.tensor([problem.gold[n % len(problem.gold)] for n in numbers], device=device)
    scores = label_scores(model, collate(rows, problem.layout, device), slots, problem.words)
    return functional.cross_entropy(scores, gold, reduction="none")


def _mask_at(
    allowed: Allowed, current: Sequence[int], target: int, n_left: int, begins: bool
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for the allowed tokens that fit between the trigger's other tokens."""
    places = {int(token): n for n, token in enumerate(allowed.tokens)}
    before = [places.get(token, -1) for token in current[:target]]
    same_side = target not in (0, n_left)
    if same_side and before[-1] < 0:  # an open mask in front: nothing to fit to
        return allowed.inside | allowed.attached
    fits = allowed.at(target, n_left, before, begins)
    following = current[target + 1] if target + 1 < len(current) and target + 1 != n_left else -1
    behind = places.get(following, -1)
    if behind >= 0:
        fits = fits.copy()
        fits[behind] = False
        if allowed.attached[behind]:
            fits &= ~allowed.attached
    return fits
