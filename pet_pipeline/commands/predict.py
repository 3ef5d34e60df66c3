"""`pet predict`: labels for texts or for a whole table, by a finished classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pet_pipeline.commands.options import Columns, column_names, user_errors
from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError, raise_all


def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder of a classifier.")],
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text; repeatable.")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text, for pairs.")] = None,
    table: Annotated[str | None, typer.Option(help="A table of texts.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Parquet file for the table's labels.")
    ] = None,
    column: Columns = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
) -> None:
    """Label texts, or a whole table, with a finished classifier."""
    with user_errors():
        raise_all(_predict_problems(text, pair, table, output))
        if not classifier.is_dir():
            raise UserError(f"{classifier}: no such folder; name the classifier of a run")
        from pet_pipeline.classifier import Classifier
        from pet_pipeline.show import print_prediction

        loaded = Classifier.load(classifier, Compute(device=device))
        if table and output:
            from pet_pipeline.predicting import predict_table

            predict_table(loaded, table, output, column_names(column or [], loaded.columns))
            return
        if pair is not None and len(loaded.columns) < 2:
            raise UserError(f"--pair: this classifier reads one text, {loaded.columns[0]!r}")
        for one in text or []:
            row = dict.fromkeys(loaded.columns, "") | {loaded.columns[0]: one}
            if pair is not None:
                row[loaded.columns[1]] = pair
            print_prediction(one, loaded.labels, loaded.predict([row])[0].tolist())


def _predict_problems(
    text: list[str] | None, pair: str | None, table: str | None, output: Path | None
) -> Iterator[str]:
    if bool(text) == bool(table):
        yield 'predict: give --text "..." or --table FILE, one of them'
    elif table and output is None:
        yield "predict: --table needs --output FILE.parquet for the labels"
    elif table and pair is not None:
        yield "predict: --pair goes with --text; a table has the second texts in a column"
    elif text and output is not None:
        yield "predict: --output goes with --table; the labels of --text are shown here"
    if output and output.is_dir():
        yield f"--output: {output} is a folder; name a file, such as {output}/labels.parquet"
