"""`pet predict`: labels for texts or for a whole table, by a finished classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_pipeline.commands.options import Columns, Verbosity, column_names, user_errors
from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.models import find_classifier
from pet_pipeline.writers import STANDARD, output_format

if TYPE_CHECKING:
    from pet_pipeline.classifier import Classifier

INPUT_SUFFIXES = {"text": ".txt", "csv": ".csv", "tsv": ".tsv", "jsonl": ".jsonl"}


def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder of a classifier, or of a run.")],
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text; repeatable.")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text, for pairs.")] = None,
    table: Annotated[
        str | None,
        typer.Option(help="A table of texts: .parquet, .csv, .tsv, .jsonl; - is standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="The table with its labels, by suffix as --table; - (default): standard output."
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(help="Give no label where the confidence, from 0 to 1, is below this."),
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON on standard output: an object on a line per text.")
    ] = False,
    input_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of standard input: text (default; one text per line), csv, tsv, jsonl.",
        ),
    ] = None,
    column: Columns = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    verbosity: Verbosity = None,
) -> None:
    """Label texts, or a whole table, with a finished classifier.

    A table keeps its columns and gets label (or predicted, if it has a label of its own),
    confidence, why_empty (why a row has no label: an empty text, or a confidence below the
    threshold), and a column prob_LABEL for each label.
    """
    with user_errors():
        raise_all(
            _problems(
                texts=bool(text),
                pair=pair is not None,
                table=table,
                output=output,
                threshold=threshold,
                input_format=input_format,
                as_json=as_json,
            )
        )
        output = output or STANDARD
        if output != STANDARD:
            output_format(output)
        find_classifier(classifier)
        from pet_pipeline.classifier import Classifier

        loaded = Classifier(classifier, Compute(device=device))
        if not table:
            _predict_texts(loaded, text or [], pair, threshold, as_json=as_json)
            return
        from pet_pipeline.predicting import predict_table

        predict_table(
            loaded,
            table,
            output,
            column_names(column or [], loaded.columns),
            threshold=threshold,
            input_suffix=INPUT_SUFFIXES[input_format or "text"],
            output_suffix=".jsonl" if as_json else ".csv",
        )


def _predict_texts(
    classifier: Classifier, texts: list[str], pair: str | None, threshold: float, *, as_json: bool
) -> None:
    from pet_pipeline.predicting import EMPTY_TEXT, answer
    from pet_pipeline.show import print_prediction

    first, *rest = classifier.columns
    if pair is not None and not rest:
        raise UserError(f"--pair: this classifier reads one text, {first!r}")
    others = dict.fromkeys(rest, "") | dict.fromkeys(rest[:1], pair or "")
    answers = answer(classifier, [{first: text, **others} for text in texts], threshold)
    for n, text in enumerate(texts):
        probs = {
            name: float(str(p)) for name, p in zip(classifier.labels, answers.probs[n], strict=True)
        }
        why = answers.why_empty[n]
        if not as_json:
            print_prediction(text, {} if why == EMPTY_TEXT else probs, why)
            continue
        given = {"text": text} | ({} if pair is None else {"pair": pair})
        found = {
            "label": answers.labels[n],
            "confidence": max(probs.values()),
            "why_empty": why,
            "probs": probs,
        }
        if why == EMPTY_TEXT:
            found |= {"confidence": None, "probs": None}
        typer.echo(json.dumps(given | found, ensure_ascii=False).encode())  # UTF-8, always


def _problems(
    *,
    texts: bool,
    pair: bool,
    table: str | None,
    output: str | None,
    threshold: float,
    input_format: str | None,
    as_json: bool,
) -> Iterator[str]:
    """What is wrong with the options, each or together."""
    if texts == bool(table):
        yield 'predict: give --text "..." or --table FILE, one of them'
    if not 0 <= threshold <= 1:
        yield f"--threshold {threshold:g}: a confidence from 0 to 1 is needed, such as 0.8"
    if pair and table:
        yield "predict: --pair goes with --text; a table has the second texts in a column"
    if output and not table:
        yield "predict: --output goes with --table; the labels of --text are shown here"
    if output and output != STANDARD:
        if Path(output).is_dir():
            yield f"--output: {output} is a folder; name a file, such as {output}/labels.csv"
        if as_json:
            yield "--json: for standard output; the suffix of --output is the format of a file"
    if input_format and table != STANDARD:
        yield "--format: goes with --table -, standard input; the suffix is the format of a file"
    elif input_format and input_format not in INPUT_SUFFIXES:
        yield f"--format {input_format}: not a format{nearest(input_format, INPUT_SUFFIXES)}"
