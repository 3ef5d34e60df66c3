"""Check patterns with the model's tokenizer on rows of the pool; keep what the report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.encoding import PatternEncoder, check_encoders, describe_words
from pet_pipeline.errors import at_place, raise_all
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern
from pet_pipeline.records import read_records, write_records
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.tables import shard_files
from pet_pipeline.units import Info, Result, Unit

SHOWN_ROWS = 3  # rows that the report shows in each pattern
CHECKED_ROWS = 200  # rows of the pool in which truncation is counted
PATTERNS = "patterns.json"


@dataclass(frozen=True)
class CheckedPattern:
    """A pattern as the model reads it."""

    name: str
    rendered: list[str]  # some rows of the pool in it
    words: dict[str, list[list[str]]]  # label -> word -> tokens
    masks: int
    truncated: int  # of the checked rows
    checked: int


@dataclass(frozen=True)
class CheckPatterns(Unit):
    """Every pattern with the tokenizer: problems raise, the rest is kept for the report."""

    base: Pretrained
    patterns: tuple[Pattern, ...]
    soft: SoftTokens | None  # that are put into them
    pool: Result
    max_tokens: int
    # By setting, the tokens that the model will be given at most.
    longest: Mapping[str, int] = field(hash=False)
    version = 2

    def work(self, out: Path, compute: Compute) -> Info:
        """Write patterns.json."""
        from pet_pipeline.inference import device_of
        from pet_pipeline.pretrained import check_mlm, load_tokenizer

        device_of(compute)
        with at_place("model"):
            limit = check_mlm(self.base)
            tokenizer = load_tokenizer(self.base)
        limit = min(limit, tokenizer.model_max_length)
        raise_all(
            f"{setting}: {tokens} is more than the model reads, {limit}"
            for setting, tokens in self.longest.items()
            if tokens > limit
        )
        with at_place("model"):
            encoders = [
                PatternEncoder(p, tokenizer, self.max_tokens, self.soft) for p in self.patterns
            ]
        raise_all(check_encoders(encoders))
        rows = first_rows(self.pool, CHECKED_ROWS)
        checked = [
            CheckedPattern(
                name=encoder.pattern.name,
                rendered=[encoder.pattern.render(row) for row in rows[:SHOWN_ROWS]],
                words=describe_words(encoder),
                masks=encoder.words.n_masks,
                truncated=encoder.count_truncated(rows),
                checked=len(rows),
            )
            for encoder in encoders
        ]
        write_records(out / PATTERNS, checked)
        warnings = list(truncation_warnings(checked, self.max_tokens))
        info: Info = {"patterns": len(self.patterns), "warnings": warnings}
        soft = [len(encoder.soft_starts) for encoder in encoders]
        return info | ({"soft_tokens": max(soft)} if any(soft) else {})


def read_checked(result: Result) -> list[CheckedPattern]:
    """The patterns that a unit checked."""
    return read_records(result.dir / PATTERNS, CheckedPattern)


def first_rows(pool: Result, count: int) -> list[dict[str, Any]]:
    """The first rows of a pool: so many, or all; the first shards may be empty."""
    rows: list[dict[str, Any]] = []
    for shard in shard_files(pool.dir):
        if len(rows) < count:
            rows += pq.read_table(shard).slice(0, count - len(rows)).to_pylist()
    return rows


def truncation_warnings(checked: Sequence[CheckedPattern], max_tokens: int) -> Iterator[str]:
    """A warning with the patterns in which texts are cut; none if there is none."""
    cut = [
        f"{pattern.name!r} {pattern.truncated} of {pattern.checked}, "
        f"{pattern.truncated / pattern.checked:.0%}"
        for pattern in checked
        if pattern.truncated
    ]
    if cut:
        yield (
            f"finetune.max_tokens: texts of the pool are cut to inputs of {max_tokens} tokens, by "
            f"pattern ({'; '.join(cut)}); the models do not see what is cut; raise it where labels "
            "depend on that, at the cost of time"
        )


def longest_inputs(settings: Settings) -> dict[str, int]:
    """By setting, the tokens that the masked language model will be given at most."""
    longest = {"finetune.max_tokens": settings.finetune.max_tokens}
    if settings.demonstrations.enabled:
        longest["demonstrations.max_tokens"] = settings.demonstrations.max_tokens
    if settings.adapt.text not in ("", "prompted"):
        longest["adapt.max_tokens"] = settings.adapt.max_tokens
    if not settings.distill.model:  # else checked against that one
        if settings.baseline.enabled and settings.data.labelled:
            longest["baseline.max_tokens"] = settings.baseline.max_tokens
        if settings.distill.enabled:
            longest["distill.max_tokens"] = settings.distill.max_tokens
    return longest
