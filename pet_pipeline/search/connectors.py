"""Candidates that need no model: from a short list of connectors, or mined from the pool."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pet_pipeline.search.templates import PUNCTUATION, Candidate, Words, locations, usable

# Words before the mask, and marks after it, as hand-written patterns have them.
CONNECTORS = (
    *("It is", "It was", "This is", "That is", "This was", "Just", "All in all, it was"),
    *("In summary,", "In short,", "Overall,", "This is about", "It is about", "Topic:"),
    *("Category:", "Type:", "Answer:", "The answer is", "The topic is", "In other words,"),
    *("I think it is", "I feel", "A", "So", "Very"),
)
MARKS = (".", "!", "")
BETWEEN = (("?", ","), ("?", "."), (".", ","), ("?", ""), (", so", ","), ("? I think", ","))
LONGEST = 3  # words on a side of a mined template
MARK_OR_WORD = re.compile(rf"[^\W\d_]+(?:'[^\W\d_]+)?|[{re.escape(PUNCTUATION)}]")

Context = tuple[str, str]  # text before and after a label word


def connector_templates(columns: Sequence[str], words: Words) -> list[list[Candidate]]:
    """Candidates of each location: the connectors, with the marks that go there."""
    groups = []
    for location in locations(columns):
        if location.before and location.after:
            pairs = [*BETWEEN, *((f". {start}", ",") for start in CONNECTORS)]
        else:
            pairs = [(start, mark) for mark in MARKS for start in CONNECTORS]
        groups.append(
            [
                Candidate(location.template(left, right), "connectors", -float(rank))
                for rank, (left, right) in enumerate(pairs)
                if usable(location, left, right, words)
            ]
        )
    return groups


def mined_templates(
    texts: Iterable[str], columns: Sequence[str], words: Words
) -> list[list[Candidate]]:
    """Candidates of each location: text around label words, and text that opens sentences.

    Text seen with several labels' words scores highest: it takes any of them.
    """
    around, openings = count_contexts(texts, words)
    scores: dict[Context, float] = {}
    for context, labels in around.items():
        scores[context] = len(labels) + math.log1p(labels.total()) / 100
    for opening, count in openings.items():
        scores.setdefault((opening, "."), math.log1p(count) / 100)
    return [
        [
            Candidate(location.template(left, right), "mine", score)
            for (left, right), score in scores.items()
            if usable(location, left, right, words)
        ]
        for location in locations(columns)
    ]


def count_contexts(
    texts: Iterable[str], words: Words
) -> tuple[Mapping[Context, Counter[int]], Counter[str]]:
    """Counts of text around label words, by label, and of text that opens sentences.

    Only what was seen twice or more.
    """
    label_of = {word.lower(): n for n, group in enumerate(words) for word in group}
    around: dict[Context, Counter[int]] = defaultdict(Counter)
    openings: Counter[str] = Counter()
    for text in texts:
        tokens = MARK_OR_WORD.findall(text)
        for n, token in enumerate(tokens):
            if n == 0 or tokens[n - 1] in ".!?":
                opening = tokens[n : n + LONGEST]
                openings.update(_text(opening[:size]) for size in range(1, len(opening) + 1))
            label = label_of.get(token.lower())
            if label is not None:
                for context in _contexts(tokens, n):
                    around[context][label] += 1
    frequent = {context: labels for context, labels in around.items() if labels.total() > 1}
    return frequent, Counter({text: n for text, n in openings.items() if n > 1})


def _contexts(tokens: Sequence[str], n: int) -> list[Context]:
    """Some words before and after the n-th token, within its sentence."""
    lefts = [tokens[n - size : n] for size in range(1, min(LONGEST, n) + 1)]
    following = tokens[n + 1 : n + 1 + LONGEST]
    rights = [following[:size] for size in range(1, len(following) + 1)]
    return [
        (_text(left), _text(right))
        for left, right in itertools.product(lefts, rights)
        if not set(left) & set(".!?") and not set(right[:-1]) & set(".!?")
    ]


def _text(tokens: Sequence[str]) -> str:
    text = ""
    for token in tokens:
        text += token if token in PUNCTUATION or not text else f" {token}"
    return text.lower()
