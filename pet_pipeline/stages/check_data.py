"""What is wrong with the tables, said with numbers before anything long starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.duplicates import (
    NO_TEXT,
    Hashes,
    count_repeats,
    is_known,
    known_texts,
    text_hashes,
)
from pet_pipeline.models import Pretrained
from pet_pipeline.progress import warn
from pet_pipeline.stages.check_patterns import CHECKED_ROWS, first_rows
from pet_pipeline.stages.results import FROM_POOL, TABLE
from pet_pipeline.tables import shard_files
from pet_pipeline.texts import shortened
from pet_pipeline.units import Info, Result, Unit

FEW_ROWS = 8  # of a label; with fewer, results depend much on which rows they are
UNEVEN = 3  # rows of the largest label over those of the smallest
NAMED = 5  # conflicting texts, and rows of each, that a message names
NAMED_LABELS = 10
SHOWN_CHARACTERS = 60
BATCH_ROWS = 8192
UNCUT = 10**6  # tokens, more than a text has

REMOVE = "remove the copies from one of the tables"
SHARED = {  # what it means that texts of the first table are in the second
    ("test", "labelled"): f"figures measured on such texts are too good; {REMOVE}",
    (
        "development",
        "labelled",
    ): f"weights fitted on such texts trust the models too much; {REMOVE}",
    ("test", "development"): "figures are too good if weights are fitted on such texts; " + REMOVE,
    ("pool", "labelled"): "their soft labels are surer than those of other texts; "
    "remove the copies from data.pool if they are many",
}
REPEATED = {  # what it means that texts of a table are repeated in it
    "labelled": "such texts count several times in training; keep one row of each",
    "test": "such texts count several times in the figures, whose intervals come out too narrow; "
    "keep one row of each",
    "development": "such texts count several times where weights are fitted; keep one row of each",
    "pool": "such texts count several times in the classifier's training; keep one row of each, "
    "unless texts to be classified repeat as often",
}


@dataclass(frozen=True)
class CheckData(Unit):
    """What a user should know of the tables before hours are spent, as sentences."""

    columns: tuple[str, ...]
    tables: Mapping[str, Result] = field(hash=False)  # labelled, test, development; by name
    pool: Result | None
    balanced: bool  # whether the fine-tunes' batches are
    checked: tuple[Result, ...]  # of the patterns: their warnings are added
    student: Pretrained | None  # the classifier's encoder, if there will be one
    student_tokens: int  # that it is given at most

    def work(self, out: Path, compute: Compute) -> Info:
        """Warn about labels, duplicates, missing texts and truncation; nothing is written."""
        hashes = {
            name: text_hashes(pq.read_table(table.dir / TABLE), self.columns)
            for name, table in self.tables.items()
        }
        if self.pool:
            hashes["pool"] = _pool_hashes(self.pool, self.columns)
        warnings: list[str] = []
        if "labelled" in self.tables:
            warnings += label_warnings(self.tables["labelled"].info["labels"], self.balanced)
        warnings += _left_out(self.pool) if self.pool else []
        warnings += table_warnings(hashes, merged=self._merged())
        for result in self.checked:
            warnings += result.info.get("warnings", [])
        if self.student and self.pool:
            warnings += self._truncated(self.student, self.pool)
        return {"warnings": warnings}

    def _merged(self) -> Hashes:
        """The labelled texts that `pet label-next` took from the pool."""
        if "labelled" not in self.tables:
            return np.zeros(0, np.uint64)
        table = pq.read_table(self.tables["labelled"].dir / TABLE)
        chosen = [str(row_id).startswith(FROM_POOL) for row_id in table["id"].to_pylist()]
        return text_hashes(table.filter(chosen), self.columns)

    def _truncated(self, student: Pretrained, pool: Result) -> Iterator[str]:
        """What the classifier will not see of the pool's first texts."""
        from pet_pipeline.classifier import encode_texts
        from pet_pipeline.pretrained import load_tokenizer

        rows = first_rows(pool, CHECKED_ROWS)
        whole = encode_texts(load_tokenizer(student), rows, self.columns, UNCUT)
        cut = sum(len(row) > self.student_tokens for row in whole)
        if cut:
            yield (
                f"distill.max_tokens: texts of the pool are cut to {self.student_tokens} tokens, "
                f"{cut} of {len(rows)}, {cut / len(rows):.0%}; the classifier does not see what "
                "is cut; raise it where labels depend on that, at the cost of time"
            )


def say_warnings(heading: str, results: Sequence[Result]) -> None:
    """Print the warnings of checks under a heading with their number; nothing without any."""
    warnings = [warning for result in results for warning in result.info.get("warnings", [])]
    if warnings:
        number = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
        warn("\n".join([f"{heading}: {number}", *(f"  - {warning}" for warning in warnings)]))


def label_warnings(counts: Mapping[str, int], balanced: bool) -> Iterator[str]:
    """Warnings about labels with few rows, and about rows that are unevenly distributed.

    counts: labelled rows per label, none of them 0; balanced: whether batches are
    """
    few = [f"{label!r} ({n})" for label, n in counts.items() if n < FEW_ROWS]
    if few:
        more = f" and {len(few) - NAMED_LABELS} more" if len(few) > NAMED_LABELS else ""
        yield (
            f"data.labelled: fewer than {FEW_ROWS} rows of {', '.join(few[:NAMED_LABELS])}{more}; "
            "what is learned of such a label depends on which rows these are; "
            "label more of them first"
        )
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[largest] / max(1, counts[smallest])
    if ratio > UNEVEN:
        if balanced:
            remedy = (
                "batches are balanced by taking rows of rarer labels more often "
                f"(finetune.balanced); more rows of {smallest!r} would teach more"
            )
        else:
            remedy = (
                "batches are not balanced, so rare labels may never be predicted; set "
                f"finetune.balanced = true, or label more rows of {smallest!r}"
            )
        yield (
            f"data.labelled: {counts[largest]} rows of {largest!r} and {counts[smallest]} of "
            f"{smallest!r}, {ratio:.1f} times as many; {remedy}"
        )


def table_warnings(hashes: Mapping[str, Hashes], *, merged: Hashes | None = None) -> Iterator[str]:
    """Warnings about texts that tables share or repeat, and about texts that are missing.

    hashes: by table, the rows' texts as `text_hashes` has them; merged: labelled texts that are
    known to be of the pool
    """
    for (name, other), meaning in SHARED.items():
        if name in hashes and other in hashes:
            known = known_texts([hashes[other]])
            if name == "pool" and merged is not None:
                known = np.setdiff1d(known, merged)
            shared = int(is_known(hashes[name], known).sum())
            if shared:
                yield (
                    f"data.{name}: {_of(shared, hashes[name], 'texts')} {_are(shared)} in "
                    f"data.{other} too; {meaning}"
                )
    for name, meaning in REPEATED.items():
        repeats = count_repeats(hashes[name]) if name in hashes else 0
        if repeats:
            verb = "repeats" if repeats == 1 else "repeat"
            yield (
                f"data.{name}: {_of(repeats, hashes[name], 'rows')} {verb} the text of an earlier "
                f"row; {meaning}"
            )
    if "pool" in hashes:
        yield from _pool_warnings(hashes["pool"], hashes.get("labelled"))


def label_conflicts(
    source: object,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    numbers: Sequence[int],
) -> Iterator[str]:
    """A message for each text with more than one label, a few of them named.

    source: what messages call the table; numbers: of the rows in it
    """
    texts: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for n, row in enumerate(rows):
        labels = texts.setdefault(tuple(" ".join(row[c].split()) for c in columns), {})
        labels.setdefault(row["label"], []).append(n)
    conflicts = [labels for labels in texts.values() if len(labels) > 1]
    for labels in conflicts[:NAMED]:
        first = rows[min(n for own in labels.values() for n in own)]
        named = " and ".join(
            f"{label!r} ({_row_numbers([numbers[n] for n in own])})"
            for label, own in labels.items()
        )
        yield f"{source}: {_shortened(first, columns)!r} is labelled {named}; keep one label"
    more = len(conflicts) - NAMED
    if more > 0:
        yield f"{source}: {more} more {'text has' if more == 1 else 'texts have'} several labels"


def _pool_warnings(pool: Hashes, labelled: Hashes | None) -> Iterator[str]:
    empty = int((pool == NO_TEXT).sum())
    if empty:
        yield (
            f"data.pool: {_of(empty, pool, 'rows')} {'has' if empty == 1 else 'have'} no text; "
            "the soft label of such a row means nothing; remove these rows"
        )
    if labelled is not None and len(pool) < len(labelled):
        yield (
            f"data.pool: {len(pool)} {'row' if len(pool) == 1 else 'rows'}, fewer than the "
            f"{len(labelled)} of data.labelled; the classifier learns from the pool for the most "
            "part; give more unlabelled texts, some thousand if there are"
        )


def _left_out(pool: Result) -> Iterator[str]:
    count = pool.info["left_out"]
    if count:
        total = pool.info["rows"] + count
        yield (
            f"data.pool: {count} of {total} texts {_are(count)} in data.test too and left out of "
            "the pool, so that the classifier is measured on texts it was not trained on; "
            "no action is needed"
        )


def _pool_hashes(pool: Result, columns: Sequence[str]) -> Hashes:
    """The hashes of all shards' texts, read a batch at a time."""
    hashes = [np.zeros(0, np.uint64)]
    for shard in shard_files(pool.dir):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                hashes.append(text_hashes(batch, columns))
    return np.concatenate(hashes)


def _of(count: int, hashes: Hashes, noun: str) -> str:
    return f"{count} of {len(hashes)} {noun}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _row_numbers(numbers: Sequence[int]) -> str:
    """Numbers of rows in words, a few of them named."""
    named = ", ".join(str(number) for number in numbers[:NAMED])
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{'row' if len(numbers) == 1 else 'rows'} {named}{more}"


def _shortened(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    text = " | ".join(" ".join(row[column].split()) for column in columns)
    return shortened(text, SHOWN_CHARACTERS)
