"""Texts are the same whatever their case and whitespace; rows without text are like none."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.duplicates import (
    NO_TEXT,
    SEPARATOR,
    count_repeats,
    fold,
    is_known,
    known_texts,
    text_hashes,
)

TEXT = st.text(alphabet="aAbßé \n\t\u00a0\x1f|", max_size=4)
ROWS = st.lists(st.tuples(TEXT, TEXT), max_size=12)
HASHES = st.lists(st.integers(0, 6), max_size=20)


def table(rows: list[tuple[str, str]]) -> pa.Table:
    columns = {name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate("ab")}
    return pa.table({"id": range(len(rows)), **columns})


def hashes(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@given(ROWS)
def test_rows_have_the_same_hash_if_and_only_if_their_folded_texts_are_the_same(
    rows: list[tuple[str, str]],
) -> None:
    found = text_hashes(table(rows), ("a", "b")).tolist()
    texts = [tuple(map(fold, row)) for row in rows]
    assert len(set(found)) == len(set(texts))
    assert len(set(zip(found, texts, strict=True))) == len(set(texts))
    assert [value == NO_TEXT for value in found] == [not any(text) for text in texts]


@given(TEXT)
def test_no_folded_text_has_the_separator(text: str) -> None:
    assert SEPARATOR not in fold(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a b", ""), ("a", "b")), (("ab", ""), ("", "ab")), (("a", "b"), ("b", "a"))],
)
def test_a_text_belongs_to_its_column(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = text_hashes(table([one, other]), ("a", "b"))
    assert first != second


def test_columns_that_are_not_named_do_not_count() -> None:
    first, second = text_hashes(table([("x", "1"), ("X ", "2")]), ("a",))
    assert first == second


@given(st.lists(HASHES, max_size=3), HASHES)
def test_known_texts_are_those_of_some_table(tables: list[list[int]], rows: list[int]) -> None:
    known = known_texts([hashes(*values) for values in tables])
    everything = {value for values in tables for value in values} - {NO_TEXT}
    assert known.tolist() == sorted(everything)
    assert is_known(hashes(*rows), known).tolist() == [row in everything for row in rows]


@given(HASHES)
def test_repeats_are_the_rows_after_the_first_of_each_text(rows: list[int]) -> None:
    counts = Counter(row for row in rows if row != NO_TEXT)
    assert count_repeats(hashes(*rows)) == sum(n - 1 for n in counts.values())
