"""`pet init`: a task's folder from a labelled table, to be looked at and bettered."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_pipeline.commands.options import ModelName, program_name, user_errors
from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.errors import at_place, nearest, raise_all
from pet_pipeline.settings import table_name

if TYPE_CHECKING:
    from pet_pipeline.encoding import Tokenizer

SHOWN_ROWS = 1


@dataclass(frozen=True)
class _Answers:
    """What a task is made from; empty where it was not said."""

    texts: tuple[str, ...]
    label: str
    name: str


def init(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Table of labelled texts.")],
    text_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column of texts; repeatable.  [default: text]"),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of labels.  [default: label]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task and of its folder.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder that the task's folder is put in.")] = Path(
        "patterns"
    ),
    model: ModelName = None,
) -> None:
    """Make a task's folder from a labelled table.

    On a terminal it asks for what is not given.
    """
    from pet_pipeline.labelled import first_values
    from pet_pipeline.sources import find_source

    with user_errors():
        values = first_values(find_source(table))
        answers = _Answers(tuple(text_column or ()), label_column or "", name or "")
        raise_all(_wrong(answers, table, values))
        if _on_a_terminal():
            answers = _ask(answers, table, values)
        else:
            answers = _Answers(
                answers.texts or ("text",) * ("text" in values),
                answers.label or "label" * ("label" in values),
                answers.name,
            )
            raise_all(_missing(answers, table, values))
        _make(answers, table, values, folder / answers.name, model)


def _make(
    answers: _Answers,
    table: str,
    values: Mapping[str, Sequence[str]],
    made: Path,
    model: str | None,
) -> None:
    """Write the task and show it."""
    from pet_pipeline.labelled import fitting_metric, labels_of_table, task_columns
    from pet_pipeline.new_task import new_task, save_task, weak_words_note
    from pet_pipeline.patterns import TASK_FILE, load_task
    from pet_pipeline.show import print_patterns
    from pet_pipeline.sources import find_source

    labels = labels_of_table(find_source(table), answers.label)
    columns = task_columns(answers.texts)
    if model is None and Path(EMBEDDED_MODEL).is_dir():
        model = EMBEDDED_MODEL
    files = new_task(
        labels,
        tuple(columns),
        metric=fitting_metric(labels),
        tokenizer=_tokenizer(model),
        source=table,
    )
    save_task(made, files)
    typer.echo(f"wrote {made}: {', '.join(files)}\n")
    task = load_task(made)
    shown = range(min(SHOWN_ROWS, len(values[answers.label])))
    rows = [{column: values[own][n] for column, own in columns.items()} for n in shown]
    described = {}
    if model is not None:
        from pet_pipeline.describe import describe_patterns

        described = describe_patterns(task, model, rows, prior=False)
    print_patterns(task, rows, described)
    if note := weak_words_note([*labels], tuple(columns), made / TASK_FILE):
        typer.echo(f"note: {note}\n")
    typer.echo(f"Better the label words in {made / TASK_FILE} if you can. Then:\n")
    typer.echo(f"  {_next_command(answers, table, made)}")


def _wrong(answers: _Answers, table: str, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong with the answers that were given."""
    named = [("--text-column", text) for text in answers.texts]
    for option, column in [*named, ("--label-column", answers.label)]:
        if column and column not in values:
            yield f"{option}: {table} has no column {column!r}{nearest(column, values)}"
    for column in dict.fromkeys(answers.texts):
        if [*answers.texts, answers.label].count(column) > 1:
            yield f"--text-column: {column!r} is named for two columns"
    if answers.name and (Path(answers.name).name != answers.name or answers.name.startswith(".")):
        yield f"--name: {answers.name!r} is not a folder's name; --folder says where to put it"


def _missing(answers: _Answers, table: str, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What was not said and cannot be known."""
    from pet_pipeline.labelled import likely_label, likely_text

    label = answers.label or likely_label(values, answers.texts)
    text = likely_text(values, [label])
    for option, column, likely in (
        ("--text-column", "text" if not answers.texts else "", text),
        ("--label-column", "label" if not answers.label else "", label),
    ):
        if column:
            way = f"{option} {shlex.quote(likely)} may be it" if likely else "name it"
            yield f"{option}: not given, and {table} has no column {column!r}; {way}"
    if not answers.name:
        yield f"--name: not given; name the task, as in --name {shlex.quote(table_name(table))}"


def _ask(answers: _Answers, table: str, values: Mapping[str, Sequence[str]]) -> _Answers:
    """The answers, with those that a person gives on a terminal."""
    from pet_pipeline.labelled import likely_label, likely_text

    label = answers.label or likely_label(values, answers.texts)
    texts = answers.texts or (
        _choose("Column of the texts", likely_text(values, [label]), list(values)),
    )
    if not answers.label:
        others = [column for column in values if column not in texts]
        label = _choose("Column of the labels", likely_label(values, texts), others)
    name = answers.name or typer.prompt("Name of the task", default=table_name(table))
    asked = _Answers(texts, label, name)
    raise_all(_wrong(asked, table, values))
    return asked


def _choose(question: str, likely: str, columns: Sequence[str]) -> str:
    """The column that a person names, who is asked until it is one."""
    while True:
        asked = f"{question} ({', '.join(columns)})"
        answer: str = typer.prompt(asked, default=likely or None)
        if answer in columns:
            return answer
        typer.echo(f"{answer!r} is not one of them{nearest(answer, columns)}", err=True)


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _tokenizer(model: str | None) -> Tokenizer | None:
    if model is None:
        return None
    from pet_pipeline.models import resolve_model
    from pet_pipeline.pretrained import load_tokenizer

    with at_place("model"):
        return load_tokenizer(resolve_model(model))


def _next_command(answers: _Answers, table: str, made: Path) -> str:
    """How to run the task; columns are named where the run would not find them."""
    from pet_pipeline.labelled import task_columns

    words = [program_name(), "run", "--task", str(made), "--labelled", table, "--pool", "POOL"]
    if any(column != own for column, own in task_columns(answers.texts).items()):
        for text in answers.texts:
            words += ["--text-column", text]
    if answers.label != "label":
        words += ["--label-column", answers.label]
    return shlex.join(words)
