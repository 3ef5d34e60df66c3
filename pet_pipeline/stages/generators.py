"""The generators of candidate templates, each a unit; `GENERATORS` names them for the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_records, write_records
from pet_pipeline.run import Run
from pet_pipeline.search.connectors import connector_templates, mined_templates
from pet_pipeline.search.templates import Candidate, LabelledTexts, Words, verbalizer_of
from pet_pipeline.stages.from_settings import base_model, pinned_model, precision
from pet_pipeline.stages.results import Tables, sample_shards, training_rows
from pet_pipeline.tables import shard_files
from pet_pipeline.units import Info, Result, Unit

WRITING_ROWS = 32  # labelled rows that templates are written for; more add seconds, not sense
MINED_ROWS = 20_000  # rows of the pool that templates are mined from
CANDIDATES = "candidates-{}.json"  # a file for each location of the mask


@dataclass(frozen=True)
class SearchTask:
    """What templates are searched for."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    words: Words  # of each label

    @classmethod
    def of(cls, task: Task) -> SearchTask:
        """A task with the label words that most of its patterns have."""
        return cls(task.columns, task.labels, verbalizer_of(task.patterns))


@dataclass(frozen=True)
class SearchContext:
    """What a generator's unit is made from."""

    run: Run
    task: SearchTask
    tables: Tables
    settings: Settings

    @property
    def labelled(self) -> Result:
        """The labelled table; a search without one is refused before."""
        assert self.tables.labelled is not None
        return self.tables.labelled


@dataclass(frozen=True)
class Infill(Unit):
    """Templates that the masked LM itself writes around the label words."""

    task: SearchTask
    labelled: Result
    base: Pretrained
    beam: int
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the candidates of each location."""
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.search.infilling import infill_templates

        lm = MaskedLM.load(self.base, compute.at(self.precision))
        texts = written_for(self.task, self.labelled)
        return _write(out, infill_templates(lm, texts, beam=self.beam, max_tokens=self.max_tokens))


@dataclass(frozen=True)
class WriteBySeq2Seq(Unit):
    """Templates that a sequence-to-sequence model writes in place of its sentinels."""

    task: SearchTask
    labelled: Result
    t5: Pretrained
    beam: int
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the candidates of each location."""
        from pet_pipeline.search.seq2seq import Seq2SeqLM, seq2seq_templates

        lm = Seq2SeqLM.load(self.t5, compute.at(self.precision))
        texts = written_for(self.task, self.labelled)
        return _write(out, seq2seq_templates(lm, texts, beam=self.beam, max_tokens=self.max_tokens))


@dataclass(frozen=True)
class FindTriggers(Unit):
    """Trigger words that lower the loss, found by gradients (AutoPrompt)."""

    task: SearchTask
    labelled: Result
    base: Pretrained
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the candidates of each location."""
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.search.triggers import trigger_templates

        lm = MaskedLM.load(self.base, compute.at(self.precision))
        texts = written_for(self.task, self.labelled)
        return _write(out, trigger_templates(lm, texts, max_tokens=self.max_tokens))


@dataclass(frozen=True)
class Mine(Unit):
    """Text around label words in the pool, and text that opens sentences there."""

    task: SearchTask
    pool: Result
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the candidates of each location."""
        texts = (row[c] for row in sample_pool(self.pool, MINED_ROWS) for c in self.task.columns)
        return _write(out, mined_templates(texts, self.task.columns, self.task.words))


@dataclass(frozen=True)
class ListConnectors(Unit):
    """Templates from a short list of connectors."""

    task: SearchTask
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the candidates of each location."""
        return _write(out, connector_templates(self.task.columns, self.task.words))


def _infill(given: SearchContext) -> Unit:
    settings = given.settings
    return Infill(
        given.task,
        given.labelled,
        base_model(given.run, settings),
        settings.search.beam,
        settings.finetune.max_tokens,
        precision(given.run, settings),
    )


def _write_by_t5(given: SearchContext) -> Unit:
    settings = given.settings
    return WriteBySeq2Seq(
        given.task,
        given.labelled,
        pinned_model(given.run, settings.search.t5, "search.t5"),
        settings.search.beam,
        settings.finetune.max_tokens,
        precision(given.run, settings),
    )


def _find_triggers(given: SearchContext) -> Unit:
    settings = given.settings
    return FindTriggers(
        given.task,
        given.labelled,
        base_model(given.run, settings),
        settings.finetune.max_tokens,
        precision(given.run, settings),
    )


# By the name in search.generators, what makes the unit.
GENERATORS: dict[str, Callable[[SearchContext], Unit]] = {
    "mlm": _infill,
    "t5": _write_by_t5,
    "autoprompt": _find_triggers,
    "mine": lambda given: Mine(given.task, given.tables.need_pool("search")),
    "connectors": lambda given: ListConnectors(given.task),
}


def written_for(task: SearchTask, labelled: Result) -> LabelledTexts:
    """The labelled rows that templates are written for."""
    rows, gold = some_rows(labelled, task.labels, WRITING_ROWS)
    return LabelledTexts(rows, gold, task.columns, task.words)


def some_rows(
    labelled: Result, labels: tuple[str, ...], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """So many labelled rows, or all: as many of each label, the first ones."""
    rows, gold = training_rows([labelled], labels)
    seen = [gold[:n].count(label) for n, label in enumerate(gold)]
    chosen = sorted(sorted(range(len(rows)), key=lambda n: (seen[n], n))[:count])
    return [rows[n] for n in chosen], [gold[n] for n in chosen]


def sample_pool(pool: Result, count: int) -> Iterator[dict[str, Any]]:
    """A seeded sample of the pool's rows, across all shards and in their order."""
    files = shard_files(pool.dir)
    sizes = [pq.read_metadata(file).num_rows for file in files]
    for file, inside in zip(files, sample_shards(sizes, count, "pool sample"), strict=True):
        yield from pq.read_table(file).take(pa.array(inside, pa.int64())).to_pylist()


def read_candidates(result: Result) -> list[list[Candidate]]:
    """The candidates that a generator wrote, by location of the mask."""
    count = len(list(result.dir.glob(CANDIDATES.format("*"))))
    return [read_records(result.dir / CANDIDATES.format(n), Candidate) for n in range(count)]


def _write(out: Path, groups: Sequence[list[Candidate]]) -> Info:
    for number, group in enumerate(groups):
        write_records(out / CANDIDATES.format(number), group)
    return {"candidates": sum(len(group) for group in groups)}
