"""The label-word search: one unit for each pattern, which writes it again with found words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pet_pipeline.config import Machine, Search, Settings
from pet_pipeline.models import Pretrained, resolve_model
from pet_pipeline.patterns import Pattern, Task, write_pattern, write_task
from pet_pipeline.run import Result, Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.results import Tables, training_rows

WORDS = "words.json"


def search_words(
    run: Run, task: Task, bases: Sequence[Pattern], tables: Tables, settings: Settings
) -> list[Result]:
    """For each pattern the folder of one with the same template and found label words."""
    chosen = settings.search
    fields = Search.model_fields
    kept = ("label_words", "likely", "neighbours", "words_per_label")
    unused = {name: fields[name].default for name in fields if name not in kept}
    calls = {
        f"words-{pattern.name}": {
            "base": resolve_model(settings.model, settings.revision),
            "labelled": tables.labelled,
            "columns": task.columns,
            "metric": task.metric,
            "pattern": pattern,
            "settings": chosen.model_copy(update=unused),
            "max_tokens": settings.finetune.max_tokens,
        }
        for pattern in bases
    }
    return run.do("search", _find_words, calls)


def read_words(result: Result) -> dict[str, Any]:
    """The label words that were found for a pattern, and how well they do before tuning."""
    found: dict[str, Any] = json.loads((result.dir / WORDS).read_text("utf-8"))
    return found


def words_name(pattern: Pattern) -> str:
    """The name of a pattern that has another one's template, and found label words."""
    return f"{pattern.name}-words"


def _find_words(
    out: Path,
    machine: Machine,
    *,
    base: Pretrained,
    labelled: Result,
    columns: tuple[str, ...],
    metric: str,
    pattern: Pattern,
    settings: Search,
    max_tokens: int,
) -> dict[str, Any]:
    from pet_pipeline.encoding import PatternEncoder
    from pet_pipeline.pretrained import load_mlm, load_tokenizer
    from pet_pipeline.search.label_words import find_label_words
    from pet_pipeline.search.templates import template_of

    rows, gold = training_rows([labelled], pattern.labels)
    tokenizer = load_tokenizer(base)
    found = find_label_words(
        load_mlm(base),
        PatternEncoder(pattern, tokenizer, max_tokens),
        rows,
        gold,
        settings,
        seed=seed_from("label words", pattern.name),
        machine=machine,
    )
    write_task(out, columns, pattern.labels, metric, found.words)
    comment = (
        f"Label words of {pattern.name} by a search ({settings.label_words}): before tuning they "
        f"get {found.correct} of {found.rows} labelled rows right, its own {found.own_correct}"
    )
    name = words_name(pattern)
    file = out / f"{name}.toml"
    write_pattern(file, comment, template_of(pattern), pattern.labels, found.words)
    told = {"name": name, "labels": pattern.labels, **asdict(found)}
    (out / WORDS).write_text(json.dumps(told, indent=1), "utf-8")
    return {"correct": found.correct, "own_correct": found.own_correct, "rows": found.rows}
