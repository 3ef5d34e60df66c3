"""The report of a run: written once, and the card beside the classifier whatever happens to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape
from testing import run, todo

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.metrics import percent
from pet_pipeline.patterns import load_task
from pet_pipeline.report.stage import WriteReport, write_report
from pet_pipeline.run import Run
from pet_pipeline.stages.results import Tables
from pet_pipeline.units import Result

Make = Callable[..., Settings]


def cards(settings: Settings) -> tuple[Path, Path]:
    """The card of the report, and that of the classifier."""
    root = Path(settings.output)
    return root / "report/README.md", root / "distill/classifier/README.md"


@pytest.fixture
def finished(tiny_settings: Make) -> Settings:
    """A finished run."""
    settings = tiny_settings()
    run(settings)
    return settings


def test_the_card_stays_beside_the_classifier(finished: Settings) -> None:
    card, beside = cards(finished)
    text = beside.read_text("utf-8")
    assert text == card.read_text("utf-8")
    assert "# mood" in text
    units = sorted(f.name for f in (Path(finished.output) / "report").iterdir())
    assert units == ["README.md", "index.html", "unit.json"]

    written = (Path(finished.output) / "report/unit.json").stat().st_mtime_ns
    beside.unlink()
    assert todo(finished) == []
    assert not beside.exists()  # a plan writes nothing
    run(finished)
    assert beside.read_text("utf-8") == text
    assert (Path(finished.output) / "report/unit.json").stat().st_mtime_ns == written

    beside.write_text("another")
    run(finished)
    assert beside.read_text("utf-8") == text

    run(finished, force=("distill",), until="distill")
    assert not beside.exists()
    run(finished, force=("distill",))
    assert beside.read_text("utf-8") == card.read_text("utf-8")
    before = beside.stat().st_mtime_ns
    run(finished)
    assert beside.stat().st_mtime_ns == before


def test_the_page_says_what_the_run_knows_of_itself(tiny_settings: Make) -> None:
    settings = tiny_settings(ensemble={"temperature_folds": 2})
    run(settings)
    assert todo(settings) == []  # a plan knows the same folds
    root = Path(settings.output)
    page = (root / "report/index.html").read_text("utf-8")
    assert f"<pre>pet label-next {root} --n 50 --output todo.csv</pre>" in page
    data = json.loads((root / "prepare/data/unit.json").read_text())
    assert data["info"]["warnings"]
    for warning in data["info"]["warnings"]:
        assert f"<li>{escape(warning)}</li>" in page
    assert '<td>finetune</td><td class="n">3</td>' in page
    assert '<td>evaluate</td><td class="n">1</td>' in page
    held_out = [
        json.loads(file.read_text())["info"] for file in root.glob("gen-0/crossfit/*/unit.json")
    ]
    rows = sum(info["rows"] for info in held_out)
    right = sum(info["rows"] * info["accuracy"] for info in held_out if info["rows"])
    assert rows
    fraction = percent(right / rows).replace(" %", "\u00a0%")
    assert f"are right on {fraction} of those left out" in page


def test_without_a_classifier_there_is_a_page_and_no_card(tiny_settings: Make) -> None:
    settings = tiny_settings(
        distill={"enabled": False}, baseline={"enabled": False}, data={"test": ""}
    )
    run(settings)
    card, _ = cards(settings)
    assert not card.exists()
    page = (Path(settings.output) / "report/index.html").read_text("utf-8")
    assert "there was no test table" in page
    assert "pet predict" not in page


def test_where_the_work_is_done_does_not_count(finished: Settings) -> None:
    machine = finished.machine.model_copy(update={"threads": 2, "jobs": 2})
    assert todo(finished.model_copy(update={"machine": machine})) == []
    page = (Path(finished.output) / "report/index.html").read_text("utf-8")
    assert "precision = &#34;auto&#34;" in page  # the default


def test_another_encoder_of_the_classifier_is_named(
    tiny_settings: Make, mlm_of: Callable[[str], Path]
) -> None:
    settings = tiny_settings(
        distill={"model": str(mlm_of("distilbert"))},
        baseline={"enabled": False},
        learning_rate=0.0,
    )
    run(settings)
    assert "distilled from their soft labels into distilbert in 4 steps" in cards(settings)[
        1
    ].read_text("utf-8")
    page = (Path(settings.output) / "report/index.html").read_text("utf-8")
    assert "3 steps each at a learning rate of 0.0003" in page  # by the model's hidden size


def test_inputs_of_another_stage_are_refused(tiny_settings: Make, tmp_path: Path) -> None:
    settings = tiny_settings()
    pool = Result(tmp_path, "k", {})
    tables = Tables(pool, 1, 1)
    with pytest.raises(UserError, match=r"^write_report: needs what encode returns, got Tables; "):
        write_report(Run(tmp_path), load_task(settings.task), [], tables, settings)  # type: ignore[arg-type]


def test_the_report_counts_by_the_results_that_it_shows(finished: Settings) -> None:
    planned = run(finished, plan=True)
    (unit,) = [unit for unit in planned.units if unit.stage == "report"]
    assert isinstance(unit.unit, WriteReport)
    assert unit.unit.classifier
    other = replace(unit.unit, classifier=replace(unit.unit.classifier, key="other"))
    assert replace(unit, unit=other).key != unit.key


def test_a_lost_report_is_written_again_as_it_was(finished: Settings) -> None:
    folder = Path(finished.output) / "report"
    before = {name: (folder / name).read_bytes() for name in ("index.html", "README.md")}
    shutil.rmtree(folder)
    assert todo(finished) == ["report"]
    run(finished)
    assert {name: (folder / name).read_bytes() for name in before} == before
