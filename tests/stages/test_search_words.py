"""Label words that a search finds, a pattern file for each pattern."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import QUICK, Make, planned, result
from testing import run, todo

from pet_pipeline import load_task
from pet_pipeline.search.word_search import WordSearch
from pet_pipeline.stages.search_words import FindWords, read_words, words_name

PATTERNS = ("it_was", "just", "mood")


@pytest.mark.parametrize("method", ["assignment", "amulap"])
def test_label_words_are_found_for_every_pattern(tiny_settings: Make, method: str) -> None:
    settings = tiny_settings(search={"label_words": method, "words_per_label": 2}, **QUICK)
    assert [name for name in todo(settings) if name.startswith("search/")] == [
        f"search/words-{name}" for name in PATTERNS
    ]
    run(settings)
    assert todo(settings) == []
    root = Path(settings.output)
    page = (root / "report/index.html").read_text()
    for pattern in load_task(settings.task).patterns:
        search = result(settings, f"search/words-{pattern.name}")
        (found,) = load_task(search.dir).patterns
        assert found.name == words_name(pattern) == f"{pattern.name}-words"
        assert found.parts == pattern.parts
        assert [len(group) for group in found.words] == [2, 2]
        record = read_words(search)
        assert (record.name, record.labels, record.words) == (
            found.name,
            ("sad", "happy"),
            found.words,
        )
        assert record.rows == 8
        assert f"{record.correct} of 8" in page
        assert found.name in page
        text = (search.dir / f"{found.name}.toml").read_text()
        assert (
            f"before tuning they get {record.correct} of 8 labelled rows right, its own "
            f"{record.own_correct} (in-sample: the search chose by these rows)"
        ) in text
        assert search.info == {
            "in_sample_correct": record.correct,
            "in_sample_own_correct": record.own_correct,
            "in_sample_rows": 8,
        }
    models = sorted(f.name for f in (root / "gen-0/finetune").iterdir())
    assert len(models) == 6


def test_the_search_is_what_the_settings_say(tiny_settings: Make) -> None:
    search = {
        "label_words": "amulap",
        "candidates_per_label": 7,
        "neighbours": 30,
        "words_per_label": 3,
    }
    unit = planned(tiny_settings(search=search))["search/words-just"].unit
    assert isinstance(unit, FindWords)
    assert unit.search == WordSearch("amulap", 7, 30, 3)
    assert unit.pattern.name == "just"
