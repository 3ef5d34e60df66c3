"""Templates that the masked LM itself writes: masks around the slot, filled by a beam search.

The objective is that of LM-BFF (2012.15723, section 5.2), the mean over the labelled rows of the
log-probability of the template's tokens given the row and its label word, here of an MLM whose
other masks are still open; divided by their number, so that lengths can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import LabelWords, PatternEncoder, Tokenizer
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.patterns import pattern_of
from pet_pipeline.progress import progress
from pet_pipeline.search.log_probs import log_probs_at
from pet_pipeline.search.templates import (
    Candidate,
    LabelledTexts,
    Location,
    Words,
    locations,
    usable,
)
from pet_pipeline.search.vocabulary import Mask, Vocabulary
from pet_pipeline.tables import Floats

MOST_MASKS = 3  # on each side of the slot


@dataclass(frozen=True)
class Gap:
    """A labelled row around its slot, and the tokens of the word that goes there."""

    row: Encoded  # with one token in the slot
    word: tuple[int, ...]

    def opened(self, left: Sequence[int], right: Sequence[int]) -> Encoded:
        """The row with the word in its slot, and template tokens, or masks, on both sides of it."""
        slot = self.row.slot
        segment = self.row.segments[slot.start]
        inner = Encoded.of(left, Role.TEMPLATE, segment)
        inner += Encoded.of(self.word, Role.MASK, segment)
        inner += Encoded.of(right, Role.TEMPLATE, segment)
        return self.row.splice(slot, inner)

    def position(self, target: int, n_left: int) -> int:
        """The position, in the opened row, of the target-th of the tokens around the word."""
        return self.row.slot.start + target + (len(self.word) if target >= n_left else 0)


@dataclass(frozen=True)
class Shape:
    """How many tokens are written on each side of the slot, and whether they begin the input."""

    left: int
    right: int
    begins: bool = False

    @property
    def size(self) -> int:
        """Tokens on both sides."""
        return self.left + self.right


@dataclass(frozen=True)
class Allowed:
    """Tokens that may be written around a slot; the masks are True for those of a kind."""

    tokens: npt.NDArray[np.int64]  # their ids
    first: Mask  # words that begin an input
    inside: Mask  # words after a space
    attached: Mask  # punctuation at the end of a word

    def at(self, target: int, shape: Shape, so_far: Sequence[int]) -> Mask:
        """True for the tokens that may come next; so_far: indices into `tokens`."""
        if target == 0 and shape.begins:
            return self.first
        mask = self.inside | self.attached
        if target not in (0, shape.left):  # within a side: no word twice, no mark after a mark
            mask[so_far[-1]] = False
            if self.attached[so_far[-1]]:
                mask &= ~self.attached
        return mask


def infill_templates(
    lm: MaskedLM, texts: LabelledTexts, *, beam: int, max_tokens: int
) -> list[list[Candidate]]:
    """Candidates of each location of the slot, with 1 to 3 tokens on each side of it."""
    vocabulary = Vocabulary(lm.tokenizer)
    allowed = allowed_tokens(vocabulary, texts.words)
    sizes = list(itertools.product(range(1, MOST_MASKS + 1), repeat=2))
    where = locations(texts.columns)
    groups: list[list[Candidate]] = [[] for _ in where]
    with progress("search templates", len(where) * len(sizes), "shapes") as advance:
        for group, location in zip(groups, where, strict=True):
            gaps = gaps_of(location, texts, lm, max_tokens)
            for n_left, n_right in sizes:
                shape = Shape(n_left, n_right, location.begins)
                for ids, score in fill_gaps(lm, gaps, shape, allowed, beam):
                    left, right = vocabulary.text_of(ids[:n_left]), vocabulary.text_of(ids[n_left:])
                    if usable(location, left, right, texts.words):
                        template = location.template(left, right)
                        group.append(Candidate(template, "mlm", score))
                advance(1)
    return groups


def words_after_space(texts: LabelledTexts, tokenizer: Tokenizer) -> LabelWords:
    """The tokens of the label words after a space, which is how they follow a written word."""
    pattern = pattern_of("", "x {mask}", texts.labels, texts.words)
    return PatternEncoder(pattern, tokenizer, 0).words


def gaps_of(location: Location, texts: LabelledTexts, lm: MaskedLM, max_tokens: int) -> list[Gap]:
    """The labelled rows around a slot, with room for the longest template around it."""
    # What is written is left of the slot, wherever that is, so label words begin with a space.
    words = words_after_space(texts, lm.tokenizer)
    pattern = pattern_of("", location.template("", ""), texts.labels, texts.words)
    room = max_tokens - 2 * MOST_MASKS - words.n_masks
    rows = PatternEncoder(pattern, lm.tokenizer, room).encode(texts.rows)
    return [
        Gap(row.with_slot((lm.layout.mask,)), words.tokens[label][0])
        for row, label in zip(rows, texts.gold, strict=True)
    ]


def allowed_tokens(vocabulary: Vocabulary, words: Words) -> Allowed:
    """All words and punctuation of a vocabulary but the label words."""
    inside, first, attached = vocabulary.inside, vocabulary.first, vocabulary.attached
    usable_anywhere = inside | first | attached
    usable_anywhere[sorted(vocabulary.numbers(itertools.chain(*words)))] = False
    tokens = np.flatnonzero(usable_anywhere)
    return Allowed(tokens, first[tokens], inside[tokens], attached[tokens])


def fill_gaps(
    lm: MaskedLM, gaps: Sequence[Gap], shape: Shape, allowed: Allowed, beam: int
) -> list[tuple[list[int], float]]:
    """The best token sequences around the slots and their scores, best first, at most `beam`.

    A sequence is written from left to right; the positions not yet reached are masks.
    """
    beams: list[list[int]] = [[]]
    scores = np.zeros(1)
    for target in range(shape.size):
        if not beams:  # no token is allowed
            return []
        barred = [~allowed.at(target, shape, so_far) for so_far in beams]
        step = _next_log_probs(lm, gaps, shape, allowed, beams)
        total = np.where(barred, -np.inf, scores[:, None] + step)
        best = np.argsort(-total, axis=None, kind="stable")[:beam]
        best = best[np.isfinite(total.flat[best])]
        owners, tokens = np.unravel_index(best, total.shape)
        beams = [[*beams[b], int(t)] for b, t in zip(owners, tokens, strict=True)]
        scores = total.flat[best]
    return [
        (allowed.tokens[so_far].tolist(), float(score) / shape.size)
        for so_far, score in zip(beams, scores, strict=True)
    ]


def _next_log_probs(
    lm: MaskedLM,
    gaps: Sequence[Gap],
    shape: Shape,
    allowed: Allowed,
    beams: Sequence[Sequence[int]],
) -> Floats:
    """Mean log-probabilities (beams, allowed tokens) of the next token over the rows, float64."""
    target = len(beams[0])
    rows = []
    for so_far in beams:
        masks = [lm.layout.mask] * (shape.size - target)
        tokens = [*allowed.tokens[list(so_far)].tolist(), *masks]
        rows += [gap.opened(tokens[: shape.left], tokens[shape.left :]) for gap in gaps]
    positions = [gap.position(target, shape.left) for gap in gaps] * len(beams)
    log_probs = log_probs_at(lm, rows, positions, allowed.tokens)  # (beams * rows, tokens)
    by_beam = log_probs.reshape(len(beams), len(gaps), -1)
    return np.asarray(by_beam.mean(1, dtype=np.float64))
