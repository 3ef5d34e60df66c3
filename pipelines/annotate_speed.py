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
from pet_pipeline.batches import cut_batches
from pet_pipeline.config import EMBEDDED_MODEL, Machine
from pet_pipeline.data import find_source, read_batches
from pet_pipeline.encoding import Encoded, PatternEncoder, collate
from pet_pipeline.inference import score_rows
from pet_pipeline.models import resolve_model
from pet_pipeline.pretrained import autocast, device_of, load_mlm, load_tokenizer


def main(
    task_folder: Path,
    table: str,
    model: str = EMBEDDED_MODEL,
    column: Annotated[list[str] | None, typer.Option(metavar="COLUMN=NAME")] = None,
    rows: int = 3000,
    repeats: int = 3,
    max_tokens: int = 128,
) -> None:
    """Measure both in turn, several times; print rows a second and the share."""
    task, machine, base = load_task(task_folder), Machine(), resolve_model(model)
    names = dict(pair.split("=", 1) for pair in column or [])
    texts: list[dict[str, Any]] = []
    for batch in read_batches(find_source(table), task.columns, names, None):
        texts += batch.to_pylist()
        if len(texts) >= rows:
            break
    encoder = PatternEncoder(task.patterns[0], load_tokenizer(base), max_tokens)
    loaded, encoded = load_mlm(base), encoder.encode(texts[:rows])
    tokens = sum(len(row.ids) for row in encoded)
    typer.echo(f"{len(encoded)} rows, {tokens} tokens, pattern {encoder.pattern.name}")

    def score() -> None:
        score_rows(loaded, encoded, encoder.layout, encoder.words, machine=machine, what="score")

    for _ in range(repeats):
        ours = seconds(score)
        bare = seconds(lambda: encode_bare(loaded, encoded, encoder, machine))
        typer.echo(
            f"scores {len(encoded) / ours:7.1f} rows/s   bare encoder {len(encoded) / bare:7.1f} "
            f"rows/s   share of the encoder in the scores' time {bare / ours:.3f}"
        )


@torch.inference_mode()
def encode_bare(model: Any, rows: list[Encoded], encoder: PatternEncoder, machine: Machine) -> None:
    """The encoder alone, no head, on the same batches."""
    device = device_of(machine)
    model.to(device).eval()
    with autocast(machine, device):
        for batch in cut_batches([len(row.ids) for row in rows], machine.batch_tokens):
            model.base_model(**collate([rows[n] for n in batch], encoder.layout, device))


def seconds(work: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
