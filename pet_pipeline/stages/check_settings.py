"""Checks of settings against each other and against the registries, before anything is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from pet_pipeline.calibration import CALIBRATIONS
from pet_pipeline.combining import WEIGHTINGS
from pet_pipeline.config import Settings
from pet_pipeline.errors import listed, nearest
from pet_pipeline.methods import SOFT_METHODS
from pet_pipeline.patterns import Task, all_patterns
from pet_pipeline.search.word_search import WORD_SEARCHES
from pet_pipeline.stages.check_adapt import FEWEST_TOKENS, adapt_problems
from pet_pipeline.stages.generators import GENERATORS


def setting_problems(task: Task, settings: Settings) -> Iterator[str]:
    """What is wrong with settings, whatever the tables say."""
    yield from _unknown_names(settings)
    data = settings.data
    if not data.pool and not data.labelled:
        yield (
            "data.labelled, data.pool: neither is set; give labelled texts, --labelled FILE, "
            "unlabelled ones, --pool FILE, or both"
        )
    elif not data.pool and not settings.baseline.enabled:
        yield (
            "data.pool: not set, and with baseline.enabled = false nothing would be trained; give "
            "unlabelled texts, --pool FILE, or enable the baseline"
        )
    for column in data.columns:
        known = (*task.columns, "id", "label")
        if column not in known:
            yield f"data.columns: {column!r} is not a column of the task{nearest(column, known)}"
    yield from _weight_problems(settings)
    if settings.ensemble.temperature_folds == 1:
        yield (
            "ensemble.temperature_folds: one fold would hold out every row; take 2 or more, or 0 "
            "for none"
        )
    yield from _search_problems(settings)
    yield from _contrast_problems(task, settings)
    yield from _selection_problems(settings)
    if settings.finetune.max_tokens < FEWEST_TOKENS:
        yield (
            f"finetune.max_tokens: {settings.finetune.max_tokens} is too few; "
            f"the minimum is {FEWEST_TOKENS}"
        )
    yield from adapt_problems(settings)
    distill = settings.distill
    if not distill.steps and distill.min_steps > distill.max_steps:
        yield (
            f"distill.min_steps: {distill.min_steps} is more than "
            f"distill.max_steps = {distill.max_steps}"
        )


def label_count_problems(
    settings: Settings, counts: Mapping[str, int], development: Mapping[str, int]
) -> Iterator[str]:
    """What cannot be done with so few rows; rows by label of the tables, empty without any."""
    few = bool(counts) and max(counts.values()) < 2
    if few and _needs_folds(settings):
        yield (
            "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and "
            "no label has two; add rows, or take 'uniform'"
        )
    chosen = settings.finetune
    if chosen.select == "folds" and few:
        yield (
            "finetune.select: 'folds' holds out some rows of a label to tune on the others, and no "
            "label has two; add rows, or take 'none'"
        )
    elif chosen.select == "folds" and 0 < sum(counts.values()) < chosen.select_folds:
        yield (
            f"finetune.select_folds: {chosen.select_folds} folds of {sum(counts.values())} "
            "labelled rows; lower it, or add rows"
        )
    if chosen.select == "development" and development and max(development.values()) < 2:
        yield (
            "finetune.select: 'development' corrects the scores of some rows of a label by others, "
            "and no label has two in data.development; add rows, or take 'folds'"
        )
    if few and settings.search.templates:
        yield (
            "search.templates: compares templates on some rows of a label after tuning on the "
            "others, and no label has two; add rows"
        )


def uses_t5(settings: Settings) -> bool:
    """Whether a T5 writes templates."""
    return settings.search.templates and "t5" in settings.search.generators


def _unknown_names(settings: Settings) -> Iterator[str]:
    """Values that must be a key of a registry, or "none"."""
    search = settings.search
    for setting, value, known in (
        ("ensemble.weights", settings.ensemble.weights, [*WEIGHTINGS]),
        ("calibration.method", settings.calibration.method, ["none", *CALIBRATIONS]),
        ("search.label_words", search.label_words, ["none", *WORD_SEARCHES]),
        *(("search.generators", name, [*GENERATORS]) for name in search.generators),
    ):
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            hint = "; its name is now 'connectors'" if value == "seed" else hint
            yield f"{setting}: {value!r} is not one of {listed(known)}{hint}"


def _needs_folds(settings: Settings) -> bool:
    return settings.ensemble.weights == "fitted" and settings.ensemble.fit_on == "folds"


def _weight_problems(settings: Settings) -> Iterator[str]:
    data, chosen = settings.data, settings.ensemble
    weighting = WEIGHTINGS.get(chosen.weights)
    if weighting is None or weighting.needs == "nothing":
        return
    if not data.labelled:
        yield (
            f"ensemble.weights: {chosen.weights!r} needs labelled texts, data.labelled; "
            "'uniform' does not"
        )
    on_development = weighting.needs == "held_out" and chosen.fit_on == "development"
    if on_development and not data.development:
        yield "ensemble.fit_on: 'development' needs data.development; 'folds' does not"
    if settings.search.label_words != "none" and not on_development:
        yield (
            f"ensemble.weights: {chosen.weights!r} would weigh models on the labelled rows that "
            "search.label_words chose their words on; take 'uniform', or 'fitted' with "
            'ensemble.fit_on = "development"'
        )


def _contrast_problems(task: Task, settings: Settings) -> Iterator[str]:
    chosen = settings.finetune
    if not chosen.contrast_weight:
        return
    if chosen.contrast_view == "demonstrations" and not settings.demonstrations.enabled:
        yield (
            "finetune.contrast_view: 'demonstrations' needs demonstrations.enabled = true; "
            "'dropout' needs nothing"
        )
    if chosen.contrast_view != "pattern":
        return
    known, name = [pattern.name for pattern in all_patterns(task)], chosen.contrast_pattern
    if name not in known:
        hint = nearest(name, known) if name else f"; choose from {listed(known)}"
        yield f"finetune.contrast_pattern: {name!r} is not a pattern of the task{hint}"
    if chosen.method in SOFT_METHODS:
        yield (
            f"finetune.contrast_view: 'pattern' does not go with the soft prompt of "
            f"{chosen.method}, which belongs to one pattern; 'dropout' does"
        )


def _selection_problems(settings: Settings) -> Iterator[str]:
    data, chosen = settings.data, settings.finetune
    if chosen.select == "none":
        return
    if not data.labelled:
        yield "finetune.select: needs labelled texts, data.labelled; 'none' does not"
    if chosen.select == "development" and not data.development:
        yield "finetune.select: 'development' needs data.development; 'folds' does not"
    if not chosen.updates:
        yield (
            "finetune.select: with finetune.steps = 0 nothing is tuned, so there is no learning "
            "rate to select; take 'none', or more steps"
        )


def _search_problems(settings: Settings) -> Iterator[str]:
    search, demonstrations = settings.search, settings.demonstrations
    if not settings.data.labelled:
        for name, on in (
            ("search.templates", search.templates),
            ("search.label_words", search.label_words != "none"),
            ("demonstrations.enabled", demonstrations.enabled),
        ):
            if on:
                yield f"{name}: needs labelled texts, data.labelled"
    if uses_t5(settings) and not search.t5:
        yield "search.t5: not set; the generator 't5' needs a model with sentinels, such as t5-base"
    if demonstrations.enabled and demonstrations.max_tokens <= settings.finetune.max_tokens:
        yield (
            f"demonstrations.max_tokens: {demonstrations.max_tokens} leaves no room beside an "
            f"input of finetune.max_tokens = {settings.finetune.max_tokens}"
        )
