"""Label words that the masked LM itself would say at a pattern's mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from pet_pipeline.encoded import Role
from pet_pipeline.encoding import LabelWords
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.pvp import Pvp
from pet_pipeline.search.log_probs import log_probs_at
from pet_pipeline.search.vocabulary import Mask, Vocabulary
from pet_pipeline.search.word_search import (
    WORD_SEARCHES,
    WordSearch,
    count_correct,
    group_scores,
)
from pet_pipeline.tables import Floats


@dataclass(frozen=True)
class FoundWords:
    """Words for each label, and how well they do on the rows searched, before any tuning.

    The counts are in-sample: the words were selected by these very rows, so they tell nothing of
    other rows, and weights must not be fitted on them. combinations: assignments of one word to
    each label that were possible; exact: whether all of them were compared
    """

    words: tuple[tuple[str, ...], ...]
    correct: int  # rows searched (in-sample) that the words get right
    own_correct: int  # rows searched that the pattern's own words get right
    rows: int  # searched
    combinations: int
    exact: bool


def find_label_words(
    pvp: Pvp,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    search: WordSearch,
    *,
    seed: int,
) -> FoundWords:
    """Words for the labels of a pattern, by what the untuned model says at its mask.

    gold: (rows,) label numbers. Raises `UserError` if the labels cannot all have words.
    """
    vocabulary = Vocabulary(pvp.lm.tokenizer)
    tokens = np.flatnonzero(vocabulary.words(pvp.encoder.tokens_at_mask))
    log_probs = mask_log_probs(pvp, rows, tokens)
    allowed = np.ones((pvp.n_labels, len(tokens)), bool)
    if search.neighbours:
        allowed = neighbours(pvp.lm, pvp.encoder.words, tokens, search.neighbours)
    try:
        result = WORD_SEARCHES[search.method](log_probs, gold, allowed, search, seed)
    except ValueError as error:
        raise UserError(
            f"search.label_words: pattern {pvp.encoder.pattern.name!r}: {error}; "
            "raise search.candidates_per_label or search.neighbours"
        ) from None
    own = pvp.scores(rows, what="own label words")
    return FoundWords(
        words=tuple(tuple(vocabulary.texts[tokens[n]] for n in group) for group in result.groups),
        correct=count_correct(group_scores(log_probs, result.groups), gold),
        own_correct=count_correct(own, gold),
        rows=len(gold),
        combinations=result.combinations,
        exact=result.exact,
    )


def mask_log_probs(
    pvp: Pvp, rows: Sequence[Mapping[str, str]], tokens: npt.NDArray[np.int64]
) -> Floats:
    """Log-probabilities (rows, tokens) of some tokens at a single mask in each row's slot."""
    mask = (pvp.lm.layout.mask,)
    single = [row.without(Role.DEMONSTRATION).with_slot(mask) for row in pvp.encoder.encode(rows)]
    return log_probs_at(pvp.lm, single, [row.slot.start for row in single], tokens)


def neighbours(lm: MaskedLM, words: LabelWords, tokens: npt.NDArray[np.int64], count: int) -> Mask:
    """(labels, tokens) True for the tokens nearest to a label's words in the output embedding."""
    decoder = lm.model.get_output_embeddings() or lm.model.get_input_embeddings()
    vectors = functional.normalize(decoder.weight.detach().float(), dim=1)
    near = np.zeros((len(words.tokens), len(tokens)), bool)
    for label, group in enumerate(words.tokens):
        own = torch.stack([vectors[list(word)].mean(0) for word in group])
        similarity = (vectors[torch.from_numpy(tokens)] @ own.T).amax(1)  # (tokens,)
        near[label, similarity.topk(min(count, len(tokens))).indices.cpu().numpy()] = True
    return near
