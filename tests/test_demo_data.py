"""The demo task is what its README says: enough of everything, and no two texts alike."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pet_pipeline import load_task

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "data" / "support"
LABELS = ["delivery", "refund", "payment", "account", "product", "praise"]


def rows(name: str) -> list[dict[str, str]]:
    return pq.read_table(FOLDER / f"{name}.parquet").to_pylist()


def trigrams(text: str) -> frozenset[tuple[str, ...]]:
    words = text.lower().split()
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def test_sizes_and_labels() -> None:
    labelled, pool, test = rows("labelled"), rows("pool"), rows("test")
    assert len(labelled) >= 48
    assert len(pool) >= 600
    assert len(test) >= 240
    assert list(load_task(ROOT / "patterns" / "support").labels) == LABELS
    assert min(Counter(row["label"] for row in labelled)[label] for label in LABELS) >= 8
    assert {row["label"] for row in test} == set(LABELS)
    assert "label" not in pool[0]
    ids = [row["id"] for row in labelled + pool + test]
    assert len(set(ids)) == len(ids)


def test_the_task_has_five_patterns() -> None:
    assert len(load_task(ROOT / "patterns" / "support").patterns) >= 5


def test_no_two_texts_are_alike() -> None:
    texts = [row["text"] for name in ("labelled", "pool", "test") for row in rows(name)]
    grams = [trigrams(text) for text in texts]
    sharing: dict[tuple[str, ...], list[int]] = {}
    for n, own in enumerate(grams):
        for gram in own:
            sharing.setdefault(gram, []).append(n)
    pairs = {pair for numbers in sharing.values() for pair in combinations(numbers, 2)}
    alike = [
        (texts[a], texts[b])
        for a, b in pairs
        if len(grams[a] & grams[b]) / len(grams[a] | grams[b]) > 0.5
    ]
    assert not alike


@pytest.mark.parametrize(
    ("text", "other", "same"), [("a b c d", "a b c d", True), ("a b c", "x", False)]
)
def test_trigrams_tell_texts_apart(text: str, other: str, same: bool) -> None:
    assert (trigrams(text) == trigrams(other)) is same
