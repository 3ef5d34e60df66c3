"""Demonstrations as a field of units, and as their work uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.demonstrations import NO_ROW, Demonstrations, Rows
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.progress import say
from pet_pipeline.run import Run
from pet_pipeline.stages.from_settings import demonstration_encoder
from pet_pipeline.stages.results import VECTORS, Tables, training_rows
from pet_pipeline.tables import Floats, read_scores
from pet_pipeline.units import Result

if TYPE_CHECKING:
    from pet_pipeline.pvp import Pvp


@dataclass(frozen=True)
class Examples:
    """The labelled rows that a unit inserts into its inputs, and how."""

    labelled: Result
    columns: tuple[str, ...]
    encoder: Pretrained  # compares rows
    fraction: float  # of a label's rows, the most similar ones
    max_tokens: int
    text_tokens: int  # of the rows, when they are compared

    def demonstrations(
        self,
        encoder: PatternEncoder,
        vectors: Floats | None,
        *,
        support: Sequence[int] | None = None,
        draws: int = 1,
    ) -> Demonstrations:
        """The rows in a pattern, ready to be inserted.

        vectors: (labelled rows, dimensions) embeddings, or None; support: the rows that are drawn
        from, or None for all; draws: sets whose scores are averaged
        """
        rows, gold = training_rows([self.labelled], encoder.pattern.labels)
        chosen = list(range(len(rows)) if support is None else support)
        return Demonstrations(
            encoder,
            [rows[n] for n in chosen],
            [gold[n] for n in chosen],
            max_tokens=self.max_tokens,
            vectors=None if vectors is None else vectors[chosen],
            fraction=self.fraction,
            draws=draws,
        )


def examples_of(run: Run, task: Task, tables: Tables, settings: Settings) -> Examples | None:
    """What the settings say of demonstrations; None if there are none."""
    chosen = settings.demonstrations
    if not chosen.enabled or tables.labelled is None:
        return None
    return Examples(
        labelled=tables.labelled,
        columns=task.columns,
        encoder=demonstration_encoder(run, settings),
        fraction=chosen.filter,
        max_tokens=chosen.max_tokens,
        text_tokens=settings.finetune.max_tokens,
    )


def demonstrate(
    pvp: Pvp,
    examples: Examples | None,
    rows: list[dict[str, Any]],
    support: Sequence[int],
    *,
    draws: int,
    compute: Compute,
) -> Rows:
    """Training rows in the pattern; with examples, the model reads them with demonstrations.

    rows: the labelled ones first; support: the numbers of those that are drawn for others
    """
    from pet_pipeline.embedding import embed_texts

    ready = pvp.rows(rows)
    if examples is None:
        return ready
    vectors = None
    if examples.fraction < 1:
        vectors = embed_texts(
            examples.encoder, rows, examples.columns, examples.text_tokens, compute
        )
    pvp.demonstrations = examples.demonstrations(pvp.encoder, vectors, support=support, draws=draws)
    numbers = {row: number for number, row in enumerate(support)}
    own_numbers = [numbers.get(n, NO_ROW) for n in range(len(rows))]
    return replace(ready, vectors=vectors, support=own_numbers)


def say_room(pvp: Pvp, rows: Rows, seed: int, what: str) -> float:
    """Say it if demonstrations were left out for lack of room; returns how many an input has."""
    assert pvp.demonstrations is not None
    count, left_out = pvp.demonstrations.room(rows, seed)
    if left_out:
        say(
            f"  {what}: {count:.1f} of {count + left_out:.1f} demonstrations "
            "fit into an input, other draws show other labels; a higher "
            "demonstrations.max_tokens makes room for more"
        )
    return round(count, 2)


def read_vectors(result: Result | None) -> Floats | None:
    """Embeddings (rows, dimensions) that a unit wrote, if there are any."""
    return None if result is None else read_scores(result.dir / VECTORS)[1]
