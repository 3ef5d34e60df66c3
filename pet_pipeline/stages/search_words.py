"""The label-word search: one unit for each pattern, which writes it again with found words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern, Task, template_of
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.search.word_search import WordSearch
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.from_settings import base_model, precision
from pet_pipeline.stages.results import Tables, training_rows
from pet_pipeline.task_files import write_pattern, write_task
from pet_pipeline.units import Info, Result, Unit

WORDS = "words.json"


@dataclass(frozen=True)
class WordsRecord:
    """The label words found for a pattern; the counts are in-sample, on the rows searched."""

    name: str
    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    correct: int  # rows right with the found words, before tuning
    own_correct: int  # with the pattern's own words
    rows: int
    combinations: int  # assignments of a word to each label
    exact: bool  # whether all of them were compared


def search_words(
    run: Run, task: Task, bases: Sequence[Pattern], tables: Tables, settings: Settings
) -> list[Result]:
    """For each pattern the folder of one with the same template and found label words."""
    chosen, labelled = settings.search, tables.labelled
    assert labelled is not None
    search = WordSearch(
        method=chosen.label_words,
        candidates_per_label=chosen.candidates_per_label,
        neighbours=chosen.neighbours,
        words_per_label=chosen.words_per_label,
    )
    units = {
        f"words-{pattern.name}": FindWords(
            base=base_model(run, settings),
            labelled=labelled,
            columns=task.columns,
            metric=task.metric,
            pattern=pattern,
            search=search,
            max_tokens=settings.finetune.max_tokens,
            precision=precision(run, settings),
        )
        for pattern in bases
    }
    return list(run.do("search", units).values())


def read_words(result: Result) -> WordsRecord:
    """The label words that were found for a pattern."""
    return read_record(result.dir / WORDS, WordsRecord)


def words_name(pattern: Pattern) -> str:
    """The name of a pattern that has another one's template, and found label words."""
    return f"{pattern.name}-words"


@dataclass(frozen=True)
class FindWords(Unit):
    """A pattern with label words that the masked LM itself would say."""

    base: Pretrained
    labelled: Result
    columns: tuple[str, ...]
    metric: str
    pattern: Pattern
    search: WordSearch
    max_tokens: int
    precision: str
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write task.toml, the pattern's file and words.json."""
        from pet_pipeline.pvp import Pvp
        from pet_pipeline.search.label_words import find_label_words

        labels = self.pattern.labels
        pvp = Pvp.load(
            self.base,
            self.pattern,
            max_tokens=self.max_tokens,
            decoding="parallel",
            compute=compute.at(self.precision),
        )
        rows, gold = training_rows([self.labelled], labels)
        seed = seed_from("label words", self.pattern.name)
        words = find_label_words(pvp, rows, gold, self.search, seed=seed)
        write_task(out, self.columns, labels, self.metric, words.words)
        comment = (
            f"Label words of {self.pattern.name} by a search ({self.search.method}): before "
            f"tuning they get {words.correct} of {words.rows} labelled rows right, its own "
            f"{words.own_correct} (in-sample: the search chose by these rows)"
        )
        name = words_name(self.pattern)
        write_pattern(out / f"{name}.toml", comment, template_of(self.pattern), labels, words.words)
        record = WordsRecord(
            name=name,
            labels=labels,
            words=words.words,
            correct=words.correct,
            own_correct=words.own_correct,
            rows=words.rows,
            combinations=words.combinations,
            exact=words.exact,
        )
        write_record(out / WORDS, record)
        counts = {"correct": words.correct, "own_correct": words.own_correct, "rows": words.rows}
        return {f"in_sample_{key}": value for key, value in counts.items()}
