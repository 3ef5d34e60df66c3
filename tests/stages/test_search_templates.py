"""Templates that a search finds: planned, resumed, written as pattern files, in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from markupsafe import escape
from planning import QUICK, Make, result
from test_search import LISTED, SMALL, found_by
from testing import run, save_t5, todo

from pet_pipeline import load_task
from pet_pipeline.patterns import Field
from pet_pipeline.stages.search_templates import read_templates

GENERATORS = ["mlm", "connectors", "mine", "autoprompt"]


def test_found_templates_join_the_task(tiny_settings: Make) -> None:
    settings = tiny_settings(search={"templates": True, "generators": GENERATORS, **SMALL}, **QUICK)
    planned = todo(settings)
    searches = [name for name in planned if name.startswith("search/")]
    assert searches == [
        *(f"search/generate-{name}" for name in GENERATORS),
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
    assert "8 labelled rows (in-sample: the search chose by them)" in text
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
        assert candidate["standard_error"] > 0
    assert [c["name"] for c in found["candidates"][:3]] == ["found-1", "found-2", None]


def test_what_is_read_of_a_search_is_what_was_written(finished: Make) -> None:
    settings = finished(until="annotate", search=LISTED, **QUICK)
    search = result(settings, "search/templates")
    ranking = read_templates(search)
    assert ranking.rows == 8
    assert "within noise" in ranking.verdict or "more than chance" in ranking.verdict
    assert search.info["candidates"] == len(ranking.candidates) == 9
    assert search.info["in_sample_log_loss"] == ranking.candidates[0].log_loss
    assert [c.rounds for c in ranking.candidates] == [2] * 4 + [1] * 4 + [0]
    for rounds in (0, 1, 2):
        losses = [c.log_loss for c in ranking.candidates if c.rounds == rounds]
        assert losses == sorted(losses)
    assert {c.generator for c in ranking.candidates} == {"connectors"}


def test_a_search_is_deterministic_and_resumes(
    finished: Make, tiny_settings: Make, tmp_path: Path
) -> None:
    whole = result(finished(until="annotate", search=LISTED, **QUICK), "search/templates")
    parted = tiny_settings(search=LISTED)
    found_by(parted)
    for name in ("templates", "round-2-fold-1"):
        shutil.rmtree(tmp_path / "run" / "search" / name)
    again = found_by(parted).templates
    assert again is not None
    files = sorted(file.name for file in whole.dir.glob("*.toml"))
    assert files == ["found-1.toml", "found-2.toml", "task.toml"]
    for file in (*files, "templates.json"):
        assert (whole.dir / file).read_text() == (again.dir / file).read_text()
    assert whole.key == again.key


def test_the_t5_generator_takes_part(tiny_settings: Make, tmp_path: Path) -> None:
    save_t5(tmp_path / "t5")
    search = {"templates": True, "generators": ["t5"], "t5": str(tmp_path / "t5"), "beam": 12}
    searched = found_by(tiny_settings(search={**SMALL, **search}))
    assert searched.templates is not None
    assert {c.generator for c in read_templates(searched.templates).candidates} == {"t5"}
