"""Label texts, or a whole table batch by batch, with a finished classifier."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pet_pipeline.classifier import Classifier, Texts
from pet_pipeline.errors import UserError, at_place, listed, raise_all
from pet_pipeline.formats import FORMATS, suffix_of
from pet_pipeline.progress import Advance, progress, say
from pet_pipeline.sources import check_source, find_source
from pet_pipeline.tables import Floats
from pet_pipeline.texts import is_empty
from pet_pipeline.whole_tables import Batch, WholeTable, read_lines, read_whole
from pet_pipeline.writers import STANDARD, check_columns, opened_output, write_batches

LINES = ".txt"  # of standard input: one text per line
STEP_ROWS = 512  # between two looks at the rate; of all lengths, so that it is the next ones' too
SHOWN_LABELS = 20
EMPTY_TEXT = "empty text"


@dataclass(frozen=True)
class Answers:
    """What a classifier says of some rows: probabilities (rows, labels), and a label for each.

    A row without a label has the reason in `why_empty`; the probabilities of an empty text mean
    nothing.
    """

    probs: Floats
    labels: list[str | None]
    why_empty: list[str | None]


def answer(classifier: Classifier, rows: Texts, threshold: float = 0.0) -> Answers:
    """The most probable label of each row; none for empty texts and below the threshold."""
    probs = np.asarray(classifier.predict_proba(rows), np.float32)
    reasons = [
        EMPTY_TEXT if is_empty(row, classifier.columns) else _below(highest, threshold)
        for row, highest in zip(rows, probs.max(1), strict=True)
    ]
    labels = [
        None if reason else classifier.labels[best]
        for best, reason in zip(probs.argmax(1), reasons, strict=True)
    ]
    return Answers(probs, labels, reasons)


def predict_table(
    classifier: Classifier,
    table: str,
    output: str,
    names: Mapping[str, str],
    *,
    threshold: float = 0.0,
    input_suffix: str = LINES,
    output_suffix: str = ".csv",
) -> None:
    """Write a table with all its columns, in which a classifier has labelled the rows.

    table, output: files, read and written as their suffixes say, or "-" for standard input and
    output, whose suffixes are given; names: the classifier's columns by the table's names
    The added columns are `label` (`predicted` if the table has a `label` of its own),
    `confidence`, `why_empty` of rows without a label, and `prob_<label>`. A file is replaced when
    all is written. Raises `UserError` if the table cannot be read, or the output not written.
    """
    place = "standard input" if table == STANDARD else table
    form = FORMATS[output_suffix if output == STANDARD else suffix_of(str(output))]
    tally = _Tally()
    with _opened_table(classifier, table, names, input_suffix) as whole:
        schema = _output_schema(whole.schema, classifier.labels, place)
        with at_place(f"--output: {output}"):
            check_columns(schema, form)
        first = next(whole.batches, None)
        if first is None:
            raise UserError(f"--table: {place} has no rows")
        batches = itertools.chain((first,), whole.batches)
        with opened_output(output) as file, _progress(output, whole.rows) as advance:
            labelled = _labelled(classifier, batches, threshold, schema, tally)
            own = whole.delimiter if form == "csv" and whole.delimiter != "\t" else None
            write_batches(file, form, schema, _counted(labelled, advance), own)
    tally.say("standard output" if output == STANDARD else output)


@dataclass(frozen=True)
class _Tally:
    """How often each label was given, and how often none, by the kind of reason."""

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, answers: Answers) -> None:
        self.labels.update(filter(None, answers.labels))
        self.reasons.update(
            EMPTY_TEXT if reason == EMPTY_TEXT else "below the threshold"
            for reason in filter(None, answers.why_empty)
        )

    def say(self, output: str) -> None:
        """Tell the counts to the person who waits."""
        n_labelled = self.labels.total()
        total = n_labelled + self.reasons.total()
        say(f"{n_labelled} of {total} rows labelled: {output}")
        counts = self.labels.most_common()
        if len(counts) > SHOWN_LABELS:
            others = counts[SHOWN_LABELS - 1 :]
            counts = counts[: SHOWN_LABELS - 1]
            counts.append((f"{len(others)} other labels", sum(count for _, count in others)))
        counts += [(f"none: {reason}", count) for reason, count in self.reasons.most_common()]
        width = max(len(name) for name, _ in counts)
        for name, count in counts:
            say(f"  {name:<{width}} {count:>{len(str(total))}}  {count / total:6.1%}")


def _labelled(
    classifier: Classifier,
    batches: Iterator[Batch],
    threshold: float,
    schema: pa.Schema,
    tally: _Tally,
) -> Iterator[pa.RecordBatch]:
    """The batches with the added columns, in parts of a few rows."""
    for batch in batches:
        for start in range(0, batch.own.num_rows, STEP_ROWS):
            rows = batch.texts.slice(start, STEP_ROWS).to_pylist()
            answers = answer(classifier, rows, threshold)
            tally.add(answers)
            columns = [*batch.own.slice(start, STEP_ROWS).columns, *_columns(answers)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _counted(batches: Iterable[pa.RecordBatch], advance: Advance) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        advance(batch.num_rows)


def _below(confidence: np.floating[Any], threshold: float) -> str | None:
    """That a confidence is below the threshold, if it is.

    It is rounded down to the digits of the threshold, so that it looks lower too.
    """
    if confidence >= np.float32(threshold):
        return None
    limit = Decimal(str(threshold))
    step = min(Decimal("0.01"), Decimal(1).scaleb(int(limit.as_tuple().exponent)))
    rounded = Decimal(str(confidence)).quantize(step, ROUND_FLOOR)
    return f"confidence {rounded} < {limit.quantize(step)}"


def _output_schema(own: pa.Schema, labels: Sequence[str], place: str) -> pa.Schema:
    """A table's columns and the added ones. Raises `UserError` if it has one of these already."""
    added = {
        "predicted" if "label" in own.names else "label": pa.string(),
        "confidence": pa.float32(),
        "why_empty": pa.string(),
        **{f"prob_{label}": pa.float32() for label in labels},
    }
    raise_all(
        f"--table: {place} has a column {name!r}, and one of this name is added; rename or drop it"
        for name in added
        if name in own.names
    )
    return pa.schema([*own, *map(pa.field, added, added.values())])


def _columns(answers: Answers) -> Iterator[pa.Array]:
    """The added columns; an empty text has no numbers either."""
    empty = np.array([reason == EMPTY_TEXT for reason in answers.why_empty])
    yield pa.array(answers.labels, pa.string())
    yield pa.array(answers.probs.max(1), pa.float32(), mask=empty)
    yield pa.array(answers.why_empty, pa.string())
    for values in answers.probs.T:
        yield pa.array(np.ascontiguousarray(values), pa.float32(), mask=empty)


@contextmanager
def _opened_table(
    classifier: Classifier, table: str, names: Mapping[str, str], suffix: str
) -> Iterator[WholeTable]:
    """A table of files, or of standard input, which is stored first unless it is lines of text."""
    if table != STANDARD:
        yield _read(classifier, table, names)
    elif suffix == LINES:
        if len(classifier.columns) > 1:
            raise UserError(
                "--table: standard input is one text per line, and this classifier reads "
                f"{listed(classifier.columns)}; give --format csv or jsonl"
            )
        yield _at_table(read_lines(sys.stdin.buffer, classifier.columns[0]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"input{suffix}"
            with file.open("wb") as stored:
                shutil.copyfileobj(sys.stdin.buffer, stored)
            if not file.stat().st_size:
                raise UserError("--table: standard input has no rows")
            try:
                yield _read(classifier, str(file), names)
            except UserError as error:
                problems = [text.replace(str(file), "standard input") for text in error.problems]
                raise UserError(*problems) from None


def _read(classifier: Classifier, table: str, names: Mapping[str, str]) -> WholeTable:
    raise_all(
        check_source(
            table,
            classifier.columns,
            names,
            labelled=False,
            place="--table",
            mapping="--column COLUMN=NAME",
        )
    )
    with at_place("--table"):
        return _at_table(read_whole(find_source(table), classifier.columns, names))


def _at_table(whole: WholeTable) -> WholeTable:
    """A table whose errors, while it is read, say by which option it was given."""

    def batches() -> Iterator[Batch]:
        with at_place("--table"):
            yield from whole.batches

    return replace(whole, batches=batches())


def _progress(output: str, rows: int | None) -> AbstractContextManager[Advance]:
    """Progress on standard error, unless the rows themselves are seen."""
    if output == STANDARD and sys.stdout.isatty():
        return nullcontext(lambda n: None)
    return progress("predict", rows, "rows")
