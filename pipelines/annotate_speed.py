"""How fast a pattern scores a table, beside a bare encoder forward on the same tokens.

python pipelines/annotate_speed.py patterns/agnews_text pool.parquet --column text=message
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from pet_pipeline import load_task
from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.demonstrations import Rows
from pet_pipeline.models import resolve_model
from pet_pipeline.pvp import Pvp
from pet_pipeline.sources import find_source, read_batches


def main(
    task_folder: Path,
    table: str,
    model: str = EMBEDDED_MODEL,
    column: Annotated[list[str] | None, typer.Option(metavar="COLUMN=NAME")] = None,
    rows: int = 3000,
    repeats: int = 3,
    max_tokens: int = 128,
) -> None:
    """Measure both in turn, several times; print rows per second and the share."""
    task = load_task(task_folder)
    names = dict(pair.split("=", 1) for pair in column or [])
    texts: list[dict[str, Any]] = []
    for batch in read_batches(find_source(table), task.columns, names, None):
        texts += batch.to_pylist()
        if len(texts) >= rows:
            break
    pvp = Pvp.load(resolve_model(model), task.patterns[0], max_tokens=max_tokens)
    encoded = pvp.rows(texts[:rows])
    tokens = sum(len(row) for row in encoded.encoded)
    typer.echo(f"{len(encoded)} rows, {tokens} tokens, pattern {task.patterns[0].name}")
    for _ in range(repeats):
        ours = seconds(lambda: pvp.scores(encoded))
        bare = seconds(lambda: encode_bare(pvp, encoded))
        typer.echo(
            f"scores {len(encoded) / ours:7.1f} rows/s   bare encoder {len(encoded) / bare:7.1f} "
            f"rows/s   share of the encoder in the scores' time {bare / ours:.3f}"
        )


def encode_bare(pvp: Pvp, rows: Rows) -> None:
    """The encoder alone, no head, on the same batches."""

    def forward(batch: list[int]) -> torch.Tensor:
        inputs = pvp.lm.inputs([rows.encoded[n] for n in batch])
        states: torch.Tensor = pvp.lm.model.base_model(**inputs).last_hidden_state
        return states[:, 0, :1]

    pvp.lm.read(rows.encoded, forward)


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
