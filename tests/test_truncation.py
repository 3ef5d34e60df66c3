"""Tokens are taken one at a time from whatever is longest, and never from what must stay."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.truncation import Tokens, shorten, truncate


def slowly_shortened(lengths: list[int], budget: int) -> list[int]:
    lengths = list(lengths)
    while sum(lengths) > max(budget, 0):
        longest = max(range(len(lengths)), key=lambda n: (lengths[n], n))
        lengths[longest] -= 1
    return lengths


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(-5, 90))
def test_shorten_takes_one_token_at_a_time_from_the_longest(
    lengths: list[int], budget: int
) -> None:
    assert shorten(lengths, budget) == slowly_shortened(lengths, budget)


def chunk(*parts: tuple[int, int]) -> Tokens:
    """A chunk of parts, each given by its number of tokens and its turn."""
    owners = np.repeat(np.arange(len(parts)), [length for length, _ in parts])
    return Tokens(list(range(len(owners))), owners, [turn for _, turn in parts])


PARTS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 1, 2])), min_size=1, max_size=4)


@given(st.lists(PARTS, min_size=1, max_size=3), st.integers(-5, 60))
def test_a_budget_is_kept_and_the_templates_words_stay(
    parts: list[list[tuple[int, int]]], budget: int
) -> None:
    chunks = [chunk(*own) for own in parts]
    kept, cut = truncate(chunks, budget)
    total = sum(length for own in parts for length, _ in own)
    fixed = sum(length for own in parts for length, turn in own if turn == 0)
    ordinary = sum(length for own in parts for length, turn in own if turn == 1)
    assert cut == (total > budget)
    assert sum(len(chunk.ids) for chunk in kept) == max(fixed, min(total, budget))
    for after, before, own in zip(kept, chunks, parts, strict=True):
        for part, (_, turn) in enumerate(own):
            whole = [i for i, owner in zip(before.ids, before.owners, strict=True) if owner == part]
            left = [i for i in after.ids if i in whole]
            assert left == whole[: len(left)]  # only the end goes
            if turn == 0 or (turn == 2 and total - ordinary <= budget):
                assert left == whole


@given(st.lists(PARTS, min_size=1, max_size=3), st.integers(-5, 60))
def test_every_token_that_stays_keeps_its_part(
    parts: list[list[tuple[int, int]]], budget: int
) -> None:
    chunks = [chunk(*own) for own in parts]
    kept, _ = truncate(chunks, budget)
    for after, before, own in zip(kept, chunks, parts, strict=True):
        # The ids of these chunks are the tokens' numbers.
        assert after.owners.tolist() == before.owners[after.ids].tolist()
        assert after.turns == before.turns
        literal = [own[part][1] == 0 for part in after.owners]
        assert after.literal.tolist() == literal


def test_what_fits_is_left_as_it_is() -> None:
    chunks = [chunk((3, 0), (4, 1)), chunk((2, 2))]
    assert truncate(chunks, 9) == (chunks, False)
    assert truncate([], 0) == ([], False)
