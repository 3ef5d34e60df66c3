"""LM-BFF's searches, before the fine-tunes: templates and label words become pattern files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from pet_pipeline.config import Settings
from pet_pipeline.patterns import Pattern, Task, load_task
from pet_pipeline.run import Run
from pet_pipeline.stages.results import FoundPattern, Tables
from pet_pipeline.stages.search_templates import search_templates
from pet_pipeline.stages.search_words import search_words, words_name
from pet_pipeline.units import Result

NAME = "found-{}"


@dataclass(frozen=True)
class Searched:
    """The task with the patterns that were found, and the searches themselves."""

    task: Task
    templates: Result | None = None
    words: tuple[Result, ...] = ()


def find_patterns(run: Run, task: Task, tables: Tables, settings: Settings) -> Searched:
    """The task with found patterns beside its own, or instead of them; the task if none is asked.

    It is the task, too, if there is no pool that the patterns would be for.
    Found patterns are files in `search/templates` and in `search/words-...` of the run, which are
    task folders: copy a file into your own.
    """
    chosen = settings.search
    if tables.labelled is None or tables.pool is None:
        return Searched(task)
    if not chosen.templates and chosen.label_words == "none":
        return Searched(task)
    found: tuple[Pattern, ...] = ()
    templates, words = None, []
    if chosen.templates:
        names = _names(task, chosen.keep)
        templates = search_templates(run, task, tables, settings, names)
        found = _read_found(templates, task, names)
    if chosen.label_words != "none":
        bases = found or task.patterns
        words = search_words(run, task, bases, tables, settings)
        read = [
            _read_found(result, task, [words_name(base)])
            for base, result in zip(bases, words, strict=True)
        ]
        found = tuple(chain.from_iterable(read))
    if chosen.use == "add":
        task = replace(task, patterns=(*task.patterns, *found))
    else:
        task = replace(task, patterns=found, others=(*task.others, *task.patterns))
    return Searched(task, templates, tuple(words))


def _names(task: Task, count: int) -> list[str]:
    """Names of found patterns that the task does not have."""
    taken = [re.fullmatch(NAME.format(r"(\d+)"), pattern.name) for pattern in task.patterns]
    first = 1 + max((int(match[1]) for match in taken if match), default=0)
    return [NAME.format(first + n) for n in range(count)]


def _read_found(result: Result, task: Task, names: Sequence[str]) -> tuple[Pattern, ...]:
    """The patterns of a search; only named if it was not run yet."""
    if not result.info:
        nothing = ((),) * len(task.labels)
        return tuple(FoundPattern(name, (), task.labels, nothing, result) for name in names)
    return tuple(
        FoundPattern(p.name, p.parts, p.labels, p.words, result)
        for p in load_task(result.dir).patterns
    )
