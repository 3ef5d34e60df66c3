"""Which rows go together: every row once a pass, batches within their budget."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.batches import (
    FEW_TOKENS,
    SHORTEST_SHARE,
    balanced_rows,
    batch_rows,
    cut_batches,
    cut_rows,
)


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 99))
def test_every_row_once_before_any_row_twice(n_rows: int, size: int, seed: int) -> None:
    steps = -(-3 * n_rows // size)
    drawn = [row for step in range(steps) for row in batch_rows(n_rows, size, seed=seed, step=step)]
    assert len(drawn) == steps * size
    for start in range(0, 3 * n_rows, n_rows):
        assert sorted(drawn[start : start + n_rows]) == list(range(n_rows))


def test_each_pass_and_each_seed_has_its_own_order() -> None:
    passes = [
        tuple(batch_rows(50, 50, seed=seed, step=step)) for seed in (1, 2) for step in range(3)
    ]
    assert len(set(passes)) == 6
    assert passes[0] == tuple(batch_rows(50, 50, seed=1, step=0))


def test_a_step_may_be_larger_than_the_table() -> None:
    assert sorted(batch_rows(2, 6, seed=1, step=5)) == [0, 0, 0, 1, 1, 1]


LABELS = st.lists(st.integers(0, 4), max_size=40)


@given(LABELS)
def test_balanced_rows_have_every_label_equally_often(gold: list[int]) -> None:
    taken = balanced_rows(gold)
    largest = max(Counter(gold).values(), default=0)
    assert Counter(gold[row] for row in taken) == dict.fromkeys(gold, largest)


@given(LABELS)
def test_balanced_rows_repeat_the_rows_of_a_label_equally_often(gold: list[int]) -> None:
    times = Counter(balanced_rows(gold))
    assert set(times) == set(range(len(gold)))
    for label in set(gold):
        own = [times[row] for row, found in enumerate(gold) if found == label]
        assert max(own) - min(own) <= 1


@given(st.permutations([0, 1, 2] * 4))
def test_rows_of_equally_frequent_labels_are_taken_as_they_are(gold: list[int]) -> None:
    assert balanced_rows(gold) == list(range(len(gold)))


@given(st.integers(0, 99))
def test_a_pass_over_balanced_rows_shows_every_label_equally_often(seed: int) -> None:
    gold = [0] * 8 + [1, 2, 3]
    taken = balanced_rows(gold)
    drawn = [row for step in range(4) for row in batch_rows(len(taken), 8, seed=seed, step=step)]
    assert Counter(gold[taken[n]] for n in drawn) == {0: 8, 1: 8, 2: 8, 3: 8}


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = cut_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= budget


@given(st.lists(st.integers(1, 300), max_size=60))
def test_a_row_is_not_padded_to_a_much_longer_one(lengths: list[int]) -> None:
    for batch in cut_batches(lengths, 10_000):
        width = max(lengths[n] for n in batch)
        small = FEW_TOKENS // width  # so many cost the same whatever their lengths
        assert all(lengths[n] >= SHORTEST_SHARE * width for n in batch[small:])


@pytest.mark.parametrize("budget", [1, 30, 99])
def test_a_row_beyond_the_budget_is_a_batch_of_its_own(budget: int) -> None:
    assert cut_batches([100, 100], budget) == [[0], [1]]


def test_cut_rows_names_rows_of_the_table() -> None:
    assert cut_rows([4, 2], [9, 9, 3, 9, 7], 10) == [[4], [2]]
    assert cut_rows([2, 2, 2], [9, 9, 3], 6) == [[2, 2], [2]]
