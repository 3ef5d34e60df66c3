"""How a pool came out of an ensemble, gathered shard by shard: what the report shows of it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pet_pipeline.combining import disagreement, entropy
from pet_pipeline.stages.results import shard_file
from pet_pipeline.tables import Floats, read_rows
from pet_pipeline.units import Result

DISPUTED_ROWS = 20
ENTROPY_BINS = 20


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; one edge more than counts."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class DisputedRow:
    """A row of the pool whose models disagree."""

    id: str | int
    text: dict[str, str]  # by column
    votes: list[str]  # the label that each model predicts
    probs: list[float]  # the soft label
    disagreement: float  # Jensen-Shannon divergence, nats


class PoolSummary:
    """Sums over the pool's soft labels, and the rows whose models are furthest apart."""

    def __init__(self, n_models: int, labels: Sequence[str]):
        self.labels = labels
        self.rows = 0
        self._confidence = 0.0
        self._agreed = np.zeros((n_models, n_models), int)
        self._counts = np.zeros(len(labels), int)
        self._mass = np.zeros(len(labels))
        self._edges = np.linspace(0, np.log(len(labels)), ENTROPY_BINS + 1)
        self._entropies = np.zeros(ENTROPY_BINS, int)
        self._disputed: list[tuple[float, int, int, list[int], list[float]]] = []

    def add(self, scores: Floats, probs: Floats, shard: int) -> None:
        """Take in a shard; scores: (models, rows, labels), probs: (rows, labels)."""
        votes = scores.argmax(-1)
        self.rows += len(probs)
        self._confidence += float(probs.max(1).sum())
        self._agreed += (votes[:, None] == votes[None]).sum(-1)
        self._counts += np.bincount(probs.argmax(1), minlength=len(self.labels))
        self._mass += probs.sum(0)
        clipped = np.clip(entropy(probs), self._edges[0], self._edges[-1])
        self._entropies += np.histogram(clipped, self._edges)[0]
        apart = disagreement(scores)
        for row in np.argsort(-apart, kind="stable")[:DISPUTED_ROWS]:
            entry = (
                float(apart[row]),
                -shard,
                -int(row),
                votes[:, row].tolist(),
                probs[row].tolist(),
            )
            self._disputed = heapq.nlargest(DISPUTED_ROWS, [*self._disputed, entry])

    @property
    def mean_confidence(self) -> float:
        """The mean top probability of the rows."""
        return self._confidence / max(1, self.rows)

    @property
    def agreement(self) -> list[list[float]]:
        """(models, models) fraction of the rows on which two predict the same label."""
        found: list[list[float]] = (self._agreed / max(1, self.rows)).tolist()
        return found

    @property
    def label_counts(self) -> dict[str, int]:
        """How often each label is the most probable one."""
        return dict(zip(self.labels, self._counts.tolist(), strict=True))

    @property
    def label_mass(self) -> dict[str, float]:
        """The sum of each label's probabilities."""
        return dict(zip(self.labels, self._mass.tolist(), strict=True))

    @property
    def entropies(self) -> Histogram:
        """How certain the soft labels are, in nats."""
        return Histogram(self._edges.tolist(), self._entropies.tolist())

    def disputed(self, pool: Result, columns: Sequence[str]) -> list[DisputedRow]:
        """The rows that models disagree on most, with their texts."""
        found = []
        for apart, shard, row, votes, probs in self._disputed:
            record = read_rows(shard_file(pool, -shard))[-row]
            found.append(
                DisputedRow(
                    id=record["id"],
                    text={column: record[column] for column in columns},
                    votes=[self.labels[vote] for vote in votes],
                    probs=probs,
                    disagreement=apart,
                )
            )
        return found
