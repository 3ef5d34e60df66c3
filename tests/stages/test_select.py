"""Learning rate and steps are selected on held-out rows, once, and all fine-tunes take them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import QUICK, Make, inputs_of, planned, result
from testing import CPU, HAPPY, SAD, run, todo

from pet_pipeline import Run, finetune, select
from pet_pipeline.config import Finetune, Settings
from pet_pipeline.errors import UserError
from pet_pipeline.keys import fingerprint, results_in
from pet_pipeline.optimisation import MlmLoss, Optimisation, Tuning
from pet_pipeline.search.selection import corrected_losses
from pet_pipeline.settings import check_settings
from pet_pipeline.show import unit_states
from pet_pipeline.stages import select as select_stage
from pet_pipeline.stages.crossfit import CrossFit, ScoreDevelopment
from pet_pipeline.stages.finetune import FineTune
from pet_pipeline.stages.select import Candidate, Select, grid
from pet_pipeline.stages.selected import SelectedTuning, read_selection
from pet_pipeline.tables import read_scores, write_scores
from pet_pipeline.units import Result

PATTERNS = ("it_was", "just", "mood")
GOLD = [0] * 4 + [1] * 4
GRID: dict[str, Any] = {"select_rates": [1.0, 30.0], "select_steps": [1.0, 4.0], "select_folds": 2}
FOLDS: dict[str, Any] = {"finetune": {"select": "folds", **GRID}, **QUICK}
NAMES = [f"rate-{rate}-steps-{steps}" for rate in ("0.0003", "0.009") for steps in (3, 12)]


def names(settings: Settings) -> list[str]:
    """The units of the selection in a plan."""
    return [name for name in planned(settings) if name.startswith("select/")]


def counts(settings: Settings) -> dict[str, int]:
    """How often each unit was done, by stage and name."""
    lines = (Path(settings.output) / "log.jsonl").read_text().splitlines()
    done: dict[str, int] = {}
    for event in map(json.loads, lines):
        if event["event"] == "unit":
            name = f"{event['stage']}/{event['unit']}"
            done[name] = done.get(name, 0) + 1
    return done


def on_development(tiny_tables: dict[str, str], **finetune: Any) -> dict[str, Any]:
    """Sections of a selection on the development table."""
    return {
        "finetune": {"select": "development", **GRID, **finetune},
        "data": {"development": tiny_tables["development"]},
        **QUICK,
    }


def test_a_plan_has_the_folds_of_each_candidate_and_the_selection(tiny_settings: Make) -> None:
    assert names(tiny_settings(**FOLDS)) == [
        *(f"select/{name}-{p}" for name in NAMES for p in ("fold-0", "fold-1")),
        "select/selected",
    ]
    three = {"finetune": {"select": "folds"}}
    assert len(names(tiny_settings(**three))) == 3 * 2 * 4 + 1
    assert names(tiny_settings()) == []


def test_without_a_selection_nothing_changes(tiny_settings: Make) -> None:
    settings = tiny_settings()
    with Run.open(settings, plan=True) as opened:
        task, inputs = inputs_of(settings, opened)
        assert select(opened, task, inputs, settings) is inputs
    unit = planned(settings)["gen-0/finetune/it_was-1"]
    assert set(unit.identity["params"]["tuning"]) == {f.name for f in fields(Tuning)}
    assert not any("select" in name for name in unit.identity["params"])


def test_the_grid_begins_with_what_would_be_used_otherwise() -> None:
    tuning = Tuning(Optimisation(3e-4), 60, MlmLoss(0.1))
    candidates = grid(tuning, Finetune())
    assert next(iter(candidates.values())) == tuning
    found = [(c.optimisation.learning_rate, c.steps) for c in candidates.values()]
    assert found == [(r, s) for r in (3e-4, 9e-5, 9e-4) for s in (60, 120)]
    assert list(candidates)[2] == "rate-9e-05-steps-60"
    same = Finetune(select_rates=(1.0,), select_steps=(1.0, 1.001, 0.0001))
    assert list(grid(tuning, same)) == ["rate-0.0003-steps-60", "rate-0.0003-steps-1"]


@pytest.mark.parametrize("name", ["select_rates", "select_steps"])
def test_an_empty_grid_and_factors_of_zero_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"finetune.{name}: value should have at least 1 item"):
        check_settings({"finetune": {name: []}})
    with pytest.raises(UserError, match=f"finetune.{name}.0: input should be greater than 0"):
        check_settings({"finetune": {name: [0.0]}})
    with pytest.raises(UserError, match=rf"finetune.{name}: duplicate value 1.0"):
        check_settings({"finetune": {name: [1.0, 2.0, 1]}})


@pytest.fixture
def selected(finished: Make) -> Settings:
    """A run with a selection on folds."""
    return finished(**FOLDS)


def test_the_candidate_with_the_lowest_log_loss_is_taken(selected: Settings) -> None:
    losses, accuracies = [], []
    for name in NAMES:
        scores = np.zeros((8, 2), np.float32)
        for fold in range(2):
            unit = result(selected, f"select/{name}-fold-{fold}")
            ids, part = read_scores(unit.dir / "scores.parquet")
            scores[ids.to_numpy()] = part
        losses.append(corrected_losses(scores, GOLD, 2))
        accuracies.append(float((scores.argmax(1) == np.array(GOLD)).mean()))
    unit = result(selected, "select/selected")
    selection = read_selection(unit)
    means = [c.log_loss.mean for c in selection.candidates]
    assert means == pytest.approx([values.mean() for values in losses])
    assert [c.accuracy for c in selection.candidates] == accuracies
    errors = [values.std(ddof=1) / 8**0.5 for values in losses]
    assert [c.log_loss.standard_error for c in selection.candidates] == pytest.approx(errors)
    best = selection.candidates[selection.selected]
    assert best.log_loss.mean == min(means) < means[0]
    assert unit.info["learning_rate"] == best.learning_rate
    assert unit.info["steps"] == best.steps
    assert selection.lead.mean == pytest.approx(means[0] - min(means))
    assert (selection.rows, selection.patterns) == (8, ["it_was", "just"])
    assert f"Learning rate {best.learning_rate:g} and {best.steps} steps" in selection.verdict


def test_fine_tunes_are_those_of_the_selected_rate_and_steps(
    selected: Settings, tiny_settings: Make
) -> None:
    info = result(selected, "select/selected").info
    own = {"learning_rate": info["learning_rate"], "steps": info["steps"]}
    by_hand = tiny_settings(finetune=own, **QUICK)
    run(by_hand, until="finetune")
    for pattern in PATTERNS:
        loss = result(by_hand, f"gen-0/finetune/{pattern}-1").info["loss"]
        assert result(selected, f"gen-0/finetune/{pattern}-1").info["loss"] == loss
        unit = planned(selected)[f"gen-0/finetune/{pattern}-1"].unit
        assert unit.tuning.steps == info["steps"]
        assert unit.size() == f"{info['steps']} steps"


def test_folds_of_the_ensemble_and_later_generations_take_it_too(
    selected: Settings, tiny_settings: Make
) -> None:
    more = {"ensemble": {"temperature_folds": 2}, "ipet": {"generations": 1}}
    units = planned(tiny_settings(output=selected.output, **FOLDS, **more))
    info = result(selected, "select/selected").info
    for name in ("crossfit/it_was-fold-0", "crossfit/just-fold-1", "finetune/mood-1"):
        for generation in (0, 1):
            unit = units[f"gen-{generation}/{name}"].unit
            assert isinstance(unit, CrossFit | FineTune)
            tuning = unit.real.tuning if isinstance(unit, CrossFit) else unit.tuning
            assert isinstance(tuning, SelectedTuning)
            assert tuning.optimisation.learning_rate == info["learning_rate"]
            assert tuning.steps == info["steps"]
    costs = [
        units[f"gen-0/{name}"].unit.cost()
        for name in ("crossfit/it_was-fold-0", "finetune/it_was-1")
    ]
    assert costs[0] == costs[1]


def test_keys_are_known_before_the_selection_was_run(
    selected: Settings, tiny_settings: Make
) -> None:
    before, after = planned(tiny_settings(**FOLDS)), planned(selected)
    for name in ("select/selected", "gen-0/finetune/it_was-1", "gen-0/ensemble/all"):
        assert before[name].key == after[name].key
    assert before["gen-0/finetune/it_was-1"].unit.size() == "steps by the selection"


def test_costs_are_by_the_steps_of_a_candidate(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    units = planned(tiny_settings(**FOLDS))
    own, long = (units[f"select/{name}-fold-1"].unit for name in NAMES[:2])
    assert isinstance(own, CrossFit)
    assert own.real.pattern.name == "just"
    plain = planned(tiny_settings())["gen-0/finetune/just-1"].unit
    assert own.cost() == plain.cost() < long.cost()
    assert units["select/selected"].unit.cost() < own.cost()
    scored = planned(tiny_settings(**on_development(tiny_tables)))[f"select/{NAMES[0]}-just"].unit
    assert isinstance(scored, ScoreDevelopment)
    assert scored.cost() > plain.cost()


def test_folds_are_done_once_and_a_changed_grid_adds_to_them(tiny_settings: Make) -> None:
    settings = tiny_settings(**FOLDS)
    run(settings, until="select")
    assert todo(settings)[:3] == [f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS]
    run(settings, until="finetune")
    run(settings, until="finetune")
    assert set(counts(settings).values()) == {1}
    wider = {**FOLDS["finetune"], "select_rates": [1.0, 30.0, 10.0], "select_steps": [4.0]}
    grown = tiny_settings(**{**FOLDS, "finetune": wider})
    undone = todo(grown)
    assert undone[:3] == [
        "select/rate-0.003-steps-12-fold-0",
        "select/rate-0.003-steps-12-fold-1",
        "select/selected",
    ]
    assert {f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS} <= set(undone)
    assert not any(name.startswith(("prepare", "encode")) for name in undone)


def test_why_fine_tunes_are_redone_is_said(selected: Settings, tiny_settings: Make) -> None:
    def why(**sections: Any) -> str:
        plan = run(tiny_settings(output=selected.output, **sections), plan=True)
        states = [state for state in unit_states(plan) if state[0].dir.name == "it_was-1"]
        return states[0][2]

    without = why(**QUICK)
    assert "finetune learning_rate: selected → 0.0003" in without
    assert "finetune steps: selected → 3" in without
    assert "selection removed" in without
    other = {**FOLDS["finetune"], "select_rates": [1.0]}
    assert why(**{**FOLDS, "finetune": other}).startswith("select/selected is redone first")


def test_the_same_is_selected_with_two_jobs(selected: Settings, tiny_settings: Make) -> None:
    settings = tiny_settings(machine={"jobs": 2}, **FOLDS)
    run(settings, until="select")
    one, two = (result(s, "select/selected") for s in (selected, settings))
    assert two.key == one.key
    assert two.info == pytest.approx(one.info, rel=1e-4)


@pytest.mark.parametrize("split", ["folds", "development"])
def test_nothing_of_the_test_table_counts(
    tiny_settings: Make, tiny_tables: dict[str, str], split: str
) -> None:
    sections = FOLDS if split == "folds" else on_development(tiny_tables)
    units = planned(tiny_settings(**sections))
    without = {**sections, "data": {**sections.get("data", {}), "test": ""}}
    others = planned(tiny_settings(**without))
    test, pool = units["prepare/test"].key, units["prepare/pool"].key
    assert pool != others["prepare/pool"].key
    for name in names(tiny_settings(**sections)):
        assert units[name].key == others[name].key
        assert not {test, pool} & set(results_in(units[name].identity))


def test_on_the_development_table(finished: Make, tiny_tables: dict[str, str]) -> None:
    settings = finished(until="select", **on_development(tiny_tables))
    assert names(settings) == [
        *(f"select/{name}-{pattern}" for name in NAMES for pattern in PATTERNS[:2]),
        "select/selected",
    ]
    losses = []
    for name in NAMES:
        of_patterns = []
        for pattern in PATTERNS[:2]:
            unit = result(settings, f"select/{name}-{pattern}")
            ids, scores = read_scores(unit.dir / "scores.parquet")
            assert ids.to_pylist() == list(range(8))
            right = scores.argmax(1) == np.array(GOLD)
            assert unit.info["accuracy"] == right.mean()
            of_patterns.append(corrected_losses(scores, GOLD, 2))
        losses.append(np.mean(of_patterns, axis=0))
    selection = read_selection(result(settings, "select/selected"))
    means = [c.log_loss.mean for c in selection.candidates]
    assert means == pytest.approx([values.mean() for values in losses])
    assert selection.selected == int(np.argmin(means))
    assert (selection.split, selection.rows) == ("development", 8)


def test_models_for_the_development_table_are_tuned_as_the_real_ones(
    finished: Make, tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    settings = finished(until="select", **on_development(tiny_tables))
    units = planned(settings)
    scored, plain = units[f"select/{NAMES[0]}-just"], planned(tiny_settings())
    assert isinstance(scored.unit, ScoreDevelopment)
    real = plain["gen-0/finetune/just-1"].unit
    assert fingerprint(scored.unit.real) == fingerprint(real)


def test_development_rows_that_are_labelled_ones_are_left_out(
    tiny_settings: Make, tiny_tables: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "development.parquet"
    texts = [SAD[0], HAPPY[0], "a bad day", "a good day", "a bad shop", "a good shop"]
    pq.write_table(pa.table({"text": texts, "label": ["sad", "happy"] * 3}), file)
    sections = on_development(tiny_tables)
    settings = tiny_settings(**{**sections, "data": {"development": str(file)}})
    run(settings, until="select")
    ids, _ = read_scores(result(settings, f"select/{NAMES[0]}-just").dir / "scores.parquet")
    assert ids.to_pylist() == [2, 3, 4, 5]
    assert read_selection(result(settings, "select/selected")).rows == 4
    pq.write_table(pq.read_table(file).slice(0, 4), file)
    with pytest.raises(UserError, match=r"2 rows are left .*, and no label has two; add rows"):
        run(settings, until="select")
    same = {**sections, "data": {"development": tiny_tables["labelled"]}}
    with pytest.raises(UserError, match=r"finetune.select: no row can be held out"):
        run(tiny_settings(output=str(tmp_path / "same"), **same), until="select")


def test_patterns_that_were_found_on_the_rows_are_no_measure_there(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    search = {"templates": True, "keep": 2}

    def measured(**more: Any) -> set[str]:
        units = [
            p.unit for p in planned(tiny_settings(search={**search, **more}, **FOLDS)).values()
        ]
        return {u.real.pattern.name for u in units if isinstance(u, CrossFit)}

    assert measured() == {"it_was", "just"}
    assert measured(use="replace") == {"found-1", "found-2"}
    sections = on_development(tiny_tables, select_folds=9)
    assert f"select/{NAMES[0]}-found-2" in names(tiny_settings(search=search, **sections))


@pytest.fixture
def made(tmp_path: Path) -> Callable[[list[list[float]]], Select]:
    """A function from candidates' scores for the label `happy` to the unit that selects."""
    folder = tmp_path / "table"
    folder.mkdir()
    labels = ["sad", "happy"] * 4
    pq.write_table(pa.table({"label": labels}), folder / "table.parquet")

    def scores(name: str, happy: list[float]) -> tuple[Result, ...]:
        results = []
        for fold in (0, 1):
            part = tmp_path / f"{name}-{fold}"
            part.mkdir()
            rows = [n for n in range(8) if n // 2 % 2 == fold]
            values = np.array([[0.0, happy[n]] for n in rows], np.float32)
            write_scores(part / "scores.parquet", pa.array(rows), values, ("sad", "happy"))
            results.append(Result(part, name, {"rows": len(rows)}))
        return tuple(results)

    def make(candidates: list[list[float]]) -> Select:
        return Select(
            labels=("sad", "happy"),
            split="folds",
            table=Result(folder, "table", {"rows": 8}),
            patterns=PATTERNS,
            candidates=tuple(
                Candidate(1e-4, n, scores(f"candidate-{n}", happy))
                for n, happy in enumerate(candidates)
            ),
            folds=2,
        )

    return make


RIGHT, WRONG = [-1.0, 1.0] * 4, [1.0, -1.0] * 4


def test_of_equal_candidates_the_first_is_taken(
    made: Callable[[list[list[float]]], Select], tmp_path: Path
) -> None:
    unit = made([WRONG, RIGHT, RIGHT])
    assert unit.work(tmp_path, CPU)["steps"] == 1
    first = replace(unit, candidates=unit.candidates[1:])
    assert first.work(tmp_path, CPU)["steps"] == 1
    selection = read_selection(Result(tmp_path, "", {}))
    assert selection.selected == 0
    assert "no other candidate has a lower log-loss than the first" in selection.verdict


def test_a_candidate_that_diverged_is_never_taken(
    made: Callable[[list[list[float]]], Select], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = iter([np.full(8, np.nan), np.full(8, 2.0), np.full(8, 1.0)])
    monkeypatch.setattr(select_stage, "corrected_losses", lambda *_: next(corrected))
    assert made([RIGHT, RIGHT, WRONG]).work(tmp_path, CPU)["steps"] == 2


def test_overconfidence_does_not_decide(
    made: Callable[[list[list[float]]], Select], tmp_path: Path
) -> None:
    def scores(size: float, wrong: tuple[int, ...]) -> list[float]:
        return [size * right * (-1 if n in wrong else 1) for n, right in enumerate(RIGHT)]

    timid, bold = scores(0.1, (2, 4, 5)), scores(6.0, (2, 4))  # plain log-losses: 0.68 and 1.50
    assert made([timid, bold]).work(tmp_path, CPU)["steps"] == 1


def test_a_fold_without_rows_does_not_count(finished: Make) -> None:
    sections = {**FOLDS, "finetune": {**FOLDS["finetune"], "select_folds": 6, "steps": 1}}
    settings = finished(until="select", **sections)
    assert result(settings, "select/rate-0.0003-steps-1-fold-5").info == {"rows": 0}
    assert read_selection(result(settings, "select/selected")).rows == 8


def test_what_cannot_be_selected_is_said_before_anything_is_tuned(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    def said(**sections: Any) -> str:
        with pytest.raises(UserError) as error:
            run(tiny_settings(**sections), plan=True)
        return str(error.value)

    assert said(finetune={"select": "development"}) == (
        "finetune.select: 'development' needs data.development; 'folds' does not"
    )
    assert said(finetune={"select": "folds"}, data={"labelled": ""}) == (
        "finetune.select: needs labelled texts, data.labelled; 'none' does not"
    )
    assert said(finetune={"select": "folds", "steps": 0}) == (
        "finetune.select: with finetune.steps = 0 nothing is tuned, so there is no learning rate "
        "to select; take 'none', or more steps"
    )
    many = tiny_settings(finetune={"select": "folds", "select_folds": 9})
    with pytest.raises(UserError) as error:
        run(many, until="select")
    assert str(error.value) == (
        "finetune.select_folds: 9 folds of 8 labelled rows; lower it, or add rows"
    )
    assert not (Path(many.output) / "select").exists()


def test_one_row_per_label_has_no_folds(tiny_settings: Make) -> None:
    with pytest.raises(UserError, match=r"finetune.select: 'folds' holds out some rows"):
        run(tiny_settings(finetune={"select": "folds"}, data={"k": 1}))


def test_fine_tunes_without_the_selection_that_is_asked_for_are_refused(
    tiny_settings: Make,
) -> None:
    settings = tiny_settings(**FOLDS)
    with Run.open(settings, plan=True) as opened:
        task, inputs = inputs_of(settings, opened)
        with pytest.raises(UserError) as error:
            finetune(opened, task, inputs, settings)
        assert str(error.value) == (
            "finetune: finetune.select = 'folds', and nothing was selected; "
            "call inputs = select(run, task, inputs, settings) first"
        )
        tables: Any = inputs.tables
        with pytest.raises(UserError, match="select: needs what encode returns, got Tables"):
            select(opened, task, tables, settings)


def test_without_a_pool_nothing_is_selected(tiny_settings: Make) -> None:
    assert names(tiny_settings(finetune={"select": "folds"}, data={"pool": ""})) == []


def test_the_report_and_the_card_say_what_was_selected(
    selected: Settings, tiny_settings: Make
) -> None:
    settings = tiny_settings(
        finetune=FOLDS["finetune"], baseline={"enabled": False}, ensemble={"temperature_folds": 0}
    )
    run(settings)
    assert todo(settings) == []
    info = result(settings, "select/selected").info
    assert info == result(selected, "select/selected").info
    root = Path(settings.output)
    page = (root / "report/index.html").read_text("utf-8")
    assert "The selection of learning rate and steps" in page
    assert page.count("<td>selected</td>") == 1
    assert f"{info['steps']} steps each at a learning rate of {info['learning_rate']}" in page
    assert "What more labels bring" not in page[page.index("<nav>") :]  # no folds of these models
    card = (root / "distill/classifier/README.md").read_text("utf-8")
    assert f"each tuned for {info['steps']} steps" in card
