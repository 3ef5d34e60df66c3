"""Two runs on the same test rows: is the difference more than chance would make?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.errors import UserError, listed, nearest, raise_all
from pet_pipeline.formats import reading
from pet_pipeline.metrics import METRICS, RESAMPLES, Indices, Paired, metric_title, paired
from pet_pipeline.records import read_record
from pet_pipeline.stages.evaluate import METRICS_FILE, PREDICTIONS, Metrics
from pet_pipeline.tables import check_ids

SYSTEMS = ("classifier", "ensemble", "baseline")
CHANCE = 0.05  # a p-value below it is more than chance would make
NEITHER = ("id", "label")  # columns that are no system's

Numbers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Predictions:
    """The labels that systems predict for test rows, and the rows' own."""

    name: str  # as the user calls it
    metric: str  # the task's; accuracy if it is not known
    labels: tuple[str, ...]  # in the task's order, if it is known
    gold: dict[str, str]  # by row id
    systems: dict[str, list[str]]  # in the order of gold


@dataclass(frozen=True)
class Difference:
    """A metric of two systems, and by how much the second is better, with a 95 % interval."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class SystemComparison:
    """A system of two runs, on the same test rows."""

    system: str
    differences: list[Difference]
    rows_that_differ: int  # for which they predict different labels
    right_in_first_alone: int
    right_in_second_alone: int
    p_value: float  # of McNemar's exact test that both are equally often right
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Two runs, on the same test rows."""

    first: str
    second: str
    rows: int
    systems: list[SystemComparison]


def read_predictions(path: Path) -> Predictions:
    """The predictions of a run, by its folder or by its predictions.parquet.

    Raises `UserError` if there are none, or they cannot be read.
    """
    file = _predictions_file(path)
    with reading(str(path)):
        table = pq.read_table(file)
    raise_all(
        f"{path}: no column {name!r}; give the folder of a run, or its {PREDICTIONS}"
        for name in NEITHER
        if name not in table.column_names
    )
    check_ids(path, table["id"].chunks)
    ids, gold = map(str, table["id"].to_pylist()), table["label"].to_pylist()
    names = [
        name
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        if name not in NEITHER and pa.types.is_string(kind)
    ]
    metric, labels = "accuracy", tuple(sorted(set(gold)))
    beside = file.parent / METRICS_FILE
    if beside.exists():
        measured = read_record(beside, Metrics)
        metric, labels = measured.metric, tuple(measured.labels)
    return Predictions(
        name=str(path),
        metric=metric,
        labels=labels,
        gold=dict(zip(ids, gold, strict=True)),
        systems={name: table[name].to_pylist() for name in names},
    )


def compare_predictions(
    first: Predictions, second: Predictions, systems: Sequence[str] = ()
) -> Comparison:
    """The systems that both have, compared: classifier, ensemble, baseline, or those named.

    Raises `UserError` if the test rows or their labels are not the same, or a system is missing.
    """
    raise_all(_differing_rows(first, second))
    raise_all(_unknown_systems(first, second, systems))
    both = [name for name in systems or SYSTEMS if name in first.systems and name in second.systems]
    if not both:
        raise UserError(
            f"no system of both: {first.name} has {listed(first.systems)}; {second.name} has "
            f"{listed(second.systems)}"
        )
    return Comparison(
        first=first.name,
        second=second.name,
        rows=len(first.gold),
        systems=[_compared(first, second, name) for name in both],
    )


def _predictions_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        near = sorted(map(str, path.parent.glob("*")))
        raise UserError(f"{path}: no such run{nearest(str(path), near)}")
    for file in (path / "evaluate" / "all" / PREDICTIONS, path / PREDICTIONS):
        if file.exists():
            return file
    raise UserError(
        f"{path}: no predictions of a test table; give the folder of a run that is finished and "
        "has a test table, --test FILE"
    )


def _differing_rows(first: Predictions, second: Predictions) -> Iterator[str]:
    """Why two tables of predictions are not about the same rows."""
    shared = first.gold.keys() & second.gold.keys()
    if not shared == first.gold.keys() == second.gold.keys():
        yield (
            f"not the same test rows: {first.name} has {len(first.gold)}, {second.name} has "
            f"{len(second.gold)}, and {len(shared)} ids are in both; compare runs with the same "
            "test table"
        )
        return
    others = [row for row, label in first.gold.items() if second.gold[row] != label]
    if others:
        row = others[0]
        yield (
            f"not the same test rows: {len(others)} of {len(shared)} have another label; row "
            f"{row} is {first.gold[row]!r} in {first.name} and {second.gold[row]!r} in "
            f"{second.name}; compare runs with the same test table"
        )


def _unknown_systems(
    first: Predictions, second: Predictions, systems: Iterable[str]
) -> Iterator[str]:
    for name in systems:
        for predictions in (first, second):
            if name not in predictions.systems:
                yield (
                    f"--system {name}: {predictions.name} has no such system"
                    f"{nearest(name, predictions.systems)}"
                )


def _compared(first: Predictions, second: Predictions, system: str) -> SystemComparison:
    of_second = dict(zip(second.gold, second.systems[system], strict=True))
    predicted = first.systems[system], [of_second[row] for row in first.gold]
    labels = dict.fromkeys((*first.labels, *first.gold.values(), *predicted[0], *predicted[1]))
    numbers = {label: n for n, label in enumerate(labels)}
    gold, own, other = (
        [numbers[v] for v in column] for column in (first.gold.values(), *predicted)
    )
    test = paired(gold, own, other)
    differ = sum(a != b for a, b in zip(own, other, strict=True))
    return SystemComparison(
        system=system,
        differences=[
            Difference(metric_title(metric, first.labels), *difference(metric, gold, own, other))
            for metric in _metrics(first, second)
        ],
        rows_that_differ=differ,
        right_in_first_alone=test.gained,
        right_in_second_alone=test.lost,
        p_value=test.p_value,
        sentence=_sentence(first.name, second.name, differ, test),
    )


def _metrics(first: Predictions, second: Predictions) -> list[str]:
    """Accuracy, and the tasks' metric if it is the same and another."""
    titles = {metric_title(p.metric, p.labels) for p in (first, second)}
    return list(dict.fromkeys(["accuracy", *[first.metric] * (len(titles) == 1)]))


def difference(
    metric: str, gold: Indices, first: Indices, second: Indices
) -> tuple[float, float, float, float, float]:
    """A metric of two systems, second - first, and the 95 % interval of that.

    gold, first, second: (rows,) label numbers. The interval is a paired bootstrap's: rows are
    drawn with replacement within each gold label, the same for both systems, as in
    `metrics.measure`.

    >>> difference("accuracy", [0, 1], [0, 0], [0, 0])
    (0.5, 0.5, 0.0, 0.0, 0.0)
    """
    score = METRICS[metric]
    values = score(gold, first), score(gold, second)
    gap = values[1] - values[0]
    cells, weights = _resamples(np.stack([gold, first, second]))
    resampled = [
        score(cells[0], cells[2], sample) - score(cells[0], cells[1], sample) for sample in weights
    ]
    bounds = np.quantile(resampled, [0.025, 0.975]) + gap - np.mean(resampled)
    most = 2 if metric == "mcc" else 1
    low, high = (float(bound) for bound in np.clip(bounds, -most, most))
    return *values, gap, min(low, gap), max(high, gap)


def probability(p_value: float) -> str:
    """A p-value for display, with its sign.

    >>> probability(0.25), probability(1e-9)
    ('= 0.250', '< 0.001')
    """
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _resamples(rows: Numbers) -> tuple[Numbers, Numbers]:
    """The different columns of (gold, first, second), and how often each is in every sample.

    rows: (3, rows); returns (3, cells) and (samples, cells)
    """
    cells, counts = np.unique(rows, axis=1, return_counts=True)
    weights = np.zeros((RESAMPLES, cells.shape[1]), int)
    rng = np.random.default_rng(0)
    for label in np.unique(cells[0]):
        inside = cells[0] == label
        n_rows = counts[inside].sum()
        weights[:, inside] = rng.multinomial(n_rows, counts[inside] / n_rows, RESAMPLES)
    return cells, weights


def _sentence(first: str, second: str, differ: int, test: Paired) -> str:
    """What the test says, in words."""
    if not differ:
        return f"{first} and {second} predict the same label for every row."
    alone = f"{_rows(test.gained)} right in {first} alone and {test.lost} in {second} alone"
    chance = f"p {probability(test.p_value)}"
    if test.p_value >= CHANCE:
        return (
            f"{first} and {second} do not differ in accuracy by more than chance would make: "
            f"{alone} ({chance})."
        )
    better, worse = (first, second) if test.gained > test.lost else (second, first)
    return (
        f"{better} is more accurate than {worse}, by more than chance would make: {alone} "
        f"({chance})."
    )


def _rows(n: int) -> str:
    return "1 row is" if n == 1 else f"{n} rows are"
