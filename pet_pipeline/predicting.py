"""Label a whole table with a classifier, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.classifier import Classifier
from pet_pipeline.errors import UserError, at_place, raise_all
from pet_pipeline.files import replace_file
from pet_pipeline.progress import progress, say
from pet_pipeline.sources import Source, check_source, count_rows, find_source, read_batches
from pet_pipeline.tables import soft_label_table


def predict_table(
    classifier: Classifier, table: str, output: Path, names: Mapping[str, str]
) -> None:
    """Write the labels of a table's rows to a Parquet file; nothing is half-written.

    names: the classifier's columns by the table's names. Raises `UserError` if the table cannot
    be read, or the file not written.
    """
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
        source = find_source(table)
        total = count_rows(source)
    if not total:
        raise UserError(f"--table: {table} has no rows")
    partial = _beside(output)
    try:
        _write(classifier, _read(source, classifier, names), partial, total)
        replace_file(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    say(f"{total} rows labelled: {output}")


def _beside(output: Path) -> Path:
    """An empty file beside the output, to write into; raises `UserError` if there cannot be one."""
    partial = output.with_name(f".{output.name}.partial")
    if output.parent.is_file():
        raise UserError(f"--output: {output.parent} is a file; name a file in a folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise UserError(f"--output: {output}: {error.strerror}; name another file") from None
    return partial


def _read(
    source: Source, classifier: Classifier, names: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    with at_place("--table"):
        yield from read_batches(source, classifier.columns, names, None)


def _write(
    classifier: Classifier, batches: Iterator[pa.RecordBatch], file: Path, total: int
) -> None:
    writer = None
    with ExitStack() as stack, progress("predict", total, "rows") as advance:
        for batch in batches:
            probs = classifier.predict(batch.to_pylist())
            labelled = soft_label_table(batch["id"], probs, classifier.labels)
            writer = writer or stack.enter_context(
                pq.ParquetWriter(file, labelled.schema, compression="zstd")
            )
            writer.write_table(labelled)
            advance(batch.num_rows)
