"""Every model scores every shard of the pool, and the tables to measure on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.demonstrations import Rows
from pet_pipeline.encoded import read_encoded
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.calibrate import measure_priors, read_prior
from pet_pipeline.stages.demonstrate import examples_of, read_vectors
from pet_pipeline.stages.readers import Reader, reader_of, release
from pet_pipeline.stages.results import (
    ENCODED,
    LOADING,
    SCORES,
    Inputs,
    Model,
    Scores,
    need_inputs,
    rows_of,
)
from pet_pipeline.tables import write_scores
from pet_pipeline.units import Info, Result, Unit


def annotate(
    run: Run,
    task: Task,
    models: list[Model],
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int = 0,
) -> list[Scores]:
    """The models' scores of the pool, a shard per unit, and of the test and development tables."""
    tables = need_inputs(inputs, "annotate").tables
    examples = examples_of(run, task, tables, settings)
    readers = {model.name: reader_of(run, model, inputs, settings, examples) for model in models}
    priors = measure_priors(run, task, readers, inputs, settings, generation=generation)
    units = {
        f"{model.name}-{part.name}": Annotate(
            reader=readers[model.name],
            encoded=part.encoded,
            shard=part.shard,
            vectors=part.vectors if examples else None,
            prior=priors.get(model.name),
        )
        for model in models
        for part in inputs.of(model.pattern.name)
    }
    results = run.do(f"gen-{generation}/annotate", units)
    release()
    return [_scores(model, inputs, results) for model in models]


@dataclass(frozen=True)
class Annotate(Unit):
    """The scores of one model on a shard of the pool, or on another table."""

    reader: Reader
    encoded: Result
    shard: int | None
    vectors: Result | None  # embeddings of the rows
    prior: Result | None
    version = 4
    figure = "rows_per_second"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write scores.parquet."""
        pvp, pattern = self.reader.load(compute), self.reader.pattern
        pvp.prior = read_prior(self.prior) if self.prior else None
        ids, encoded = read_encoded(self.encoded.dir / ENCODED)
        # The same draws whichever model reads the rows.
        seed = seed_from("annotate", pattern.name, "table" if self.shard is None else self.shard)
        start = time.perf_counter()
        rows = Rows(encoded, read_vectors(self.vectors))
        scores = pvp.scores(rows, seed=seed, what=f"annotate {self.reader.model.dir.name}")
        seconds = time.perf_counter() - start
        write_scores(out / SCORES, ids, scores, pattern.labels)
        rate = round(len(encoded) / max(seconds, 1e-9), 1)
        return {"rows": len(encoded), "rows_per_second": rate}

    def cost(self) -> float:
        """By the rows, as often as they are read."""
        return LOADING + self.reader.draws * rows_of(self.encoded)


def _scores(model: Model, inputs: Inputs, results: dict[str, Result]) -> Scores:
    shards: list[Result] = []
    tables: dict[str, Result] = {}
    for part in inputs.of(model.pattern.name):
        result = results[f"{model.name}-{part.name}"]
        if part.shard is None:
            tables[part.name] = result
        else:
            shards.append(result)
    return Scores(model, tuple(shards), tables)
