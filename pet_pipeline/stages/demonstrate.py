"""Demonstrations and calibration as the units of other stages take and use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pet_pipeline.config import Machine, Settings
from pet_pipeline.data import Floats, read_scores
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Pattern
from pet_pipeline.progress import say
from pet_pipeline.run import Result
from pet_pipeline.stages.encode import embed_texts, encoder_of
from pet_pipeline.stages.results import ENCODED, VECTORS, Tables, training_rows

if TYPE_CHECKING:
    from pet_pipeline.encoding import Encoded, PatternEncoder
    from pet_pipeline.scoring import Draws

PRIOR_ROWS = 200  # of the pool, on which the labels' prior is measured


@dataclass(frozen=True)
class Examples:
    """How a unit shows labelled rows in its inputs: what its parameters say of it."""

    labelled: Result
    columns: tuple[str, ...]
    encoder: Pretrained
    draws: int
    share: float  # of a label's rows, the most similar ones
    max_tokens: int
    text_tokens: int  # of the rows, when they are compared


def examples_of(
    labelled: Result | None, columns: tuple[str, ...], settings: Settings
) -> Examples | None:
    """What the settings say of demonstrations; None if there are none."""
    chosen = settings.demonstrations
    if not chosen.enabled or labelled is None:
        return None
    return Examples(
        labelled=labelled,
        columns=columns,
        encoder=encoder_of(settings),
        draws=chosen.draws,
        share=chosen.filter,
        max_tokens=chosen.max_tokens,
        text_tokens=settings.finetune.max_tokens,
    )


def draws_of(
    examples: Examples,
    encoder: PatternEncoder,
    *,
    support: Sequence[int],
    labelled_vectors: Floats | None,
    vectors: Floats | None,
    own: Sequence[int] | None,
    seed: int,
) -> Draws:
    """How rows are shown with labelled rows of these numbers.

    vectors and own: of the rows that are shown, as `Draws` has them
    """
    from pet_pipeline.scoring import Draws
    from pet_pipeline.search.demonstrations import Demonstrations, Support

    rows, gold = training_rows([examples.labelled], encoder.pattern.labels)
    chosen = Support(
        [gold[n] for n in support],
        len(encoder.pattern.labels),
        None if labelled_vectors is None else labelled_vectors[list(support)],
        examples.share,
    )
    shown = Demonstrations(encoder, [rows[n] for n in support], chosen, examples.max_tokens)
    return Draws(shown, examples.draws, seed, vectors, own)


def draws_in_training(
    examples: Examples,
    encoder: PatternEncoder,
    rows: list[dict[str, Any]],
    support: Sequence[int],
    seed: int,
    machine: Machine,
) -> Draws:
    """How training rows are shown, the first of which are the labelled ones.

    support: the numbers of those that are shown to others
    """
    from pet_pipeline.search.demonstrations import NOBODY

    places = {n: place for place, n in enumerate(support)}
    vectors = None
    if examples.share < 1:
        vectors = embed_texts(
            examples.encoder, rows, examples.columns, examples.text_tokens, machine
        )
    return draws_of(
        examples,
        encoder,
        support=support,
        labelled_vectors=vectors,
        vectors=vectors,
        own=[places.get(n, NOBODY) for n in range(len(rows))],
        seed=seed,
    )


def tell_room(draws: Draws, rows: Sequence[Encoded], what: str) -> float:
    """Say it if demonstrations were left out for lack of room; returns how many an input has."""
    shown = draws.shown(rows, 0)
    if shown.left_out:
        say(
            f"  {what}: {shown.count:.1f} of {shown.count + shown.left_out:.1f} demonstrations "
            "fit into an input, other draws show other labels; a higher "
            "demonstrations.max_tokens makes room for more"
        )
    return round(shown.count, 2)


@dataclass(frozen=True)
class Calibration:
    """What is taken away from scores: the labels' prior, measured on rows that say nothing of it.

    encoded, vectors: rows of the pool in the pattern, and their embeddings; None for content-free
    ones
    """

    kind: str
    columns: tuple[str, ...]
    encoded: Result | None = None
    vectors: Result | None = None


def calibration_of(
    tables: Tables, columns: tuple[str, ...], pattern: Pattern, settings: Settings
) -> Calibration | None:
    """What the settings say of calibration; None if there is none."""
    chosen = settings.pooling
    if chosen.calibrate == "none":
        return None
    if chosen.prior == "content-free":
        return Calibration(chosen.calibrate, columns)
    first = tables.encoded[pattern.name][0]
    return Calibration(chosen.calibrate, columns, first, tables.vectors.get(f"{0:05d}"))


def score_calibrated(
    model: Any,
    encoder: PatternEncoder,
    rows: Sequence[Encoded],
    calibration: Calibration | None,
    *,
    machine: Machine,
    what: str,
    draws: Draws | None,
    decoding: str = "confident",
) -> Floats:
    """Label scores (rows, labels), without the labels' prior if that is to be taken away."""
    from pet_pipeline.encoding import read_encoded
    from pet_pipeline.scoring import content_free_rows, log_prior, score_pvp

    options: Any = {"machine": machine, "what": what, "decoding": decoding}
    if calibration is None:
        return score_pvp(model, encoder, rows, draws=draws, **options)
    options["normalise"] = calibration.kind == "pmi"
    scores = score_pvp(model, encoder, rows, draws=draws, **options)
    prior_draws = draws.anywhere() if draws else None
    if calibration.encoded is None:
        nothing = encoder.encode(content_free_rows(calibration.columns))
    else:
        nothing = read_encoded(calibration.encoded.dir / ENCODED)[:PRIOR_ROWS]
        if draws and calibration.vectors:
            vectors = read_scores(calibration.vectors.dir / VECTORS)[1][:PRIOR_ROWS]
            prior_draws = replace(draws, vectors=vectors, own=None)
    without = score_pvp(model, encoder, nothing, draws=prior_draws, **options)
    return np.asarray(scores - log_prior(without, calibration.kind), np.float32)
