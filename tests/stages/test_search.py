"""Searches and demonstrations in a run: planned, resumed, in the report, and of use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_t5
from markupsafe import escape
from test_stages import run, todo

from pet_pipeline import Run, find_patterns, load_task, prepare
from pet_pipeline.config import Settings
from pet_pipeline.data import read_scores
from pet_pipeline.patterns import Field
from pet_pipeline.stages.search import Searched

Make = Callable[..., Settings]
SMALL = {"candidates": 9, "beam": 2, "keep": 2, "folds": 2, "steps": 2}
QUICK: dict[str, Any] = {"distill": {"enabled": False}, "baseline": {"enabled": False}}


def found_by(settings: Settings, **options: Any) -> Searched:
    with Run.open(settings, **options) as opened:
        task = load_task(settings.task)
        return find_patterns(opened, task, prepare(opened, task, settings), settings)


def scores(settings: Settings, model: str) -> Any:
    file = Path(settings.output) / "gen-0" / "annotate" / f"{model}-test" / "scores.parquet"
    return read_scores(file)[1]


def test_found_templates_join_the_task(tiny_settings: Make) -> None:
    generators = ["mlm", "seed", "mine", "autoprompt"]
    settings = tiny_settings(search={"templates": True, "generators": generators, **SMALL}, **QUICK)
    planned = todo(settings)
    searches = [name for name in planned if name.startswith("search/")]
    assert searches == [
        *(f"search/generate-{name}" for name in generators),
        "search/screen",
        *(f"search/round-{n}-fold-{fold}" for n in (1, 2) for fold in range(2)),
        "search/templates",
    ]
    assert "gen-0/finetune/found-1-1" in planned
    first = planned.index("search/generate-mlm")
    assert planned.index("search/templates") < planned.index("gen-0/finetune/it_was-1")
    assert first > planned.index("prepare/patterns")
    run(settings)
    assert todo(settings) == []  # what was planned before is what was done
    root = Path(settings.output)
    models = json.loads((root / "gen-0/ensemble/all/ensemble.json").read_text())["models"]
    assert models == ["it_was-1", "just-1", "mood-1", "found-1-1", "found-2-1"]
    own = load_task(settings.task)
    task = load_task(root / "search" / "templates")  # its folder is a task's
    assert (task.columns, task.labels, task.metric) == (own.columns, own.labels, own.metric)
    assert [p.name for p in task.patterns] == ["found-1", "found-2"]
    text = (root / "search/templates/found-1.toml").read_text()
    assert text.startswith("# Found by a search (")
    assert "1 of 9 candidates by log-loss" in text
    assert "8 labelled rows" in text
    for pattern in task.patterns:
        assert pattern.words == (("terrible", "bad"), ("great", "good"))
        literal = " ".join(p for p in pattern.parts if isinstance(p, str)).lower()
        assert not {"terrible", "bad", "great", "good"} & set(literal.split())
        assert [p.name for p in pattern.parts if isinstance(p, Field)].count("mask") == 1
    page = (root / "report/index.html").read_text()
    found = json.loads((root / "search/templates/templates.json").read_text())
    assert escape(found["verdict"]) in page
    assert len(found["candidates"]) == 9
    for candidate in found["candidates"]:
        assert escape(candidate["template"]) in page
        assert candidate["error"] > 0
    assert [c.get("name") for c in found["candidates"][:3]] == ["found-1", "found-2", None]


def test_searches_are_deterministic_and_go_on(tiny_settings: Make, tmp_path: Path) -> None:
    options = {"search": {"templates": True, "generators": ["seed"], **SMALL}}
    whole = tiny_settings(output=str(tmp_path / "whole"), **options)
    parted = tiny_settings(output=str(tmp_path / "parted"), machine={"jobs": 2}, **options)
    templates = found_by(whole).templates
    assert templates is not None
    found_by(parted)
    for name in ("search/templates", "search/round-2-fold-1"):
        shutil.rmtree(tmp_path / "parted" / name)
    again = found_by(parted).templates
    assert again is not None
    files = sorted(file.name for file in templates.dir.glob("*.toml"))
    assert files == ["found-1.toml", "found-2.toml", "task.toml"]
    for file in (*files, "templates.json"):
        assert (templates.dir / file).read_text() == (again.dir / file).read_text()
    assert templates.key == again.key


def test_only_what_depends_on_a_search_is_done_again(tiny_settings: Make) -> None:
    def settings(**changes: Any) -> Settings:
        chosen = {"templates": True, "generators": ["seed"], **SMALL, **changes}
        return tiny_settings(search=chosen, **QUICK)

    run(settings(), until="annotate")
    kept = todo(settings(keep=1))
    assert "search/screen" not in kept
    assert "search/round-1-fold-0" in kept
    assert not [name for name in kept if "it_was" in name or "just" in name]
    more = todo(settings(generators=["seed", "mine"]))
    assert "search/generate-seed" not in more
    assert "search/generate-mine" in more
    assert "search/screen" in more
    assert not [
        name for name in todo(settings(beam=5)) if name.startswith("search/")
    ]  # seed has none
    assert not [name for name in todo(settings(words_per_label=3)) if name.startswith("search/")]


def test_found_patterns_may_replace_the_tasks_own(tiny_settings: Make) -> None:
    settings = tiny_settings(
        search={"templates": True, "generators": ["seed"], "use": "replace", **SMALL}, **QUICK
    )
    run(settings)
    root = Path(settings.output)
    assert sorted(f.name for f in (root / "gen-0/finetune").iterdir()) == ["found-1-1", "found-2-1"]
    page = (root / "report/index.html").read_text()
    assert "found-2" in page
    assert todo(settings) == []


def test_names_of_found_patterns_do_not_clash(
    tiny_settings: Make, tmp_path: Path, tiny_task: Path
) -> None:
    shutil.copytree(tiny_task, tmp_path / "mood")
    (tmp_path / "mood" / "found-7.toml").write_text('template = "{text} so {mask}"')
    settings = tiny_settings(
        task=str(tmp_path / "mood"), search={"templates": True, "generators": ["seed"], **SMALL}
    )
    names = [p.name for p in found_by(settings).task.patterns]
    assert names == ["found-7", "it_was", "just", "mood", "found-8", "found-9"]


@pytest.mark.parametrize("kind", ["assignment", "amulap"])
def test_label_words_are_found_for_every_pattern(tiny_settings: Make, kind: str) -> None:
    settings = tiny_settings(search={"label_words": kind, "words_per_label": 2}, **QUICK)
    assert [name for name in todo(settings) if name.startswith("search/")] == [
        f"search/words-{name}" for name in ("it_was", "just", "mood")
    ]
    run(settings)
    assert todo(settings) == []
    root = Path(settings.output)
    own = {p.name: p for p in load_task(settings.task).patterns}
    for name, pattern in own.items():
        folder = root / "search" / f"words-{name}"
        (found,) = load_task(folder).patterns
        assert found.name == f"{name}-words"
        assert found.parts == pattern.parts
        assert [len(group) for group in found.words] == [2, 2]
        told = json.loads((folder / "words.json").read_text())
        assert told["rows"] == 8
        page = (root / "report/index.html").read_text()
        assert f"{told['correct']} of 8" in page
        assert f"{name}-words" in page
        text = (folder / f"{name}-words.toml").read_text()
        assert (
            f"they get {told['correct']} of 8 labelled rows right, its own {told['own_correct']}"
            in text
        )
    models = sorted(f.name for f in (root / "gen-0/finetune").iterdir())
    assert len(models) == 6


def test_found_templates_get_found_words(tiny_settings: Make) -> None:
    settings = tiny_settings(
        search={"templates": True, "generators": ["seed"], "label_words": "assignment", **SMALL}
    )
    searched = found_by(settings)
    assert [p.name for p in searched.task.patterns] == [
        "it_was",
        "just",
        "mood",
        "found-1-words",
        "found-2-words",
    ]
    assert len(searched.words) == 2
    assert searched.templates is not None


def test_nothing_is_searched_unless_asked(tiny_settings: Make) -> None:
    searched = found_by(tiny_settings())
    assert searched.task == load_task(tiny_settings().task)
    assert searched.templates is None
    assert not searched.words
    assert not (Path(tiny_settings().output) / "search").exists()


def test_demonstrations_in_a_whole_run(tiny_settings: Make) -> None:
    settings = tiny_settings(demonstrations={"enabled": True, "draws": 2, "max_tokens": 120})
    run(settings)
    assert todo(settings) == []
    root = Path(settings.output)
    for name in ("it_was-1", "just-1", "mood-1"):
        info = json.loads((root / f"gen-0/finetune/{name}/unit.json").read_text())["info"]
        assert info["demonstrations"] == 2
    plain = tiny_settings(output=str(root.with_name("plain")))
    run(plain)
    assert np.abs(scores(settings, "it_was-1") - scores(plain, "it_was-1")).max() > 1e-3
    assert (root / "embed" / "00000").exists()
    assert not (Path(plain.output) / "embed").exists()
    assert "demonstrations" in (root / "report/index.html").read_text()
    more = tiny_settings(demonstrations={"enabled": True, "draws": 3, "max_tokens": 120})
    assert todo(more)[0] == "gen-0/annotate/it_was-1-00000"  # tuning does not depend on the draws


def test_demonstrations_are_the_same_in_parallel(tiny_settings: Make, tmp_path: Path) -> None:
    found = []
    for number, machine in enumerate(({}, {"jobs": 2})):
        settings = tiny_settings(
            output=str(tmp_path / str(number)),
            demonstrations={"enabled": True, "draws": 2, "max_tokens": 120, "filter": 1.0},
            machine=machine,
            ensemble={"weights": "fitted", "folds": 2},
            **QUICK,
        )
        run(settings, until="ensemble")
        found.append(scores(settings, "mood-1"))
        assert not (tmp_path / str(number) / "embed").exists()  # all rows are alike
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_an_encoder_of_ones_own_compares_the_rows(
    tiny_settings: Make, mlm_of: Callable[[str], Path]
) -> None:
    settings = tiny_settings(
        demonstrations={"enabled": True, "encoder": str(mlm_of("distilbert")), "max_tokens": 120},
        **QUICK,
    )
    run(settings, until="annotate")
    vectors = read_scores(Path(settings.output) / "embed" / "labelled" / "vectors.parquet")[1]
    assert vectors.shape == (8, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(8), abs=1e-5)


@pytest.mark.parametrize("calibrate", ["contextual", "pmi"])
@pytest.mark.parametrize("prior", ["content-free", "pool"])
def test_in_context_learning_without_a_step(
    tiny_settings: Make, tmp_path: Path, calibrate: str, prior: str
) -> None:
    shared: dict[str, Any] = {
        "finetune": {"steps": 0},
        "demonstrations": {"enabled": True, "draws": 2, "max_tokens": 120},
        **QUICK,
    }
    raw = tiny_settings(output=str(tmp_path / "raw"), **shared)
    found = tiny_settings(
        output=str(tmp_path / "found"), pooling={"calibrate": calibrate, "prior": prior}, **shared
    )
    for settings in (raw, found):
        run(settings, until="evaluate")
    before, after = scores(raw, "it_was-0"), scores(found, "it_was-0")
    assert not (tmp_path / "found/gen-0/finetune/it_was-0/model").exists()
    apart = before - after
    apart -= apart.mean(1, keepdims=True)  # constants of a row do not matter
    assert apart == pytest.approx(np.tile(apart[:1], (len(apart), 1)), abs=1e-3)
    assert np.abs(apart).max() > 1e-3
    assert todo(found) == [] or all("report" in name for name in todo(found))


def test_other_settings_of_calibration_leave_the_models(tiny_settings: Make) -> None:
    run(tiny_settings(**QUICK))
    again = todo(tiny_settings(pooling={"calibrate": "pmi"}, **QUICK))
    assert again[0] == "gen-0/annotate/it_was-1-00000"
    assert not [name for name in again if "finetune" in name]
    assert todo(tiny_settings(pooling={"prior": "pool"}, **QUICK)) in ([], ["report"])


def test_ipet_with_demonstrations_and_found_templates(tiny_settings: Make) -> None:
    settings = tiny_settings(
        demonstrations={"enabled": True, "draws": 1, "max_tokens": 120},
        search={"templates": True, "generators": ["seed"], **SMALL},
        ipet={"generations": 1},
        **QUICK,
    )
    run(settings)
    assert todo(settings) == []
    root = Path(settings.output)
    info = json.loads((root / "gen-1/finetune/found-1-1/unit.json").read_text())["info"]
    assert info["rows"] > 8
    assert info["demonstrations"] == 2


def test_the_t5_generator_takes_part(tiny_settings: Make, tmp_path: Path) -> None:
    save_t5(tmp_path / "t5")
    settings = tiny_settings(
        search={
            "templates": True,
            "generators": ["t5"],
            "t5": str(tmp_path / "t5"),
            **SMALL,
            "beam": 12,
        }
    )
    searched = found_by(settings)
    assert searched.templates is not None
    found = json.loads((searched.templates.dir / "templates.json").read_text())
    assert {c["generator"] for c in found["candidates"]} == {"t5"}
