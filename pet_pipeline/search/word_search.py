"""Which words become whose: label words out of what the model says at the labelled rows' masks.

LM-BFF (2012.15723, section 5.1) and AMuLaP (2201.05299). Words are columns of a matrix of
log-probabilities (rows, words).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pet_pipeline.search.assignment import best_assignment
from pet_pipeline.search.selection import row_losses
from pet_pipeline.search.vocabulary import Mask
from pet_pipeline.tables import Floats

N_TOP_WORDS = 1000  # of a label, by mean log-probability; rarer ones set labels apart by chance

Group = tuple[int, ...]  # columns of the log-probabilities: words of one label


@dataclass(frozen=True)
class WordSearch:
    """How label words are searched; method: a key of WORD_SEARCHES."""

    method: str
    candidates_per_label: int = 50
    neighbours: int = 0  # only so many words, nearest to the pattern's own; 0 is no limit
    words_per_label: int = 1


@dataclass(frozen=True)
class WordGroups:
    """The words of each label.

    combinations: assignments of one word to each label that were possible; exact: whether all of
    them were compared
    """

    groups: list[Group]
    combinations: int = 1
    exact: bool = True


def assigned_words(
    log_probs: Floats, gold: Sequence[int], allowed: Mask, search: WordSearch, seed: int
) -> WordGroups:
    """The best assignment of candidates to labels, and then the best words to add to it.

    log_probs: (rows, words); allowed: (labels, words); seed: of the search if there are too many
    assignments for an exact one. Raises `ValueError` if the labels cannot all have words.
    """
    candidates = candidate_words(log_probs, gold, allowed, search.candidates_per_label)
    best = best_assignment(log_probs, gold, candidates, seed=seed)
    groups = [(word,) for word in best.words]
    return WordGroups(
        groups=add_words(log_probs, gold, candidates, groups, search.words_per_label),
        combinations=math.prod(len(words) for words in candidates),
        exact=best.exact,
    )


def amulap_words(
    log_probs: Floats, gold: Sequence[int], allowed: Mask, search: WordSearch, seed: int
) -> WordGroups:
    """Each label's top words, without a search; the seed makes no difference.

    log_probs: (rows, words); allowed: (labels, words). Raises `ValueError` if the labels cannot
    all have words.
    """
    return WordGroups(top_words(log_probs, gold, allowed, search.words_per_label))


# Log-probabilities (rows, words), label numbers (rows,), allowed words (labels, words), a seed.
Method = Callable[[Floats, Sequence[int], Mask, WordSearch, int], WordGroups]

WORD_SEARCHES: dict[str, Method] = {"assignment": assigned_words, "amulap": amulap_words}


def candidate_words(
    log_probs: Floats, gold: Sequence[int], allowed: Mask, count: int
) -> list[list[int]]:
    """For each label the words that its rows call for more than the others' do, best first.

    log_probs: (rows, words); allowed: (labels, words). Ranked by the mean log-probability on the
    label's rows minus that on the others', among its top words. Raises `ValueError` if a label
    has none.
    """
    own, others = _means(log_probs, gold, len(allowed))
    candidates = []
    for label, usable in enumerate(allowed):
        top = np.argsort(np.where(usable, -own[label], np.inf), kind="stable")
        top = top[: min(N_TOP_WORDS, int(usable.sum()))]
        difference = own[label, top] - others[label, top]
        candidates.append(top[np.argsort(-difference, kind="stable")[:count]].tolist())
        if not candidates[-1]:
            raise ValueError(f"label {label} has no candidate word")
    return candidates


def top_words(log_probs: Floats, gold: Sequence[int], allowed: Mask, count: int) -> list[Group]:
    """Each label's words of the highest mean probability, no word for two labels.

    A word belongs to the label whose rows give it the highest mean probability (2201.05299,
    section 3.2). log_probs: (rows, words); allowed: (labels, words). Raises `ValueError` if a
    label has none.
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
    """The groups with more words, up to `count` per label, each label's in turn the best to add.

    Best is what gets most rows correct, of equal ones what has the highest log-probability of the
    gold labels. Labels whose candidates run out keep fewer words.
    """
    extended = list(groups)
    for _ in range(count - 1):
        for label, words in enumerate(candidates):
            taken = set(itertools.chain(*extended))
            longer = [(*extended[label], word) for word in words if word not in taken]
            options = [[*extended[:label], group, *extended[label + 1 :]] for group in longer]
            if options:
                extended = max(options, key=lambda option: _quality(log_probs, gold, option))
    return extended


def group_scores(log_probs: Floats, groups: Sequence[Group]) -> Floats:
    """Label scores (rows, labels): the mean log-probability of each label's words."""
    return np.stack([log_probs[:, list(group)].mean(1) for group in groups], axis=1)


def count_correct(scores: Floats, gold: Sequence[int]) -> int:
    """How many rows' own labels score highest; scores: (rows, labels)."""
    return int((scores.argmax(1) == np.asarray(gold)).sum())


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


def _quality(log_probs: Floats, gold: Sequence[int], groups: Sequence[Group]) -> tuple[int, float]:
    scores = group_scores(log_probs, groups)
    return count_correct(scores, gold), -float(row_losses(scores, gold).mean())
