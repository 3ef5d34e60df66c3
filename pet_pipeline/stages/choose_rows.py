"""Which rows of the pool to label by hand next: those the ensemble knows least of, spread out."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.combining import disagreement, entropy
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.duplicates import NO_TEXT, Hashes, is_known, known_texts, text_hashes
from pet_pipeline.errors import UserError, listed, nearest
from pet_pipeline.run import CONFIG, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.ensemble import Combine, read_ensemble
from pet_pipeline.stages.from_settings import base_model, precision
from pet_pipeline.stages.prepare import PrepareLabelled
from pet_pipeline.stages.results import SCORES, TABLE, shard_file
from pet_pipeline.tables import Floats, part_name, read_probs, read_scores
from pet_pipeline.units import PlannedUnit, Result, read_record

ID, GUESS, CONFIDENCE, LABEL = "id", "guess", "confidence", "label"  # beside the text columns
CANDIDATES_PER_ROW = 10  # rows that are clustered, for each that is chosen
FEWEST_CANDIDATES = 300
LARGEST_SHARE = 0.4  # of the chosen rows with one guess, while there are others
STARTS = 4  # of k-means; the best is taken

Numbers = npt.NDArray[np.int64]


def margin(probs: Floats) -> Floats:
    """The top probability less the second, (rows,) from (rows, labels)."""
    ordered = np.sort(probs, axis=-1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


# What makes a row worth a label, (rows,), the highest first; from the models' scores
# (models, rows, labels) divided by the ensemble's temperature, and its soft labels (rows, labels).
CRITERIA: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disagreement": lambda scores, probs: disagreement(scores),
    "entropy": lambda scores, probs: entropy(probs),
    "margin": lambda scores, probs: -margin(probs),
}


def choose_rows(run: Run, settings: Settings, *, n: int = 50, by: str = "disagreement") -> pa.Table:
    """The `n` rows of a run's pool to label next, with an empty column for the labels.

    Columns: id, the task's text columns, guess and confidence (the ensemble's), label. By
    disagreement, the first rows are those with the highest Jensen-Shannon divergence between the
    models' distributions at the ensemble's temperature (at 1, models tuned on few rows are sure of
    everything, and a divergence says little more than how the votes are split); by entropy or
    margin, those of the most uncertain soft labels. Of the first 10 n (300 at least), k-means over
    mean-pooled states of the masked language model makes n clusters; each gives its first row.
    At most 40 % have one guess (50 % of two labels) while there are others. Texts that are
    labelled, and all but one of equal texts, are left out. The same run gives the same rows.

    run: a plan of the whole pipeline; nothing is written. by: a key of `CRITERIA`
    Raises `UserError` if the ensemble is not done, or was made with other settings or tables.
    """
    if by not in CRITERIA:
        raise UserError(f"--by: {by!r} is not a criterion{nearest(by, CRITERIA)}")
    unit, soft = finished_ensemble(run)
    if by == "disagreement" and len(unit.members) < 2:
        others = [name for name in CRITERIA if name != by]
        raise UserError(
            f"{run.root}: the ensemble has one model, which disagrees with no other; "
            f"choose by one of {listed(others)}, or add a pattern"
        )
    size = max(CANDIDATES_PER_ROW * n, FEWEST_CANDIDATES)
    found = _candidates(run, unit, soft, by=by, size=size)
    if not len(found.rows):
        raise UserError(f"{run.root}: every text of the pool is labelled, or is empty")
    n_labels = len(unit.labels)
    found = found.take(np.argsort(-found.values, kind="stable"))
    apart = range(len(found.rows))
    found = found.take(spread(apart, found.guesses.tolist(), size, _most(size, n_labels)))
    texts = _texts(unit.pool, unit.columns, found)
    if n < len(found.rows):
        clusters = _clusters(run, settings, texts.to_pylist(), unit.columns, n)
        chosen = spread(clusters, found.guesses.tolist(), n, _most(n, n_labels))
        found, texts = found.take(chosen), texts.take(pa.array(chosen))
    guesses = np.asarray(unit.labels, dtype=object)[found.guesses]
    columns = {name: texts[name] for name in (ID, *unit.columns)}
    columns[GUESS] = pa.array(guesses, pa.string())
    columns[CONFIDENCE] = pa.array(found.confidences.astype(float).round(3), pa.float64())
    columns[LABEL] = pa.array([""] * len(guesses), pa.string())
    return pa.table(columns)


def spread(clusters: Sequence[int], guesses: Sequence[int], size: int, most: int) -> list[int]:
    """Numbers of `size` rows, in order, out of rows that are ordered by their worth.

    One row per cluster, its first, then the first of the others; no more than `most` rows of one
    guess while there are others.

    >>> spread([0, 0, 0, 1], [7, 7, 8, 7], 2, 1)
    [0, 2]
    """
    taken: set[int] = set()
    counts: Counter[int] = Counter()
    served: set[int] = set()
    for per_cluster, limit in ((True, most), (False, most), (False, len(guesses))):
        for n, (cluster, guess) in enumerate(zip(clusters, guesses, strict=True)):
            if len(taken) == size:
                break
            if n in taken or counts[guess] >= limit or (per_cluster and cluster in served):
                continue
            taken.add(n)
            counts[guess] += 1
            served.add(cluster)
    return sorted(taken)


def finished_ensemble(run: Run) -> tuple[Combine, Result]:
    """The last ensemble of a plan, and its soft labels; raises `UserError` if it is not done."""
    ensembles = [unit for unit in run.units if isinstance(unit.unit, Combine)]
    if not ensembles:
        raise UserError(
            f"{run.root}: this run has no ensemble, and so nothing to choose rows by; "
            "give it a pool of unlabelled texts, data.pool"
        )
    last = ensembles[-1]
    result = last.result()
    if result is None:
        raise UserError(f"{run.root}: {_not_done(run, last)}; run it first: {_command(run)}")
    assert isinstance(last.unit, Combine)
    return last.unit, result


def _not_done(run: Run, ensemble: PlannedUnit) -> str:
    """Why there is no ensemble of these settings and tables."""
    before = run.units[: run.units.index(ensemble) + 1]
    undone = [unit for unit in before if unit.result() is None]
    stale = [(unit, why) for unit in undone if (why := run.why(unit))]
    if read_record(ensemble.dir) and stale:
        unit, why = stale[0]
        return (
            "settings or tables have changed since its ensemble was made "
            f"({_name(run, unit)}: {'; '.join(why)})"
        )
    units = "1 unit is" if len(undone) == 1 else f"{len(undone)} units are"
    return f"it is not done up to its ensemble: {units} to do, {_name(run, undone[0])} first"


def _name(run: Run, unit: PlannedUnit) -> str:
    return "/".join(run.place_of(unit))


def _command(run: Run) -> str:
    return f"pet run {run.root / CONFIG} --until ensemble"


@dataclass(frozen=True)
class Candidates:
    """Rows of the pool that may be chosen, an array (rows,) for each thing that is known."""

    shards: Numbers
    rows: Numbers  # in the shard
    values: Floats  # by the criterion
    guesses: Numbers
    confidences: Floats
    hashes: Hashes  # of the texts

    def take(self, numbers: Numbers | Sequence[int]) -> Self:
        """Some of them, in the order given."""
        chosen = np.asarray(numbers, np.int64)
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def joined(self, other: Self) -> Self:
        """The rows of both."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(np.concatenate(pair) for pair in pairs))

    def best(self, size: int) -> Self:
        """The `size` rows of the highest value for each guess, in order; of equal texts, one."""
        order = np.argsort(-self.values, kind="stable")
        order = order[np.sort(np.unique(self.hashes[order], return_index=True)[1])]
        guesses = self.guesses[order]
        kept = [order[guesses == guess][:size] for guess in np.unique(guesses)]
        return self.take(np.sort(np.concatenate([order[:0], *kept])))


def _candidates(run: Run, unit: Combine, soft: Result, *, by: str, size: int) -> Candidates:
    """Up to `size` rows per guess, in the pool's order; a shard at a time is in memory."""
    labelled = _labelled_texts(run, unit.columns)
    temperature = read_ensemble(soft).temperature
    found: Candidates | None = None
    for n in range(len(unit.members[0].shards)):
        read = [read_scores(member.shards[n].dir / SCORES)[1] for member in unit.members]
        probs = read_probs(soft.dir / part_name(n))
        columns = list(unit.columns)
        texts = pq.read_table(shard_file(unit.pool, n), columns=columns)
        hashes = text_hashes(texts, columns)
        shard = Candidates(
            shards=np.full(len(probs), n),
            rows=np.arange(len(probs)),
            values=CRITERIA[by](np.stack(read) / temperature, probs),
            guesses=probs.argmax(1),
            confidences=probs.max(1),
            hashes=hashes,
        )
        shard = shard.take(np.flatnonzero((hashes != NO_TEXT) & ~is_known(hashes, labelled)))
        found = (found.joined(shard) if found else shard).best(size)
    assert found is not None
    return found


def _labelled_texts(run: Run, columns: Sequence[str]) -> Hashes:
    """The texts of the run's labelled, test and development tables."""
    results = [unit.result() for unit in run.units if isinstance(unit.unit, PrepareLabelled)]
    files = [result.dir / TABLE for result in results if result]
    return known_texts(
        [text_hashes(pq.read_table(file, columns=list(columns)), columns) for file in files]
    )


def _texts(pool: Result, columns: Sequence[str], found: Candidates) -> pa.Table:
    """Ids and texts of rows, in their order."""
    shards = np.unique(found.shards)
    numbers = [np.flatnonzero(found.shards == shard) for shard in shards]
    tables = [
        pq.read_table(shard_file(pool, int(shard)), columns=[ID, *columns]).take(
            pa.array(found.rows[own])
        )
        for shard, own in zip(shards, numbers, strict=True)
    ]
    return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(numbers))))


def _clusters(
    run: Run, settings: Settings, rows: list[dict[str, str]], columns: Sequence[str], n: int
) -> list[int]:
    """The number of each row's cluster, of `n`, by the embeddings of the texts."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    from pet_pipeline.embedding import embed_texts

    compute = Compute.of(settings.machine).at(precision(run, settings))
    max_tokens = settings.finetune.max_tokens
    vectors = embed_texts(base_model(run, settings), rows, columns, max_tokens, compute)
    means = KMeans(n, n_init=STARTS, random_state=seed_from("label-next", n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters
        numbers: list[int] = means.fit_predict(vectors.astype(np.float64)).tolist()
    return numbers


def _most(size: int, n_labels: int) -> int:
    """Rows of one guess among `size`."""
    return max(math.floor(LARGEST_SHARE * size), math.ceil(size / n_labels))
