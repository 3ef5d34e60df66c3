"""What is said of a pool, against counting it whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pet_pipeline.combining import disagreement, entropy
from pet_pipeline.stages.pool_summary import DISPUTED_ROWS, ENTROPY_BINS, PoolSummary
from pet_pipeline.tables import part_name
from pet_pipeline.units import Result

LABELS = ("a", "b", "c")


def summarised(sizes: list[int], seed: int = 0) -> tuple[PoolSummary, list[np.ndarray]]:
    """A summary of random scores, and these: (models, rows, labels) of each shard."""
    rng = np.random.default_rng(seed)
    shards = [rng.normal(size=(2, size, 3), scale=2) for size in sizes]
    summary = PoolSummary(2, LABELS)
    for n, scores in enumerate(shards):
        summary.add(scores, softmax(scores.mean(0), axis=-1), n)
    return summary, shards


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any), st.integers(0, 99))
def test_sums_are_those_of_the_whole_pool(sizes: list[int], seed: int) -> None:
    summary, shards = summarised(sizes, seed)
    scores = np.concatenate(shards, axis=1)
    probs = softmax(scores.mean(0), axis=-1)
    counts = np.bincount(probs.argmax(1), minlength=3).tolist()
    assert summary.rows == sum(sizes)
    assert summary.mean_confidence == pytest.approx(probs.max(1).mean())
    assert summary.label_counts == dict(zip(LABELS, counts, strict=True))
    assert list(summary.label_mass.values()) == pytest.approx(probs.sum(0).tolist())
    votes = scores.argmax(-1)
    agreed = float((votes[0] == votes[1]).mean())
    assert np.array(summary.agreement) == pytest.approx(np.array([[1, agreed], [agreed, 1]]))
    histogram = summary.entropies
    assert len(histogram.edges) == ENTROPY_BINS + 1
    assert sum(histogram.counts) == sum(sizes)
    below = histogram.edges[5]
    assert sum(histogram.counts[:5]) == (entropy(probs) < below).sum()


def test_the_most_disputed_rows_are_shown_with_their_texts(tmp_path: Path) -> None:
    sizes = [13, 0, 40]
    summary, shards = summarised(sizes)
    start = 0
    for n, size in enumerate(sizes):
        ids = list(range(start, start + size))
        table = pa.table({"id": pa.array(ids, pa.int64()), "text": [f"text {i}" for i in ids]})
        pq.write_table(table, tmp_path / part_name(n))
        start += size
    found = summary.disputed(Result(tmp_path, "", {}), ["text"])
    scores = np.concatenate(shards, axis=1)
    apart = disagreement(scores)
    expected = np.argsort(-apart)[:DISPUTED_ROWS].tolist()
    assert [row.id for row in found] == expected
    for row in found:
        assert row.text == {"text": f"text {row.id}"}
        assert row.votes == [LABELS[vote] for vote in scores[:, int(row.id)].argmax(-1)]
        assert row.probs == pytest.approx(softmax(scores[:, int(row.id)].mean(0)).tolist())
        assert row.disagreement == pytest.approx(apart[int(row.id)])


def test_of_equally_disputed_rows_the_first_are_shown(tmp_path: Path) -> None:
    summary = PoolSummary(2, LABELS)
    for n in range(3):
        scores = np.tile(np.array([[[3.0, 0, 0]], [[0, 3.0, 0]]]), (1, 10, 1))
        summary.add(scores, softmax(scores.mean(0), axis=-1), n)
        ids = range(10 * n, 10 * n + 10)
        pq.write_table(pa.table({"id": ids, "text": ["x"] * 10}), tmp_path / part_name(n))
    found = summary.disputed(Result(tmp_path, "", {}), ["text"])
    assert [row.id for row in found] == list(range(DISPUTED_ROWS))


def test_a_pool_without_rows() -> None:
    summary, _ = summarised([0])
    assert (summary.rows, summary.mean_confidence) == (0, 0.0)
    assert summary.label_counts == dict.fromkeys(LABELS, 0)
