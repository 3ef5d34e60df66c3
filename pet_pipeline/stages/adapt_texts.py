"""Where the texts come from that a masked language model is adapted on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.duplicates import Hashes, is_known, known_texts, text_hashes
from pet_pipeline.encoded import Encoded, Role, read_encoded
from pet_pipeline.encoding import PatternEncoder, Tokenizer
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import Adaptation
from pet_pipeline.patterns import Pattern
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.sources import Source, count_rows, read_batches
from pet_pipeline.stages.results import ENCODED, TABLE
from pet_pipeline.tables import part_name, read_probs, shard_files
from pet_pipeline.units import Result

if TYPE_CHECKING:
    from pet_pipeline.corpus import Chunk

WHOLE = 10**9  # tokens; a text that is packed is not truncated


@dataclass(frozen=True)
class PoolTexts:
    """The pool as it is (TAPT, 2004.10964, section 4)."""

    pool: Result
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return "the pool of the run"

    def count(self) -> int:
        """The number of texts."""
        return sum(pq.read_metadata(file).num_rows for file in shard_files(self.pool.dir))

    def chunks(self, tokenizer: Tokenizer, adaptation: Adaptation) -> Iterator[Chunk]:
        """The texts, shard by shard."""
        tables = (pq.read_table(file) for file in shard_files(self.pool.dir))
        return _chunks(tables, self.columns, tokenizer, adaptation)


@dataclass(frozen=True)
class TableTexts:
    """A table that is not a part of the run, without texts that are in the excluded tables too.

    If it has none of the task's columns, its texts are compared with those of each of them.
    """

    source: Source
    columns: tuple[str, ...]
    names: Mapping[str, str] = field(hash=False)  # of the columns in the source, if they differ
    excluded: tuple[Result, ...] = ()

    def __str__(self) -> str:
        return str(self.source)

    def count(self) -> int:
        """The number of texts, with those that are left out: it is known without reading them."""
        return count_rows(self.source, self.columns, self.names)

    def chunks(self, tokenizer: Tokenizer, adaptation: Adaptation) -> Iterator[Chunk]:
        """The texts, batch by batch; raises `UserError` if all of them are left out."""
        return _chunks(self._batches(), self.columns, tokenizer, adaptation)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        batches = read_batches(self.source, self.columns, self.names, None)
        if not self.excluded:
            yield from batches
            return
        known, left = self._known(), 0
        for batch in batches:
            new = ~is_known(text_hashes(batch, self.columns), known)
            left += int(new.sum())
            yield batch.filter(pa.array(new))
        if not left:
            raise UserError(
                "all texts are in data.test too, and copies of test texts are left out; give "
                "other texts"
            )

    def _known(self) -> Hashes:
        """The texts of the excluded tables."""
        hashes: list[Hashes] = []
        for table in (pq.read_table(result.dir / TABLE) for result in self.excluded):
            if set(self.columns) <= set(table.column_names):
                hashes.append(text_hashes(table, self.columns))
            else:
                texts = set(table.column_names) - {"id", "label"}
                hashes += [text_hashes(table, (column,)) for column in texts]
        return known_texts(hashes)


@dataclass(frozen=True)
class PoolInPattern:
    """The pool's shards as tokens of one pattern."""

    pattern: Pattern
    shards: tuple[Result, ...]


@dataclass(frozen=True)
class PromptedTexts:
    """The pool in the patterns, a word of the predicted label in the slot (2305.01711, section 3).

    Each text is in one pattern, drawn by its number.
    """

    soft: Result  # the soft labels of the models that predict
    parts: tuple[PoolInPattern, ...]
    soft_tokens: SoftTokens | None
    max_tokens: int

    def __str__(self) -> str:
        return "the pool of the run in the patterns, with predicted label words"

    def count(self) -> int:
        """The number of texts."""
        return sum(pq.read_metadata(file).num_rows for file in shard_files(self.soft.dir))

    def chunks(self, tokenizer: Tokenizer, adaptation: Adaptation) -> Iterator[Chunk]:
        """The texts, shard by shard."""
        encoders = [
            PatternEncoder(part.pattern, tokenizer, self.max_tokens, self.soft_tokens)
            for part in self.parts
        ]
        for shard in range(len(shard_files(self.soft.dir))):
            labels = read_probs(self.soft.dir / part_name(shard)).argmax(1)
            files = [part.shards[shard].dir / ENCODED for part in self.parts]
            seed = seed_from("prompted", shard)
            yield len(labels), functools.partial(_prompted, encoders, files, labels.tolist(), seed)


Texts = PoolTexts | TableTexts | PromptedTexts


def _chunks(
    tables: Iterable[pa.Table | pa.RecordBatch],
    columns: Sequence[str],
    tokenizer: Tokenizer,
    adaptation: Adaptation,
) -> Iterator[Chunk]:
    limit = WHOLE if adaptation.packed else adaptation.max_tokens
    for table in tables:
        yield table.num_rows, _reader(table, columns, tokenizer, limit)


def _reader(
    table: pa.Table | pa.RecordBatch, columns: Sequence[str], tokenizer: Tokenizer, limit: int
) -> Callable[[Sequence[int]], list[Encoded]]:
    """From row numbers to ordinary inputs, as the classifier has them."""
    from pet_pipeline.classifier import encode_texts

    def encode(numbers: Sequence[int]) -> list[Encoded]:
        rows = table.take(pa.array(numbers, pa.int64())).to_pylist()
        return encode_texts(tokenizer, rows, columns, limit)

    return encode


def _prompted(
    encoders: Sequence[PatternEncoder],
    files: Sequence[Path],
    labels: Sequence[int],
    seed: int,
    numbers: Sequence[int],
) -> list[Encoded]:
    """Some rows of a shard, each in one of the patterns, with a word of its label.

    files: of the shard in each pattern; labels: of all its rows
    """
    rng = np.random.default_rng(seed)
    drawn = rng.random((len(labels), 2)).tolist()  # for each row: its pattern, and the word
    rows = [read_encoded(file)[1] for file in files] if numbers else []
    prompted = []
    for n in numbers:
        pattern = int(drawn[n][0] * len(encoders))
        encoder = encoders[pattern]
        words = encoder.words.tokens[labels[n]]
        row = rows[pattern][n].without(Role.DEMONSTRATION)
        row = row.with_slot(words[int(drawn[n][1] * len(words))])
        prompted.append(_in_words(row, encoder.soft_starts))
    return prompted


def _in_words(row: Encoded, starts: Sequence[int | None]) -> Encoded:
    """A row with the words that soft tokens start at in their place, or nothing."""
    if Role.SOFT not in row.roles:
        return row
    ids = [starts[-1 - token] if token < 0 else token for token in row.ids]
    kept = [n for n, token in enumerate(ids) if token is not None]
    return Encoded(
        tuple(token for token in ids if token is not None),
        bytes(Role.TEMPLATE if row.roles[n] == Role.SOFT else row.roles[n] for n in kept),
        bytes(row.segments[n] for n in kept),
    )
