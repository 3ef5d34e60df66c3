"""Searches before the fine-tunes: which patterns the task has after them, and under which names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from planning import QUICK, Make, result
from testing import run, todo

from pet_pipeline import Run, find_patterns, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.stages.search import Searched

SMALL = {"candidates": 9, "beam": 2, "keep": 2, "folds": 2, "steps": 2}
LISTED: dict[str, Any] = {"templates": True, "generators": ["connectors"], **SMALL}


def found_by(settings: Settings, **options: Any) -> Searched:
    with Run.open(settings, **options) as opened:
        task = load_task(settings.task)
        return find_patterns(opened, task, prepare(opened, task, settings), settings)


def names(searched: Searched) -> list[str]:
    return [pattern.name for pattern in searched.task.patterns]


def test_nothing_is_searched_unless_asked(tiny_settings: Make) -> None:
    searched = found_by(tiny_settings())
    assert searched.task == load_task(tiny_settings().task)
    assert searched.templates is None
    assert not searched.words
    assert not (Path(tiny_settings().output) / "search").exists()


def test_found_patterns_may_replace_the_tasks_own(tiny_settings: Make) -> None:
    settings = tiny_settings(search={**LISTED, "use": "replace"}, **QUICK)
    run(settings)
    root = Path(settings.output)
    assert sorted(f.name for f in (root / "gen-0/finetune").iterdir()) == ["found-1-1", "found-2-1"]
    assert "found-2" in (root / "report/index.html").read_text()
    assert todo(settings) == []


def test_a_pattern_that_found_ones_replace_may_be_the_second_view(tiny_settings: Make) -> None:
    contrast = {"contrast_weight": 1.0, "contrast_view": "pattern", "contrast_pattern": "mood"}
    search = {**LISTED, "use": "replace"}
    settings = tiny_settings(search=search, finetune=contrast, **QUICK)
    run(settings, until="finetune")
    folder = Path(settings.output) / "gen-0/finetune"
    assert sorted(f.name for f in folder.iterdir()) == ["found-1-1", "found-2-1"]


def test_names_of_found_patterns_do_not_clash(
    tiny_settings: Make, tmp_path: Path, tiny_task: Path
) -> None:
    shutil.copytree(tiny_task, tmp_path / "mood")
    (tmp_path / "mood" / "found-7.toml").write_text('template = "{text} so {mask}"')
    settings = tiny_settings(task=str(tmp_path / "mood"), search=LISTED)
    expected = ["found-7", "it_was", "just", "mood", "found-8", "found-9"]
    assert names(found_by(settings, plan=True)) == expected


def test_found_templates_get_found_words(tiny_settings: Make) -> None:
    settings = tiny_settings(search={**LISTED, "label_words": "assignment"})
    expected = ["it_was", "just", "mood", "found-1-words", "found-2-words"]
    assert names(found_by(settings, plan=True)) == expected
    searched = found_by(settings)
    assert names(searched) == expected
    assert len(searched.words) == 2
    assert searched.templates is not None
    for pattern in searched.task.patterns:
        assert pattern.parts
        assert all(pattern.words)


def test_only_what_depends_on_a_search_is_done_again(finished: Make, tiny_settings: Make) -> None:
    output = finished(until="annotate", search=LISTED, **QUICK).output

    def again(**changes: Any) -> list[str]:
        return todo(tiny_settings(output=output, search={**LISTED, **changes}, **QUICK))

    kept = again(keep=1)
    assert "search/screen" not in kept
    assert "search/round-1-fold-0" in kept
    assert not [name for name in kept if "it_was" in name or "just" in name]
    more = again(generators=["connectors", "mine"])
    assert "search/generate-connectors" not in more
    assert "search/generate-mine" in more
    assert "search/screen" in more
    for unused in ({"beam": 5}, {"words_per_label": 3}, {"candidates_per_label": 7}):
        assert not [name for name in again(**unused) if name.startswith("search/")]


def test_an_accuracy_on_rows_that_a_search_saw_says_so(finished: Make) -> None:
    weights = {"weights": "fitted", "folds": 2}
    settings = finished(until="ensemble", search=LISTED, ensemble=weights, **QUICK)
    for kind, suffix, figure in (
        ("finetune", "1", "untuned_accuracy"),
        ("crossfit", "fold-0", "accuracy"),
    ):
        infos = {
            name: result(settings, f"gen-0/{kind}/{name}-{suffix}").info
            for name in ("it_was", "found-1", "found-2")
        }
        assert all(figure in info for info in infos.values())
        assert "note" not in infos["it_was"]
        note = f"{figure} is in-sample: the search saw these rows"
        assert infos["found-1"]["note"] == infos["found-2"]["note"] == note


def test_ipet_with_demonstrations_and_found_templates(tiny_settings: Make) -> None:
    settings = tiny_settings(
        demonstrations={"enabled": True, "draws": 1, "max_tokens": 120},
        search=LISTED,
        ipet={"generations": 1},
        **QUICK,
    )
    run(settings)
    assert todo(settings) == []
    info = result(settings, "gen-1/finetune/found-1-1").info
    assert info["rows"] > 8
    assert info["demonstrations"] == 2
