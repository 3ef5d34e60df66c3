"""The task of a run: the one that is named, or one made from the labelled table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pet_pipeline.config import Settings
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.errors import UserError, at_place, listed, raise_all
from pet_pipeline.labelled import fitting_metric, labels_of_table, text_columns
from pet_pipeline.new_task import new_task, save_task, task_of, weak_words_note
from pet_pipeline.patterns import TASK_FILE, Task, choose_patterns, load_task
from pet_pipeline.progress import say
from pet_pipeline.run import OWN_TASK, Run
from pet_pipeline.settings import NO_TASK
from pet_pipeline.sources import check_source
from pet_pipeline.stages.from_settings import base_model, pinned_source
from pet_pipeline.stages.merge_labels import own_labelled


def find_task(run: Run, settings: Settings) -> Task:
    """The task that the settings name; without a name, the one in the run's folder `task`.

    That is made from the labelled table by the first run, and taken as it is by every later one.
    It is called like the run's folder at that time. Of the patterns it has those that the settings
    choose. Raises `UserError` with all problems of its files, about names of patterns that it does
    not have, or if there is no table to make it from.
    """
    if settings.task:
        return choose_patterns(load_task(settings.task), settings.patterns)
    folder = run.root / OWN_TASK
    name = run.pin("task", lambda: run.root.resolve().name)  # a folder may be moved
    if folder.exists():
        task = choose_patterns(replace(load_task(folder), name=name), settings.patterns)
        if settings.data.labelled and not own_labelled(run).exists():
            _check_labels(_labels(run, settings, task.columns), task, folder)
        return task
    files = task_files(run, settings, tokenizer=None if run.plan else _tokenizer(run, settings))
    task = choose_patterns(task_of(files, name), settings.patterns)
    if run.plan:
        return task
    save_task(folder, files)
    say(f"task: {folder}, made from {settings.data.labelled}; better label words make it better")
    if note := weak_words_note(task.labels, task.columns, folder / TASK_FILE):
        say(f"note: {note}")
    return task


def task_files(
    run: Run,
    settings: Settings,
    *,
    labels: Sequence[str] = (),
    words: Mapping[str, str | Sequence[str]] | None = None,
    templates: Sequence[str] | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict[str, str]:
    """The files of a task for a run's tables, by name; see `new_task`.

    labels: in their order; else those of the words, if they are all that the labelled table has,
    or the table's. Raises `UserError` if there is no table to find labels or text columns in.
    """
    data = settings.data
    if not data.labelled and not (data.pool and (labels or words)):
        raise UserError(NO_TASK)
    with at_place("data.labelled" if data.labelled else "data.pool"):
        source = pinned_source(run, data.labelled or data.pool)
        columns = text_columns(source, data.columns)
    counts = _labels(run, settings, columns) if data.labelled else {}
    if not labels:
        labels = [*words] if words and {*words} >= {*counts} else [*counts]
    return new_task(
        labels,
        columns,
        metric=fitting_metric(counts) if counts else "accuracy",
        words=words,
        templates=templates,
        tokenizer=tokenizer,
        source=data.labelled,
    )


def _labels(run: Run, settings: Settings, columns: tuple[str, ...]) -> dict[str, int]:
    """The labels of the labelled table, once its columns have been checked."""
    data, place = settings.data, "data.labelled"
    raise_all(check_source(data.labelled, columns, data.columns, labelled=True, place=place))
    with at_place(place):
        source = pinned_source(run, data.labelled)
        return labels_of_table(source, data.columns.get("label", "label"))


def _check_labels(labels: Mapping[str, int], task: Task, folder: Path) -> None:
    """Raise `UserError` if a table has labels that the task made from it does not have."""
    new = [label for label in labels if label not in task.labels]
    if new:
        raise UserError(
            f"data.labelled: {listed(new)} {'is' if len(new) == 1 else 'are'} not among the "
            f"labels of {folder / TASK_FILE}; add what is missing there, with label words, or "
            f"remove {folder} and run again to make a new task"
        )


def _tokenizer(run: Run, settings: Settings) -> Tokenizer | None:
    """The model's tokenizer; None if it cannot be loaded, which `prepare` reports."""
    from pet_pipeline.pretrained import load_tokenizer

    with suppress(UserError):
        return load_tokenizer(base_model(run, settings))
    return None
