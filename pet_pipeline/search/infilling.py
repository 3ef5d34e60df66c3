"""Templates that the masked LM itself writes: masks around the slot, filled by a beam search.

The objective is that of LM-BFF (2012.15723, section 5.2), the mean over the labelled rows of the
log-probability of the template's tokens given the row and its label word, here of an MLM whose
other masks are still open; divided by their number, so that lengths can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pet_pipeline.batches import cut_batches
from pet_pipeline.config import Machine
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, Layout, PatternEncoder, collate
from pet_pipeline.mlm import token_logits
from pet_pipeline.pretrained import autocast, device_of
from pet_pipeline.progress import progress
from pet_pipeline.search.templates import Candidate, Place, Words, pattern_of, places, usable
from pet_pipeline.search.vocabulary import Mask, Vocabulary

MOST_MASKS = 3  # on each side of the slot


@dataclass(frozen=True)
class Gap:
    """A labelled row around its slot, and its label word's tokens."""

    row: Encoded  # with one mask in the slot
    word: tuple[int, ...]

    def opened(self, left: Sequence[int], right: Sequence[int]) -> Encoded:
        """The row with tokens, or masks, on both sides of its label word."""
        inner = (*left, *self.word, *right)
        wide = self.row.with_masks(1, len(inner), 0)
        end = wide.slot + len(inner)
        return replace(wide, ids=wide.ids[: wide.slot] + inner + wide.ids[end:])

    def position(self, target: int, n_left: int) -> int:
        """Where the target-th of the tokens around the word is in the opened row."""
        return self.row.slot + target + (len(self.word) if target >= n_left else 0)


@dataclass(frozen=True)
class Allowed:
    """Tokens that may stand around a slot; the masks are True for those of a kind."""

    tokens: npt.NDArray[np.int64]  # their ids
    first: Mask  # words that begin an input
    inside: Mask  # words behind a space
    attached: Mask  # punctuation at the end of a word

    def at(self, target: int, n_left: int, so_far: Sequence[int], begins: bool) -> Mask:
        """True for the tokens that may come next; so_far: indices into `tokens`."""
        if target == 0 and begins:
            return self.first
        mask = self.inside | self.attached
        if target not in (0, n_left):  # within a side: no word twice, no mark behind a mark
            mask[so_far[-1]] = False
            if self.attached[so_far[-1]]:
                mask &= ~self.attached
        return mask


def infill_templates(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    columns: Sequence[str],
    words: Words,
    *,
    beam: int,
    max_tokens: int,
    machine: Machine,
) -> list[list[Candidate]]:
    """Candidates of each place of the slot, with 1 to 3 tokens on each side of it.

    gold: (rows,) label numbers; words: of each label, the first of which stands in the slot
    """
    vocabulary = Vocabulary(tokenizer)
    allowed = allowed_tokens(vocabulary, words)
    shapes = list(itertools.product(range(1, MOST_MASKS + 1), repeat=2))
    spots = places(columns)
    found: list[list[Candidate]] = [[] for _ in spots]
    with progress("search templates", len(spots) * len(shapes), "shapes") as advance:
        for group, place in zip(found, spots, strict=True):
            gaps, layout = gaps_of(place, tokenizer, rows, gold, words, max_tokens)
            begins = not place.before
            for n_left, n_right in shapes:
                for ids, score in fill_gaps(
                    model, gaps, layout, n_left, n_right, allowed, begins, beam, machine
                ):
                    left, right = (spell(vocabulary, part) for part in (ids[:n_left], ids[n_left:]))
                    if usable(place, left, right, words):
                        group.append(Candidate(place.template(left, right), "mlm", score))
                advance(1)
    return found


def gaps_of(
    place: Place,
    tokenizer: Any,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    words: Words,
    max_tokens: int,
) -> tuple[list[Gap], Layout]:
    """The labelled rows around an empty slot, and the special tokens of the inputs."""
    labels = tuple(str(n) for n in range(len(words)))
    # Words stand left of the slot, whatever its place, so label words begin with a space.
    spelled = PatternEncoder(pattern_of("", "x {mask}", labels, words), tokenizer, max_tokens).words
    pattern = pattern_of("", place.template("", ""), labels, words)
    longest = max(len(word) for word in spelled.words)
    encoder = PatternEncoder(pattern, tokenizer, max_tokens - 2 * MOST_MASKS - longest)
    gaps = []
    for row, label in zip(encoder.encode(rows), gold, strict=True):
        gaps.append(Gap(row.with_masks(encoder.words.n_masks, 1, 0), spelled.tokens[label][0]))
    return gaps, encoder.layout


def allowed_tokens(vocabulary: Vocabulary, words: Words) -> Allowed:
    """All words and punctuation of a vocabulary but the label words."""
    inside, first, attached = vocabulary.inside, vocabulary.first, vocabulary.attached
    usable_anywhere = inside | first | attached
    usable_anywhere[sorted(vocabulary.numbers(list(itertools.chain(*words))))] = False
    tokens = np.flatnonzero(usable_anywhere)
    return Allowed(tokens, first[tokens], inside[tokens], attached[tokens])


@torch.inference_mode()
def fill_gaps(
    model: Any,
    gaps: Sequence[Gap],
    layout: Layout,
    n_left: int,
    n_right: int,
    allowed: Allowed,
    begins: bool,
    beam: int,
    machine: Machine,
) -> list[tuple[list[int], float]]:
    """The best token sequences around the slots and their scores, best first.

    The sequence is written from left to right, the places not yet reached being masks.
    begins: whether the input begins with these tokens
    """
    device = device_of(machine)
    model.to(device).eval()
    beams: list[list[int]] = [[]]
    scores = np.zeros(1)
    for target in range(n_left + n_right):
        step = _step(model, gaps, layout, beams, target, n_left, n_right, allowed, machine)
        barred = [~allowed.at(target, n_left, so_far, begins) for so_far in beams]
        total = np.where(barred, -np.inf, scores[:, None] + step)
        best = np.argsort(-total, axis=None, kind="stable")[:beam]
        best = best[np.isfinite(total.flat[best])]
        owners, chosen = np.unravel_index(best, total.shape)
        beams = [[*beams[b], int(t)] for b, t in zip(owners, chosen, strict=True)]
        scores = total.flat[best]
    length = n_left + n_right
    return [
        (allowed.tokens[so_far].tolist(), float(score) / length)
        for so_far, score in zip(beams, scores, strict=True)
    ]


def spell(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """Tokens as text: words with spaces between them, punctuation at their ends."""
    text = ""
    for n in ids:
        attached = vocabulary.attached[n] or not text
        text += vocabulary.texts[n] if attached else f" {vocabulary.texts[n]}"
    return text


def _step(
    model: Any,
    gaps: Sequence[Gap],
    layout: Layout,
    beams: Sequence[Sequence[int]],
    target: int,
    n_left: int,
    n_right: int,
    allowed: Allowed,
    machine: Machine,
) -> Floats:
    """Mean log-probabilities (beams, allowed tokens) of the next token over the rows."""
    device = device_of(machine)
    inputs, owners = [], []
    for number, so_far in enumerate(beams):
        open_places = [layout.mask] * (n_left + n_right - target)
        tokens = [*allowed.tokens[list(so_far)].tolist(), *open_places]
        inputs += [gap.opened(tokens[:n_left], tokens[n_left:]) for gap in gaps]
        owners += [number] * len(gaps)
    spots = [gap.position(target, n_left) for gap in gaps] * len(beams)
    columns = torch.from_numpy(allowed.tokens).to(device)
    total = torch.zeros(len(beams), len(columns), device=device)
    with autocast(machine, device):
        for batch in cut_batches([len(row.ids) for row in inputs], machine.batch_tokens):
            at = torch.tensor([(n, spots[row]) for n, row in enumerate(batch)], device=device)
            padded = collate([inputs[row] for row in batch], layout, device)
            log_probs = token_logits(model, padded, at).log_softmax(-1)[:, columns]
            total.index_add_(
                0, torch.tensor([owners[row] for row in batch], device=device), log_probs
            )
    return (total / len(gaps)).cpu().double().numpy()
