"""One model for each pattern and seed, tuned on the labelled rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pet_pipeline.config import Finetune, Machine, Settings
from pet_pipeline.data import write_scores
from pet_pipeline.metrics import METRICS
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.demonstrate import (
    Calibration,
    Examples,
    calibration_of,
    draws_in_training,
    examples_of,
    score_calibrated,
    tell_room,
)
from pet_pipeline.stages.results import ENCODED, SCORES, Model, Tables, training_rows

if TYPE_CHECKING:
    from pet_pipeline.encoding import Encoded

UNTUNED_SEED = 0  # untuned models do not differ by seed
UNTUNED_DRAWS = 4  # of demonstrations, for the accuracy before tuning; tuning has no such number


def finetune(
    run: Run,
    task: Task,
    tables: Tables,
    settings: Settings,
    *,
    generation: int = 0,
    grown: dict[str, Result] | None = None,
) -> list[Model]:
    """The models of a generation; untuned ones if there are no labels, or no steps.

    grown: by model, the rows that `grow` labelled for it
    """
    grown = grown or {}
    base = resolve_model(settings.model, settings.revision)
    examples = examples_of(tables.labelled, task.columns, settings)
    tuned = bool((tables.labelled or grown) and settings.finetune.steps)
    seeds = settings.finetune.seeds if tuned else (UNTUNED_SEED,)
    names = {
        f"{pattern.name}-{seed}": (pattern, seed) for pattern in task.patterns for seed in seeds
    }
    shared = {
        "base": base,
        "labelled": tables.labelled,
        "settings": _tuning(settings.finetune, tuned=tuned),
        "generation": generation if tuned else 0,
        "examples": replace(examples, draws=UNTUNED_DRAWS) if examples else None,
    }
    with_texts = tuned and settings.finetune.mlm_weight > 0
    results = run.do(
        f"gen-{generation}/finetune",
        _finetune,
        {
            name: {
                **shared,
                "pattern": pattern,
                "seed": seed,
                "grown": grown.get(name),
                "texts": tables.encoded[pattern.name] if with_texts else [],
            }
            for name, (pattern, seed) in names.items()
        },
        version=2,
    )
    return [
        Model(name, pattern, seed, base, result)
        for (name, (pattern, seed)), result in zip(names.items(), results, strict=True)
    ]


def crossfit(run: Run, task: Task, tables: Tables, settings: Settings) -> dict[str, list[Result]]:
    """By pattern, scores of the labelled rows by models that were tuned on the other folds."""
    base = resolve_model(settings.model, settings.revision)
    folds = settings.ensemble.folds
    names = {
        f"{pattern.name}-fold-{fold}": (pattern, fold)
        for pattern in task.patterns
        for fold in range(folds)
    }
    results = run.do(
        "crossfit",
        _crossfit,
        {
            name: {
                "base": base,
                "labelled": tables.labelled,
                "settings": _tuning(settings.finetune, tuned=True),
                "pattern": pattern,
                "seed": settings.finetune.seeds[0],
                "fold": fold,
                "folds": folds,
                "examples": examples_of(tables.labelled, task.columns, settings),
                "calibration": calibration_of(tables, task.columns, pattern, settings),
            }
            for name, (pattern, fold) in names.items()
        },
        version=2,
    )
    by_pattern: dict[str, list[Result]] = {pattern.name: [] for pattern in task.patterns}
    for (pattern, _), result in zip(names.values(), results, strict=True):
        by_pattern[pattern.name].append(result)
    return by_pattern


def _tuning(settings: Finetune, *, tuned: bool) -> Finetune:
    """The settings without what does not change a single model."""
    unused = {} if tuned else {"steps": 0}
    if settings.mlm_weight == 0:
        fields = Finetune.model_fields
        unused |= {name: fields[name].default for name in ("mlm_texts", "mlm_masked")}
    return settings.model_copy(update={"seeds": (1,), **unused})


def _finetune(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labelled: Result | None,
    settings: Finetune,
    generation: int,
    pattern: Pattern,
    seed: int,
    grown: Result | None,
    texts: list[Result],
    examples: Examples | None,
) -> dict[str, Any]:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.pretrained import load_mlm, load_tokenizer
    from pet_pipeline.pvp import tune_pvp
    from pet_pipeline.scoring import score_pvp

    model, tokenizer = load_mlm(base), load_tokenizer(base)
    encoder = PatternEncoder(pattern, tokenizer, settings.max_tokens)
    info: dict[str, Any] = {}
    rows, gold = training_rows([result for result in (labelled, grown) if result], pattern.labels)
    encoded = encoder.encode(rows)
    what = f"fine-tune {pattern.name}-{seed}"
    unit_seed = seed_from("finetune", pattern.name, seed, generation)
    n = labelled.info["rows"] if labelled else 0
    draws = None
    if examples:
        draws = draws_in_training(examples, encoder, rows, range(n), unit_seed, machine)
        info["demonstrations"] = tell_room(draws, encoded, what)
    if labelled:
        own = draws.of(range(n)) if draws else None
        scores = score_pvp(model, encoder, encoded[:n], machine=machine, what=what, draws=own)
        info["untuned_accuracy"] = METRICS["accuracy"](gold[:n], scores.argmax(1))
    if settings.steps and rows:
        info["loss"] = tune_pvp(
            model,
            encoded,
            gold,
            _texts(texts, settings, seed),
            encoder.layout,
            encoder.words,
            settings=settings,
            seed=unit_seed,
            machine=machine,
            what=what,
            show=draws.shown_at(encoded) if draws else None,
        )
        (out / "model").mkdir()
        model.to("cpu").save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
    return {"rows": len(rows), **info}


def _crossfit(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labelled: Result,
    settings: Finetune,
    pattern: Pattern,
    seed: int,
    fold: int,
    folds: int,
    examples: Examples | None,
    calibration: Calibration | None,
) -> dict[str, Any]:
    from pet_pipeline.batches import fold_rows
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.pretrained import load_mlm, load_tokenizer
    from pet_pipeline.pvp import tune_pvp

    model = load_mlm(base)
    encoder = PatternEncoder(pattern, load_tokenizer(base), settings.max_tokens)
    rows, gold = training_rows([labelled], pattern.labels)
    held = fold_rows(gold, folds, fold)
    if not held:
        return {"rows": 0}
    others = [n for n in range(len(rows)) if n not in set(held)]
    encoded = encoder.encode(rows)
    what = f"fold {fold} of {pattern.name}"
    unit_seed = seed_from("crossfit", pattern.name, seed, fold)
    draws = None
    if examples:
        draws = draws_in_training(examples, encoder, rows, others, unit_seed, machine)
    training = [encoded[n] for n in others]
    tune_pvp(
        model,
        training,
        [gold[n] for n in others],
        [],
        encoder.layout,
        encoder.words,
        settings=settings,
        seed=unit_seed,
        machine=machine,
        what=what,
        show=draws.of(others).shown_at(training) if draws else None,
    )
    scores = score_calibrated(
        model,
        encoder,
        [encoded[n] for n in held],
        calibration,
        machine=machine,
        what=what,
        draws=draws.of(held) if draws else None,
    )
    write_scores(out / SCORES, pa.array(held), np.asarray(scores), pattern.labels)
    accuracy = METRICS["accuracy"]([gold[n] for n in held], scores.argmax(1))
    return {"rows": len(held), "accuracy": accuracy}


def _texts(shards: list[Result], settings: Finetune, seed: int) -> list[Encoded]:
    """Pool texts for the MLM loss: of shards in random order, no more than the steps can use."""
    from pet_pipeline.encoding import read_encoded

    needed = settings.steps * settings.batch_size * settings.mlm_texts
    texts: list[Encoded] = []
    for n in np.random.default_rng(seed_from("texts", seed)).permutation(len(shards)):
        if len(texts) < needed:
            texts += read_encoded(shards[n].dir / ENCODED)
    return texts
