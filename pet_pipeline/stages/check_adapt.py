"""Checks of what the model is adapted on, and of the teacher, before anything long starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, at_place, listed
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.run import Run
from pet_pipeline.sources import Source, count_rows, open_datasets
from pet_pipeline.stages.from_settings import adaptation, base_model, pinned_model, pinned_source
from pet_pipeline.units import Info, Unit

FEWEST_TOKENS = 8
OF_POOL = ("pool", "prompted")  # values of adapt.text that name no table
BASE = "base"  # as the teacher: the model that is adapted


def adapt_problems(settings: Settings) -> Iterator[str]:
    """What is wrong with the settings of the adaptation, whatever the tables say."""
    chosen = settings.adapt
    if not chosen.text:
        return
    if chosen.text not in OF_POOL and chosen.text.isidentifier() and not Path(chosen.text).exists():
        close = difflib.get_close_matches(chosen.text.lower(), OF_POOL, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        yield f"adapt.text: {chosen.text!r} is not a table, nor one of {listed(OF_POOL)}{hint}"
    if not settings.data.pool:
        yield (
            f"adapt.text: {chosen.text!r} needs a pool, data.pool; without one only the baseline "
            "is trained, which starts from the model as it is"
        )
    if chosen.text == "prompted" and chosen.packed:
        yield "adapt.packed: 'prompted' texts are one per sequence; take packed = false"
    if chosen.max_tokens < FEWEST_TOKENS:
        yield f"adapt.max_tokens: {chosen.max_tokens} is too few; the minimum is {FEWEST_TOKENS}"


def source_problems(run: Run, task: Task, settings: Settings) -> list[str]:
    """What keeps the table that `adapt.text` names from being read; reads no texts."""
    if settings.adapt.text in ("", *OF_POOL):
        return []
    try:
        with at_place("adapt.text"):
            source = pinned_source(run, settings.adapt.text)
            columns = table_columns(source, task, settings)
            if count_rows(source, columns, table_names(task, settings)) < 2:
                raise UserError(f"{source} has no texts, or one; give more, of the pool's kind")
    except UserError as error:
        return list(error.problems)
    return []


def table_columns(source: Source, task: Task, settings: Settings) -> tuple[str, ...]:
    """The text columns of the named table: those of the task that it has, or else `text`.

    Raises `UserError` if it has none.
    """
    names = table_names(task, settings)
    known = list(open_datasets(source, task.columns, names)[0][1].schema.names)
    if columns := tuple(c for c in task.columns if names.get(c, c) in known):
        return columns
    if "text" in known:
        return ("text",)
    wanted = dict.fromkeys([*(names.get(c, c) for c in task.columns), "text"])
    raise UserError(f"{source} has no text column, {listed(wanted)}; it has {listed(known)}")


def table_names(task: Task, settings: Settings) -> dict[str, str]:
    """The names that the tables have for the task's text columns."""
    return {c: name for c, name in settings.data.columns.items() if c in task.columns}


def teacher_model(run: Run, settings: Settings) -> Pretrained | None:
    """The encoder whose sentence embeddings the adaptation keeps, if there is one."""
    keep = settings.adapt.keep
    if not keep or not settings.adapt.text:
        return None
    return base_model(run, settings) if keep == BASE else pinned_model(run, keep, "adapt.keep")


def teacher_unit(run: Run, settings: Settings) -> dict[str, Unit]:
    """The unit that loads the teacher, if it is another model than the one that is adapted."""
    teacher = teacher_model(run, settings)
    if teacher is None or settings.adapt.keep == BASE:
        return {}
    base = base_model(run, settings)
    return {"teacher": CheckTeacher(base, teacher, adaptation(settings, base).max_tokens)}


@dataclass(frozen=True)
class CheckTeacher(Unit):
    """That a model can be the teacher of another: the same tokens, and states of the same size."""

    base: Pretrained
    teacher: Pretrained
    max_tokens: int

    def work(self, out: Path, compute: Compute) -> Info:
        """Load the teacher; nothing is written."""
        from pet_pipeline.adapting import Teacher, check_teacher

        with at_place("adapt.keep"):
            check_teacher(self.teacher, self.base, self.max_tokens)
            Teacher.load(self.teacher, compute)
        return {}
