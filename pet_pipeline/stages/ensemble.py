"""The models' scores become one soft label a row of the pool."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pet_pipeline.config import Machine, Settings
from pet_pipeline.data import Floats, part_name, read_rows, read_scores, write_soft_labels
from pet_pipeline.patterns import Task
from pet_pipeline.pooling import disagreement, entropy, fit_pool, pool_scores
from pet_pipeline.run import Result, Run
from pet_pipeline.stages.finetune import crossfit
from pet_pipeline.stages.results import SCORES, TABLE, Scores, Tables, labels_of, shard_file

WEIGHTS = "ensemble.json"
DISPUTED_ROWS = 20
ENTROPY_BINS = 20


def ensemble(
    run: Run,
    task: Task,
    scores: list[Scores],
    tables: Tables,
    settings: Settings,
    *,
    generation: int = 0,
) -> Result:
    """Soft labels of the pool, with the weights and the temperature they are made with."""
    chosen = settings.ensemble
    fitted = chosen.weights == "fitted"
    on_folds = fitted and chosen.fit_on == "folds"
    folds = crossfit(run, task, tables, settings) if on_folds else {}
    on_development = fitted and not on_folds
    calls = {
        "all": {
            "labels": task.labels,
            "models": [(s.model.name, s.model.pattern.name, s.model.result) for s in scores],
            "scores": [s.shards for s in scores],
            "pool": tables.pool,
            "columns": task.columns,
            "weights": chosen.weights,
            "folds": folds,
            "gold": (tables.labelled if on_folds else tables.development) if fitted else None,
            "development": [s.extra["development"] for s in scores] if on_development else [],
        }
    }
    return run.do(f"gen-{generation}/ensemble", _ensemble, calls)[0]


def read_weights(soft: Result) -> dict[str, Any]:
    """What an ensemble knows of itself: models, weights, temperature, and how the pool came out."""
    found: dict[str, Any] = json.loads((soft.dir / WEIGHTS).read_text("utf-8"))
    return found


def _ensemble(
    out: Path,
    machine: Machine,
    *,
    labels: tuple[str, ...],
    models: list[tuple[str, str, Result]],
    scores: list[tuple[Result, ...]],
    pool: Result,
    columns: tuple[str, ...],
    weights: str,
    folds: dict[str, list[Result]],
    gold: Result | None,
    development: list[Result],
) -> dict[str, Any]:
    model_weights, temperature = [1 / len(models)] * len(models), 1.0
    if weights == "wmean":
        model_weights = [result.info["untuned_accuracy"] + 1e-9 for *_, result in models]
    elif weights == "fitted" and gold:
        numbers = labels_of(gold.dir / TABLE, labels)
        if folds:
            model_weights, temperature = _fit_on_folds(models, folds, numbers)
        else:
            found = np.stack([read_scores(result.dir / SCORES)[1] for result in development])
            model_weights, temperature = fit_pool(found, numbers)
    summary = _PoolSummary(len(models), labels)
    for n in range(len(scores[0])):
        read = [read_scores(parts[n].dir / SCORES) for parts in scores]
        stacked = np.stack([values for _, values in read])
        probs = pool_scores(list(stacked), model_weights, temperature)
        write_soft_labels(out / part_name(n), read[0][0], probs, labels)
        summary.add(stacked, probs, n)
    total = float(sum(model_weights))
    (out / WEIGHTS).write_text(
        json.dumps(
            {
                "models": [name for name, *_ in models],
                "weights": [weight / total for weight in model_weights],
                "temperature": temperature,
                **summary.told(pool, columns),
            },
            indent=1,
        ),
        "utf-8",
    )
    return {"rows": summary.rows, "mean_confidence": summary.confidence / max(1, summary.rows)}


def _fit_on_folds(
    models: list[tuple[str, str, Result]], folds: dict[str, list[Result]], gold: list[int]
) -> tuple[list[float], float]:
    """Weights of the models: those of their patterns, shared among a pattern's seeds."""
    stacked = []
    for parts in folds.values():
        rows: list[int] = []
        values: list[Floats] = []
        for part in (part for part in parts if part.info["rows"]):
            ids, scores = read_scores(part.dir / SCORES)
            rows += ids.to_pylist()
            values.append(scores)
        stacked.append(np.concatenate(values)[np.argsort(rows)])
    fitted, temperature = fit_pool(np.stack(stacked), gold)
    by_pattern = dict(zip(folds, fitted, strict=True))
    patterns = [pattern for _, pattern, _ in models]
    return [by_pattern[p] / patterns.count(p) for p in patterns], temperature


class _PoolSummary:
    """What the report shows of the pool, gathered shard by shard."""

    def __init__(self, n_models: int, labels: Sequence[str]):
        self.labels = labels
        self.rows = 0
        self.confidence = 0.0
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
        self.confidence += float(probs.max(1).sum())
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

    def told(self, pool: Result, columns: Sequence[str]) -> dict[str, Any]:
        """The summary as plain values, with the disputed rows' texts."""
        disputed = []
        for apart, shard, row, votes, probs in self._disputed:
            record = read_rows(shard_file(pool, -shard))[-row]
            disputed.append(
                {
                    "id": record["id"],
                    "text": {column: record[column] for column in columns},
                    "votes": [self.labels[vote] for vote in votes],
                    "probs": probs,
                    "disagreement": apart,
                }
            )
        return {
            "rows": self.rows,
            "agreement": (self._agreed / max(1, self.rows)).tolist(),
            "label_counts": dict(zip(self.labels, self._counts.tolist(), strict=True)),
            "label_mass": dict(zip(self.labels, self._mass.tolist(), strict=True)),
            "entropy": {"edges": self._edges.tolist(), "counts": self._entropies.tolist()},
            "disputed": disputed,
        }
