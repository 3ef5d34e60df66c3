"""The exact label-word search agrees with trying everything."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_pipeline.search.assignment import best_assignment


def judge(scores: Any, gold: list[int], words: tuple[int, ...]) -> tuple[int, float]:
    """Rows that words get right, and their margin, straight from the definitions."""
    found = scores[:, list(words)]
    labels = range(len(words))
    correct = sum(
        all(row[y] > row[c] for c in labels if c != y) for row, y in zip(found, gold, strict=True)
    )
    margin = 0.0
    for y in labels:
        own = found[[n for n, label in enumerate(gold) if label == y]]
        if len(own):
            apart = [own[:, y].mean() - own[:, c].mean() for c in labels if c != y]
            margin += float(np.mean(apart)) / len(labels)
    return correct, margin


def brute_force(scores: Any, gold: list[int], candidates: list[list[int]]) -> tuple[int, float]:
    assignments = (a for a in itertools.product(*candidates) if len(set(a)) == len(a))
    return max((judge(scores, gold, a) for a in assignments), default=(-1, 0.0))


@st.composite
def problems(draw: Any) -> tuple[Any, list[int], list[list[int]]]:
    n_labels, n_words = draw(st.integers(2, 4)), draw(st.integers(4, 9))
    n_rows = draw(st.integers(1, 80))  # more than 64 rows of a label take a second integer
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    levels = draw(st.sampled_from([2, 5, 1000]))  # few levels tie often
    scores = rng.integers(levels, size=(n_rows, n_words)).astype(np.float64)
    gold = rng.integers(n_labels if draw(st.booleans()) else 1, size=n_rows).tolist()
    columns = st.lists(st.integers(0, n_words - 1), min_size=1, max_size=5, unique=True)
    return scores, gold, [draw(columns) for _ in range(n_labels)]


@settings(max_examples=200)
@given(problems())
def test_the_best_assignment_is_that_of_brute_force(
    problem: tuple[Any, list[int], list[list[int]]],
) -> None:
    scores, gold, candidates = problem
    correct, margin = brute_force(scores, gold, candidates)
    if correct < 0:
        with pytest.raises(ValueError, match="a word of its own"):
            best_assignment(scores, gold, candidates)
        return
    found = best_assignment(scores, gold, candidates)
    assert found.exact
    assert all(word in words for word, words in zip(found.words, candidates, strict=True))
    assert len(set(found.words)) == len(found.words)
    assert found.correct == correct
    assert found.margin == pytest.approx(margin)
    assert judge(scores, gold, found.words) == (found.correct, pytest.approx(found.margin))


@settings(max_examples=40)
@given(problems())
def test_coordinate_ascent_ends_where_no_single_word_is_better(
    problem: tuple[Any, list[int], list[list[int]]],
) -> None:
    scores, gold, candidates = problem
    best, _ = brute_force(scores, gold, candidates)
    if best < 0:
        with pytest.raises(ValueError, match="a word of its own"):
            best_assignment(scores, gold, candidates, most_exact=0)
        return
    found = best_assignment(scores, gold, candidates, most_exact=0)
    assert not found.exact
    assert found.correct <= best
    reached = (found.correct, found.margin + 1e-9)
    for y, words in enumerate(candidates):
        for word in words:
            changed = (*found.words[:y], word, *found.words[y + 1 :])
            if len(set(changed)) == len(changed):
                assert judge(scores, gold, changed) <= reached


def test_very_many_labels() -> None:
    rng = np.random.default_rng(0)
    gold = np.repeat(np.arange(30), 8).tolist()
    scores = rng.normal(size=(240, 300))
    scores[np.arange(240), np.array(gold) * 10] += 6  # a word that tells each label
    candidates = [list(range(10 * n, 10 * n + 10)) for n in range(30)]
    found = best_assignment(scores, gold, candidates)
    assert not found.exact
    assert found.words == tuple(range(0, 300, 10))
    assert found.correct == judge(scores, gold, found.words)[0] > 200


def test_large_grids_are_cut_without_losing_the_best() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(12, 300))
    gold = [0, 1, 2] * 4
    candidates = [list(range(n * 100, n * 100 + 100)) for n in range(3)]
    whole = best_assignment(scores, gold, candidates)
    small = best_assignment(scores, gold, [words[:20] for words in candidates])
    assert whole.exact
    assert (whole.correct, whole.margin) >= (small.correct, small.margin)
    assert (small.correct, pytest.approx(small.margin)) == brute_force(
        scores, gold, [words[:20] for words in candidates]
    )
    again = best_assignment(scores, gold, candidates)
    assert again == whole
