"""Settings that do not go together, or name what does not exist, each with its message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planning import Make

from pet_pipeline import load_task
from pet_pipeline.stages.check_settings import (
    label_count_problems,
    setting_problems,
    uses_t5,
)

UNKNOWN = {
    "ensemble.weights": (
        {"ensemble": {"weights": "uniforms"}},
        "'uniforms' is not one of 'uniform', 'wmean', 'fitted'; did you mean 'uniform'?",
    ),
    "calibration.method": (
        {"calibration": {"method": "contextuel"}},
        "'contextuel' is not one of 'none', 'contextual', 'pmi'; did you mean 'contextual'?",
    ),
    "search.label_words": (
        {"search": {"label_words": "assign"}},
        "'assign' is not one of 'none', 'assignment', 'amulap'; did you mean 'assignment'?",
    ),
    "search.generators": (
        {"search": {"generators": ["connectors", "seed"]}},
        "'seed' is not one of 'mlm', 't5', 'autoprompt', 'mine', 'connectors'; "
        "its name is now 'connectors'",
    ),
}


def problems(make: Make, **sections: Any) -> list[str]:
    settings = make(**sections)
    return list(setting_problems(load_task(settings.task), settings))


def test_nothing_is_wrong_with_what_is_broken_here(tiny_settings: Make) -> None:
    assert problems(tiny_settings) == []


@pytest.mark.parametrize("setting", UNKNOWN)
def test_unknown_names_are_refused_with_those_that_there_are(
    tiny_settings: Make, setting: str
) -> None:
    sections, message = UNKNOWN[setting]
    assert problems(tiny_settings, **sections) == [f"{setting}: {message}"]


CONTRAST = {
    "demonstrations": (
        {"contrast_view": "demonstrations"},
        "contrast_view: 'demonstrations' needs demonstrations.enabled = true; "
        "'dropout' needs nothing",
    ),
    "no pattern": (
        {"contrast_view": "pattern"},
        "contrast_pattern: '' is not a pattern of the task; choose from 'it_was', 'just', 'mood'",
    ),
    "another pattern": (
        {"contrast_view": "pattern", "contrast_pattern": "modo"},
        "contrast_pattern: 'modo' is not a pattern of the task; did you mean 'mood'?",
    ),
    "soft prompt": (
        {"contrast_view": "pattern", "contrast_pattern": "mood", "method": "p_tuning"},
        "contrast_view: 'pattern' does not go with the soft prompt of p_tuning, which belongs to "
        "one pattern; 'dropout' does",
    ),
}


@pytest.mark.parametrize("case", CONTRAST)
def test_a_second_view_that_is_not_there_is_refused(tiny_settings: Make, case: str) -> None:
    chosen, message = CONTRAST[case]
    assert problems(tiny_settings, finetune={"contrast_weight": 1.0, **chosen}) == [
        f"finetune.{message}"
    ]
    assert problems(tiny_settings, finetune={**chosen, "contrast_weight": 0.0}) == []


LABEL_WORDS = {"search": {"label_words": "assignment"}}


@pytest.mark.parametrize(
    "ensemble", [{"weights": "wmean"}, {"weights": "fitted"}, {"weights": "fitted", "folds": 3}]
)
def test_models_are_not_weighted_on_rows_that_their_words_were_searched_on(
    tiny_settings: Make, tiny_tables: dict[str, str], ensemble: dict[str, Any]
) -> None:
    development = {"development": tiny_tables["development"]}  # not used by these
    assert problems(tiny_settings, data=development, ensemble=ensemble, **LABEL_WORDS) == [
        f"ensemble.weights: {ensemble['weights']!r} would weigh models on the labelled rows that "
        "search.label_words chose their words on; take 'uniform', or 'fitted' with "
        'ensemble.fit_on = "development"'
    ]
    assert problems(tiny_settings, ensemble=ensemble) == []


def test_models_with_found_words_may_be_weighted_alike_or_on_other_rows(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    on_development: dict[str, Any] = {
        "data": {"development": tiny_tables["development"]},
        "ensemble": {"weights": "fitted", "fit_on": "development"},
    }
    assert problems(tiny_settings, **LABEL_WORDS) == []
    assert problems(tiny_settings, **LABEL_WORDS, **on_development) == []


WITHOUT_LABELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wmean": (
        {"ensemble": {"weights": "wmean"}},
        [
            "ensemble.weights: 'wmean' needs labelled texts, data.labelled; 'uniform' does not",
        ],
    ),
    "searches": (
        {
            "search": {"templates": True, "label_words": "amulap"},
            "demonstrations": {"enabled": True},
        },
        [
            f"{name}: needs labelled texts, data.labelled"
            for name in ("search.templates", "search.label_words", "demonstrations.enabled")
        ],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_what_needs_labelled_texts(tiny_settings: Make, name: str) -> None:
    sections, messages = WITHOUT_LABELS[name]
    assert problems(tiny_settings, data={"labelled": ""}, **sections) == messages
    assert problems(tiny_settings, **sections) == []


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "no texts": (
        {"data": {"pool": "", "labelled": ""}},
        "data.labelled, data.pool: neither is set; give labelled texts, --labelled FILE, "
        "unlabelled ones, --pool FILE, or both",
    ),
    "no pool and no baseline": (
        {"data": {"pool": ""}, "baseline": {"enabled": False}},
        "data.pool: not set, and with baseline.enabled = false nothing would be trained; give "
        "unlabelled texts, --pool FILE, or enable the baseline",
    ),
    "column": (
        {"data": {"columns": {"txt": "message"}}},
        "data.columns: 'txt' is not a column of the task; did you mean 'text'?",
    ),
    "development": (
        {"ensemble": {"weights": "fitted", "fit_on": "development"}},
        "ensemble.fit_on: 'development' needs data.development; 'folds' does not",
    ),
    "t5": (
        {"search": {"templates": True, "generators": ["t5"]}},
        "search.t5: not set; the generator 't5' needs a model with sentinels, such as t5-base",
    ),
    "tokens": (
        {"finetune": {"max_tokens": 7}},
        "finetune.max_tokens: 7 is too few; the minimum is 8",
    ),
    "demonstrations": (
        {"demonstrations": {"enabled": True, "max_tokens": 48}},
        "demonstrations.max_tokens: 48 leaves no room beside an input of finetune.max_tokens = 48",
    ),
    "steps": (
        {"distill": {"steps": 0, "min_steps": 9, "max_steps": 8}},
        "distill.min_steps: 9 is more than distill.max_steps = 8",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_settings_that_do_not_go_together(tiny_settings: Make, name: str) -> None:
    sections, message = OTHERS[name]
    assert problems(tiny_settings, **sections) == [message]


def test_bounds_of_the_steps_do_not_matter_if_the_steps_are_given(tiny_settings: Make) -> None:
    given = {"steps": 5, "min_steps": 9, "max_steps": 8}
    assert problems(tiny_settings, distill=given) == []


@pytest.mark.parametrize("counts", [{"sad": 1, "happy": 1}, {"sad": 2, "happy": 1}, {}])
def test_a_label_with_two_rows_is_needed_to_hold_some_out(
    tiny_settings: Make, counts: dict[str, int]
) -> None:
    few = bool(counts) and max(counts.values()) == 1
    fitted = tiny_settings(ensemble={"weights": "fitted"})
    expected = [
        "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and no "
        "label has two; add rows, or take 'uniform'"
    ]
    assert list(label_count_problems(fitted, counts, {})) == (expected if few else [])
    searched = tiny_settings(search={"templates": True})
    expected = [
        "search.templates: compares templates on some rows of a label after tuning on the others, "
        "and no label has two; add rows"
    ]
    assert list(label_count_problems(searched, counts, {})) == (expected if few else [])
    assert list(label_count_problems(tiny_settings(), counts, {})) == []


def test_a_t5_is_used_by_its_generator_alone(tiny_settings: Make, tmp_path: Path) -> None:
    def used(**search: Any) -> bool:
        return uses_t5(tiny_settings(search={"t5": str(tmp_path), **search}))

    assert used(templates=True, generators=["mlm", "t5"])
    assert not used(templates=True)
    assert not used(generators=["t5"])


@pytest.mark.parametrize(("counts", "few"), [({}, False), ({"sad": 1, "happy": 1}, True)])
def test_a_selection_needs_two_rows_of_a_label_to_measure_on(
    tiny_settings: Make, counts: dict[str, int], few: bool
) -> None:
    settings = tiny_settings(finetune={"select": "development"})
    found = list(label_count_problems(settings, {"sad": 4, "happy": 4}, counts))
    expected = (
        "finetune.select: 'development' corrects the scores of some rows of a label by others, and "
        "no label has two in data.development; add rows, or take 'folds'"
    )
    assert found == ([expected] if few else [])
    assert list(label_count_problems(settings, {"sad": 4}, {"sad": 2, "happy": 1})) == []
