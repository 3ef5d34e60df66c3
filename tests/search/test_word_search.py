"""Words for labels out of given log-probabilities, by LM-BFF's search and by AMuLaP."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.search.word_search import (
    WORD_SEARCHES,
    WordSearch,
    add_words,
    candidate_words,
    count_correct,
    group_scores,
    top_words,
)

LOG_PROBS = np.log(
    np.array(
        [  # words: 0 and 3 of the first label, 1 of the second, 2 of both
            [0.30, 0.05, 0.40, 0.20, 0.05],
            [0.30, 0.05, 0.40, 0.20, 0.05],
            [0.05, 0.30, 0.45, 0.15, 0.05],
            [0.05, 0.30, 0.45, 0.15, 0.05],
        ]
    )
)
ALL = np.ones((2, 5), bool)


def test_candidates_are_what_a_labels_rows_say_more_than_the_others() -> None:
    assert candidate_words(LOG_PROBS, [0, 0, 1, 1], ALL, 2) == [[0, 3], [1, 2]]
    barred = ALL.copy()
    barred[0, 0] = barred[1, 1] = False
    assert candidate_words(LOG_PROBS, [0, 0, 1, 1], barred, 1) == [[3], [2]]
    with pytest.raises(ValueError, match="label 1 has no candidate word"):
        candidate_words(LOG_PROBS, [0, 0, 1, 1], ALL * np.array([[True], [False]]), 1)


def test_amulap_gives_a_word_to_the_label_whose_rows_give_it_the_highest_probability() -> None:
    assert top_words(LOG_PROBS, [0, 0, 1, 1], ALL, 3) == [(0, 3, 4), (2, 1)]
    assert top_words(LOG_PROBS, [0, 0, 1, 1], ALL, 1) == [(0,), (2,)]
    with pytest.raises(ValueError, match="label 1 has no candidate word"):
        top_words(LOG_PROBS, [0, 0, 0, 0], ALL, 1)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_added_words_are_new_and_come_from_their_labels_candidates(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.ones(9), 12))
    candidates = [[0, 1, 2, 3], [2, 3, 4, 5], [6]]
    gold = rng.integers(3, size=12).tolist()
    groups = add_words(log_probs, gold, candidates, [(0,), (4,), (6,)], count)
    words = [word for group in groups for word in group]
    assert len(set(words)) == len(words)
    assert [group[0] for group in groups] == [0, 4, 6]
    for group, own in zip(groups, candidates, strict=True):
        assert set(group) <= set(own)
    assert len(groups[0]) == min(count, 4) or len(words) >= min(count, 3) + 2
    assert groups[2] == (6,)


def test_methods_by_name() -> None:
    gold = [0, 0, 1, 1]
    search = WordSearch("assignment", candidates_per_label=2, words_per_label=2)
    found = WORD_SEARCHES["assignment"](LOG_PROBS, gold, ALL, search, 0)
    assert found.groups == [(0, 3), (1, 2)]
    assert (found.combinations, found.exact) == (4, True)
    assert count_correct(group_scores(LOG_PROBS, found.groups), gold) == 4
    found = WORD_SEARCHES["amulap"](LOG_PROBS, gold, ALL, search, 0)
    assert found.groups == top_words(LOG_PROBS, gold, ALL, 2)
    assert (found.combinations, found.exact) == (1, True)


@pytest.mark.parametrize(
    "name", ["word_search", "assignment", "selection", "templates", "connectors", "vocabulary"]
)
def test_what_needs_no_model_needs_no_torch(name: str) -> None:
    program = (
        f"import sys, pet_pipeline.search.{name}\n"
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
