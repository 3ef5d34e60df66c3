"""The template search: units that write candidates, screen them, and compare them on folds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pet_pipeline.config import Finetune, Machine, Settings
from pet_pipeline.data import read_rows
from pet_pipeline.errors import UserError
from pet_pipeline.models import HubModel, Pretrained, resolve_model
from pet_pipeline.patterns import Task, write_pattern, write_task
from pet_pipeline.progress import say
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import Tables, shard_file, training_rows

if TYPE_CHECKING:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.search.templates import Candidate

CANDIDATES = "candidates.json"
SCREENED = "screened.json"
ROUND = "round.json"
TEMPLATES = "templates.json"
COMPARED_ROWS = 512  # labelled rows that templates are compared on; 16 a label are far fewer
WRITING_ROWS = 32  # labelled rows that templates are written for; more add seconds, not sense
MINED_ROWS = 20_000  # rows of the pool that templates are mined from
ROUNDS = 2  # of fine-tunes that compare templates; half of them are left after each

Words = tuple[tuple[str, ...], ...]


def search_templates(
    run: Run, task: Task, tables: Tables, settings: Settings, names: list[str]
) -> Result:
    """The best templates as pattern files of these names, in a folder that is one of a task."""
    from pet_pipeline.search.templates import template_of, verbalizer_of

    chosen = settings.search
    base = resolve_model(settings.model, settings.revision)
    given = {
        "labelled": tables.labelled,
        "columns": task.columns,
        "labels": task.labels,
        "words": verbalizer_of(task.patterns),
    }
    tokens = {"max_tokens": settings.finetune.max_tokens}
    generated = run.do(
        "search",
        _generate,
        {
            f"generate-{name}": _generator_call(name, base, given, tables, settings)
            for name in chosen.generators
        },
    )
    known = [template_of(p) for p in task.patterns] if chosen.use == "add" else []
    screened = run.do(
        "search",
        _screen,
        {
            "screen": {
                **given,
                **tokens,
                "base": base,
                "generated": generated,
                "count": chosen.candidates,
                "known": known,
                "folds": chosen.folds,
            }
        },
    )[0]
    rounds: list[list[Result]] = []
    for number in range(ROUNDS):
        calls = {
            f"round-{number + 1}-fold-{fold}": {
                **given,
                "base": base,
                "screened": screened,
                "earlier": list(rounds),
                "tuned": _survivors(chosen.keep, number),
                "fold": fold,
                "folds": chosen.folds,
                "settings": _short(settings.finetune, chosen.steps, number),
            }
            for fold in range(chosen.folds)
        }
        rounds.append(run.do("search", _compare, calls))
    call = {
        **given,
        "metric": task.metric,
        "model": base.name if isinstance(base, HubModel) else Path(base).resolve().name,
        "screened": screened,
        "rounds": rounds,
        "keep": chosen.keep,
        "names": names,
    }
    return run.do("search", _write_templates, {"templates": call})[0]


def read_templates(result: Result) -> dict[str, Any]:
    """All candidates with their log-losses, which were kept, and what to make of it."""
    found: dict[str, Any] = json.loads((result.dir / TEMPLATES).read_text("utf-8"))
    return found


def _generator_call(
    name: str, base: Pretrained, given: dict[str, Any], tables: Tables, settings: Settings
) -> dict[str, Any]:
    """The parameters of a generator: only those that make a difference to it."""
    chosen = settings.search
    return {
        **given,
        "generator": name,
        "labelled": None if name in ("mine", "seed") else tables.labelled,
        "base": base if name in ("mlm", "autoprompt") else None,
        "t5": resolve_model(chosen.t5) if name == "t5" else None,
        "pool": tables.pool if name == "mine" else None,
        "beam": chosen.beam if name in ("mlm", "t5") else None,
        "max_tokens": None if name in ("mine", "seed") else settings.finetune.max_tokens,
    }


def _survivors(keep: int, number: int) -> int:
    """How many templates are tuned in a round.

    >>> [_survivors(4, number) for number in range(ROUNDS)]
    [16, 8]
    """
    return int(keep * 2 ** (ROUNDS - number))


def _short(settings: Finetune, steps: int, number: int) -> Finetune:
    """The fine-tunes of a round: the last one's have all the steps, those before half as many."""
    fields = Finetune.model_fields
    update = {name: fields[name].default for name in ("seeds", "mlm_texts", "mlm_masked")}
    steps = max(1, steps >> (ROUNDS - 1 - number))
    return settings.model_copy(update={**update, "mlm_weight": 0.0, "steps": steps})


def _generate(
    out: Path,
    machine: Machine,
    *,
    generator: str,
    base: Pretrained | None,
    labelled: Result | None,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    words: Words,
    beam: int | None,
    t5: Pretrained | None,
    pool: Result | None,
    max_tokens: int | None,
) -> dict[str, Any]:
    from pet_pipeline.search.infilling import infill_templates
    from pet_pipeline.search.listed import listed_templates, mined_templates
    from pet_pipeline.search.seq2seq import seq2seq_templates
    from pet_pipeline.search.triggers import trigger_templates

    found: list[list[Candidate]]
    if generator == "seed":
        found = listed_templates(columns, words)
    elif pool is not None:
        texts = (row[column] for row in islice(_pool_rows(pool), MINED_ROWS) for column in columns)
        found = mined_templates(texts, columns, words)
    else:
        rows, gold = _some_rows(labelled, labels, WRITING_ROWS)
        given: Any = (rows, gold, columns, words)
        options: Any = {"max_tokens": max_tokens, "machine": machine}
        if t5 is not None:
            models = _seq2seq(t5)
            found = seq2seq_templates(*models, *given, beam=beam or 1, **options)
        elif generator == "mlm":
            found = infill_templates(*_mlm(base), *given, beam=beam or 1, **options)
        else:
            found = trigger_templates(*_mlm(base), *given, **options)
    text = json.dumps([[asdict(c) for c in group] for group in found], indent=1)
    (out / CANDIDATES).write_text(text, "utf-8")
    return {"candidates": sum(len(group) for group in found)}


def _screen(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labelled: Result,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    words: Words,
    generated: list[Result],
    count: int,
    known: list[str],
    folds: int,
    max_tokens: int,
) -> dict[str, Any]:
    """Rank the candidates by what the untuned model makes of them."""
    from pet_pipeline.inference import score_rows
    from pet_pipeline.search.selection import LogLoss, corrected_losses
    from pet_pipeline.search.templates import choose

    groups = [group for result in generated for group in _candidates(result)]
    rows, gold = _some_rows(labelled, labels, COMPARED_ROWS)
    model, tokenizer = _mlm(base)
    screened = []
    for candidate in choose(groups, count, known):
        encoder = _encoder(candidate.template, labels, words, tokenizer, max_tokens)
        if encoder.problems():
            continue
        scores = score_rows(
            model,
            encoder.encode(rows),
            encoder.layout,
            encoder.words,
            machine=machine,
            what="screen templates",
            decoding="parallel",
        )
        losses = corrected_losses(scores, gold, folds)
        found = LogLoss.of(losses)
        screened.append({**asdict(candidate), "log_loss": found.mean, "error": found.error})
    if not screened:
        raise UserError(
            f"search.generators: {', '.join(r.dir.name.partition('-')[2] for r in generated)} "
            "found no template that the task does not have; add 'seed' or 'mine'"
        )
    screened.sort(key=lambda entry: (entry["log_loss"], entry["template"]))
    (out / SCREENED).write_text(json.dumps(screened, indent=1), "utf-8")
    return {"candidates": len(screened), "best": screened[0]["log_loss"]}


def _compare(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labelled: Result,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    words: Words,
    screened: Result,
    earlier: list[list[Result]],
    tuned: int,
    fold: int,
    folds: int,
    settings: Finetune,
) -> dict[str, Any]:
    """Tune the templates that are left on all folds but one, and measure them on that."""
    from pet_pipeline.batches import fold_rows
    from pet_pipeline.search.selection import tuned_scores

    rows, gold = _some_rows(labelled, labels, COMPARED_ROWS)
    held = fold_rows(gold, folds, fold)
    templates = [entry["template"] for entry in _ranking(screened, earlier, gold)][:tuned]
    model, tokenizer = _mlm(base)
    encoders = [
        _encoder(template, labels, words, tokenizer, settings.max_tokens) for template in templates
    ]
    scores = tuned_scores(
        model,
        encoders,
        rows,
        gold,
        held,
        settings=settings,
        seed=seed_from("search", fold),
        machine=machine,
    )
    found = {"rows": held, "scores": dict(zip(templates, scores.tolist(), strict=True))}
    (out / ROUND).write_text(json.dumps(found, indent=1), "utf-8")
    return {"templates": len(templates), "rows": len(held)}


def _write_templates(
    out: Path,
    machine: Machine,
    *,
    labelled: Result,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    words: Words,
    metric: str,
    model: str,
    screened: Result,
    rounds: list[list[Result]],
    keep: int,
    names: list[str],
) -> dict[str, Any]:
    """The best templates as pattern files, and all of them with what they were judged by."""
    from pet_pipeline.search.selection import verdict

    gold = _some_rows(labelled, labels, COMPARED_ROWS)[1]
    ranking = _ranking(screened, rounds, gold)
    kept = ranking[:keep]
    write_task(out, columns, labels, metric, words)
    for rank, (name, entry) in enumerate(zip(names, kept, strict=False), 1):
        entry["name"] = name
        comment = (
            f"Found by a search ({entry['generator']}, {model}): {rank} of {len(ranking)} "
            f"candidates by log-loss, {entry['log_loss']:.3f} ± {entry['error']:.3f} nats on "
            f"{len(gold)} labelled rows"
        )
        write_pattern(out / f"{name}.toml", comment, entry["template"], labels, words)
    compared = np.array([entry["losses"] for entry in ranking if entry["rounds"] == len(rounds)])
    for entry in ranking:
        entry.pop("losses", None)
    said = verdict(compared[:keep], compared[keep:])
    say(f"  {said}")
    found = {"rows": len(gold), "verdict": said, "candidates": ranking}
    (out / TEMPLATES).write_text(json.dumps(found, indent=1), "utf-8")
    return {"candidates": len(ranking), "kept": len(kept), "log_loss": kept[0]["log_loss"]}


def _ranking(
    screened: Result, rounds: Sequence[Sequence[Result]], gold: Sequence[int]
) -> list[dict[str, Any]]:
    """All candidates, best first: those of the last round before those that it left out.

    Tuned ones have their losses on all rows, and the number of rounds that they were in.
    """
    from pet_pipeline.search.selection import LogLoss, corrected_losses

    found = json.loads((screened.dir / SCREENED).read_text("utf-8"))
    ranking: list[dict[str, Any]] = [{**entry, "rounds": 0} for entry in found]
    for number, folds in enumerate(rounds, 1):
        parts = [json.loads((fold.dir / ROUND).read_text("utf-8")) for fold in folds]
        order = np.argsort([row for part in parts for row in part["rows"]])
        for entry in ranking:
            template = entry["template"]
            if template in parts[0]["scores"]:
                scores = [row for part in parts for row in part["scores"][template]]
                losses = corrected_losses(np.array(scores)[order], gold, len(folds))
                judged = LogLoss.of(losses)
                entry |= {"rounds": number, "log_loss": judged.mean, "error": judged.error}
                entry["losses"] = losses.tolist()
        ranking.sort(key=lambda entry: (-entry["rounds"], entry["log_loss"], entry["template"]))
    return ranking


def _candidates(result: Result) -> list[list[Candidate]]:
    from pet_pipeline.search.templates import Candidate

    groups = json.loads((result.dir / CANDIDATES).read_text("utf-8"))
    return [[Candidate(**entry) for entry in group] for group in groups]


def _some_rows(
    labelled: Result | None, labels: tuple[str, ...], count: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """So many labelled rows, or all: as many of each label, the first ones."""
    rows, gold = training_rows([labelled] if labelled else [], labels)
    seen = [gold[:n].count(label) for n, label in enumerate(gold)]
    chosen = sorted(sorted(range(len(rows)), key=lambda n: (seen[n], n))[:count])
    return [rows[n] for n in chosen], [gold[n] for n in chosen]


def _pool_rows(pool: Result) -> Iterator[dict[str, Any]]:
    """The pool's rows, shard by shard."""
    for n in range(len(list(pool.dir.glob("part-*.parquet")))):
        yield from read_rows(shard_file(pool, n))


def _mlm(base: Pretrained | None) -> tuple[Any, Any]:
    from pet_pipeline.pretrained import load_mlm, load_tokenizer

    assert base is not None
    return load_mlm(base), load_tokenizer(base)


def _seq2seq(model: Pretrained) -> tuple[Any, Any]:
    from pet_pipeline.pretrained import load_seq2seq, load_tokenizer

    return load_seq2seq(model), load_tokenizer(model)


def _encoder(
    template: str,
    labels: tuple[str, ...],
    words: Words,
    tokenizer: Any,
    max_tokens: int,
) -> PatternEncoder:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.search.templates import pattern_of

    return PatternEncoder(pattern_of("", template, labels, words), tokenizer, max_tokens)
