"""Label words that the masked LM itself would say: candidates, and which of them is whose.

LM-BFF (2012.15723, section 5.1) and AMuLaP (2201.05299).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from pet_pipeline.batches import cut_batches
from pet_pipeline.config import Machine, Search
from pet_pipeline.data import Floats
from pet_pipeline.encoding import Encoded, LabelWords, Layout, PatternEncoder, collate
from pet_pipeline.errors import UserError
from pet_pipeline.inference import score_rows
from pet_pipeline.mlm import token_logits
from pet_pipeline.pretrained import autocast, device_of
from pet_pipeline.search.assignment import best_assignment
from pet_pipeline.search.selection import row_losses
from pet_pipeline.search.vocabulary import Mask, Vocabulary

MOST_LIKELY = 1000  # by a label's mean log-probability; rarer words set labels apart by chance


Group = tuple[int, ...]  # columns of the log-probabilities: words of one label


@dataclass(frozen=True)
class FoundWords:
    """Words for each label, and how well they do before any tuning.

    correct: labelled rows whose label's words score highest; combinations: assignments of one
    word to each label that there were; exact: whether all of them were compared
    """

    words: tuple[tuple[str, ...], ...]
    correct: int
    own_correct: int  # by the pattern's own words
    rows: int
    combinations: int
    exact: bool


def find_label_words(
    model: Any,
    encoder: PatternEncoder,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    settings: Search,
    *,
    seed: int,
    machine: Machine,
) -> FoundWords:
    """Words for the labels of a pattern, by what the untuned model says at its mask.

    gold: (rows,) label numbers. Raises `UserError` if the labels cannot all have words.
    """
    vocabulary = Vocabulary(encoder.tokenizer)
    tokens = np.flatnonzero(vocabulary.words(encoder.spell))
    encoded = encoder.encode(rows)
    single = [row.with_masks(encoder.words.n_masks, 1, encoder.layout.mask) for row in encoded]
    log_probs = mask_log_probs(model, single, encoder.layout, tokens, machine)
    allowed = np.ones((len(encoder.words.tokens), len(tokens)), bool)
    if settings.neighbours:
        allowed = neighbours(model, encoder.words, tokens, settings.neighbours)
    groups: list[Group]
    combinations, exact = 1, True
    try:
        if settings.label_words == "amulap":
            groups = likeliest_words(log_probs, gold, allowed, settings.words_per_label)
        else:
            candidates = candidate_words(log_probs, gold, allowed, settings.likely)
            combinations = math.prod(len(words) for words in candidates)
            best = best_assignment(log_probs, gold, candidates, seed=seed)
            exact = best.exact
            singles = [(word,) for word in best.words]
            groups = add_words(log_probs, gold, candidates, singles, settings.words_per_label)
    except ValueError as error:
        raise UserError(
            f"search.label_words: pattern {encoder.pattern.name!r}: {error}; "
            "raise search.likely or search.neighbours"
        ) from None
    own = score_rows(
        model,
        encoded,
        encoder.layout,
        encoder.words,
        machine=machine,
        what="own label words",
        decoding="parallel",
    )
    return FoundWords(
        words=tuple(tuple(vocabulary.texts[tokens[n]] for n in group) for group in groups),
        correct=_correct(_label_means(log_probs, groups), gold),
        own_correct=_correct(own, gold),
        rows=len(gold),
        combinations=combinations,
        exact=exact,
    )


@torch.inference_mode()
def mask_log_probs(
    model: Any,
    rows: Sequence[Encoded],
    layout: Layout,
    tokens: npt.NDArray[np.int64],
    machine: Machine,
) -> Floats:
    """Log-probabilities (rows, tokens) of some tokens at each row's mask."""
    device = device_of(machine)
    model.to(device).eval()
    found = np.zeros((len(rows), len(tokens)), np.float32)
    columns = torch.from_numpy(tokens).to(device)
    with autocast(machine, device):
        for batch in cut_batches([len(row.ids) for row in rows], machine.batch_tokens):
            inputs = collate([rows[n] for n in batch], layout, device)
            at = torch.tensor([(n, rows[row].slot) for n, row in enumerate(batch)], device=device)
            log_probs = token_logits(model, inputs, at).log_softmax(-1)
            found[batch] = log_probs[:, columns].cpu().numpy()
    return found


def candidate_words(
    log_probs: Floats, gold: Sequence[int], allowed: Mask, count: int
) -> list[list[int]]:
    """For each label the words that its rows call for more than the others' do, best first.

    log_probs: (rows, words); allowed: (labels, words). Ranked by the mean log-probability on the
    label's rows minus that on the others', among its likeliest words.
    """
    own, others = _means(log_probs, gold, len(allowed))
    candidates = []
    for label, usable in enumerate(allowed):
        likely = np.argsort(np.where(usable, -own[label], np.inf), kind="stable")
        likely = likely[: min(MOST_LIKELY, int(usable.sum()))]
        apart = own[label, likely] - others[label, likely]
        candidates.append(likely[np.argsort(-apart, kind="stable")[:count]].tolist())
        if not candidates[-1]:
            raise ValueError(f"label {label} has no candidate word")
    return candidates


def likeliest_words(
    log_probs: Floats, gold: Sequence[int], allowed: Mask, count: int
) -> list[Group]:
    """Each label's words of the highest mean probability, no word for two labels.

    A word belongs to the label whose rows give it the highest mean probability (2201.05299,
    section 3.2). log_probs: (rows, words); allowed: (labels, words)
    """
    owner = np.asarray(gold)
    probs = np.stack(
        [
            np.exp(log_probs[owner == label]).mean(0) if (owner == label).any() else 0 * usable
            for label, usable in enumerate(allowed)
        ]
    )
    probs = np.where(allowed, probs, -1)
    best = probs.argmax(0)
    groups: list[Group] = []
    for label in range(len(allowed)):
        own = np.flatnonzero((best == label) & allowed[label])
        ranked = own[np.argsort(-probs[label, own], kind="stable")][:count]
        if not len(ranked):
            raise ValueError(f"label {label} has no candidate word")
        groups.append(tuple(ranked.tolist()))
    return groups


def add_words(
    log_probs: Floats,
    gold: Sequence[int],
    candidates: Sequence[Sequence[int]],
    groups: Sequence[Group],
    count: int,
) -> list[Group]:
    """The groups with more words, each label's in turn the one that is best to add.

    Best is what gets most rows right, of equal ones what has the highest log-probability of the
    gold labels. Labels whose candidates run out keep fewer words.
    """
    grown = list(groups)
    for _ in range(count - 1):
        for label, words in enumerate(candidates):
            taken = set(itertools.chain(*grown))
            tried = [(*grown[label], word) for word in words if word not in taken]
            options = [[*grown[:label], group, *grown[label + 1 :]] for group in tried]
            if options:
                grown = max(options, key=lambda option: _quality(log_probs, gold, option))
    return grown


def neighbours(model: Any, words: LabelWords, tokens: npt.NDArray[np.int64], count: int) -> Mask:
    """(labels, tokens) True for the tokens nearest to a label's words in the output embedding."""
    decoder = model.get_output_embeddings() or model.get_input_embeddings()
    vectors = functional.normalize(decoder.weight.detach().float(), dim=1)
    found = np.zeros((len(words.tokens), len(tokens)), bool)
    for label, group in enumerate(words.tokens):
        own = torch.stack([vectors[list(word)].mean(0) for word in group])
        near = (vectors[torch.from_numpy(tokens)] @ own.T).amax(1)
        found[label, near.topk(min(count, len(tokens))).indices.cpu().numpy()] = True
    return found


def _means(log_probs: Floats, gold: Sequence[int], n_labels: int) -> tuple[Floats, Floats]:
    """Mean log-probabilities (labels, words) on each label's rows and on all others."""
    owner = np.asarray(gold)
    pairs = [(log_probs[owner == label], log_probs[owner != label]) for label in range(n_labels)]
    nothing = np.zeros(log_probs.shape[1])
    own, others = (
        np.stack([part.mean(0) if len(part) else nothing for part in side])
        for side in zip(*pairs, strict=True)
    )
    return own, others


def _label_means(log_probs: Floats, groups: Sequence[Group]) -> Floats:
    return np.stack([log_probs[:, list(group)].mean(1) for group in groups], axis=1)


def _correct(scores: Floats, gold: Sequence[int]) -> int:
    return int((scores.argmax(1) == np.asarray(gold)).sum())


def _quality(log_probs: Floats, gold: Sequence[int], groups: Sequence[Group]) -> tuple[int, float]:
    scores = _label_means(log_probs, groups)
    return _correct(scores, gold), -float(row_losses(scores, gold).mean())
