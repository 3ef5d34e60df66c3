"""The labels' prior of each model, which is subtracted from its scores: measured once per model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pet_pipeline.calibration import Prior, content_free_rows
from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.demonstrations import Rows
from pet_pipeline.encoded import read_encoded
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.readers import Reader
from pet_pipeline.stages.results import ENCODED, VECTORS, Inputs, sample_shards
from pet_pipeline.tables import read_scores
from pet_pipeline.units import Info, Result, Unit

if TYPE_CHECKING:
    from pet_pipeline.pvp import Pvp

PRIOR_ROWS = 200  # of the pool, on which a prior is measured
PRIOR = "prior.json"


@dataclass(frozen=True)
class PriorSource:
    """How the labels' prior is measured: on rows without content, or on a sample of the pool."""

    method: str  # a key of CALIBRATIONS
    columns: tuple[str, ...]
    encoded: tuple[Result, ...] = ()  # the pool's shards in the pattern; none: content-free rows
    vectors: tuple[Result, ...] = ()  # their embeddings, if demonstrations are chosen by them

    def measure(self, pvp: Pvp, seed: int) -> Prior:
        """The prior of a model; seed: of the draws of demonstrations."""
        return pvp.measure_prior(self._rows(pvp), self.method, seed=seed)

    def _rows(self, pvp: Pvp) -> Rows:
        if not self.encoded:
            return pvp.rows(content_free_rows(self.columns))
        sizes = [shard.info["rows"] for shard in self.encoded]
        encoded, vectors = [], []
        for n, inside in enumerate(sample_shards(sizes, PRIOR_ROWS, "prior")):
            if inside:
                rows = read_encoded(self.encoded[n].dir / ENCODED)[1]
                encoded += [rows[row] for row in inside]
            if inside and self.vectors:
                vectors.append(read_scores(self.vectors[n].dir / VECTORS)[1][inside])
        return Rows(encoded, np.concatenate(vectors) if vectors else None)


@dataclass(frozen=True)
class MeasurePrior(Unit):
    """What each label scores with one model, whatever the text."""

    reader: Reader
    source: PriorSource
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write prior.json."""
        seed = seed_from("prior", self.reader.pattern.name)
        prior = self.source.measure(self.reader.load(compute), seed)
        write_record(out / PRIOR, prior)
        return {"method": prior.method}


def measure_priors(
    run: Run,
    task: Task,
    readers: Mapping[str, Reader],
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int,
) -> dict[str, Result]:
    """By model, the prior that is subtracted from its scores; empty if none is asked for."""
    sources = {
        name: prior_source(task, inputs, reader.pattern.name, settings)
        for name, reader in readers.items()
    }
    units = {
        name: MeasurePrior(readers[name], source) for name, source in sources.items() if source
    }
    return run.do(f"gen-{generation}/calibrate", units) if units else {}


def prior_source(
    task: Task, inputs: Inputs, pattern: str, settings: Settings
) -> PriorSource | None:
    """How the settings want the prior of a pattern's models measured; None if they want none."""
    chosen = settings.calibration
    if chosen.method == "none":
        return None
    if chosen.prior == "content-free":
        return PriorSource(chosen.method, task.columns)
    shards = [part for part in inputs.of(pattern) if part.shard is not None]
    return PriorSource(
        chosen.method,
        task.columns,
        tuple(part.encoded for part in shards),
        tuple(part.vectors for part in shards if part.vectors),
    )


def read_prior(result: Result) -> Prior:
    """The prior that a unit measured."""
    return read_record(result.dir / PRIOR, Prior)
