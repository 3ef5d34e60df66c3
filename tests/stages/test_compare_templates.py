"""How candidates are compared: screened untuned, then in rounds of short fine-tunes on folds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from planning import Make, planned, result

from pet_pipeline.batches import fold_rows
from pet_pipeline.optimisation import Contrast, MlmLoss, Optimisation, Tuning
from pet_pipeline.records import read_record, read_records, write_record, write_records
from pet_pipeline.search.selection import LogLoss, corrected_losses
from pet_pipeline.stages.compare_templates import (
    ROUND,
    ROUNDS,
    SCREENED,
    RankedTemplate,
    Ranking,
    Round,
    compared_labels,
    short_tuning,
    survivors,
)
from pet_pipeline.units import Result

SEARCH = {"candidates": 9, "beam": 2, "keep": 2, "folds": 2, "steps": 4}
GOLD = [0, 0, 0, 1, 1, 1]


def test_half_of_the_templates_are_left_after_each_round() -> None:
    for keep in range(1, 9):
        left = [survivors(keep, number) for number in range(ROUNDS + 1)]
        assert left[-1] == keep
        assert all(a == 2 * b for a, b in itertools.pairwise(left))


@pytest.mark.parametrize(("steps", "expected"), [(20, [10, 20]), (3, [1, 3]), (1, [1, 1])])
def test_the_last_fine_tunes_have_all_the_steps(steps: int, expected: list[int]) -> None:
    tuning = Tuning(Optimisation(0.5), 60, MlmLoss(0.1), Contrast(1.0, 0.1, "pattern"))
    short = [short_tuning(tuning, steps, number) for number in range(ROUNDS)]
    assert [t.steps for t in short] == expected
    assert {(t.optimisation, t.mlm, t.contrast) for t in short} == {(Optimisation(0.5), None, None)}


def made(folder: Path, name: str) -> Result:
    (folder / name).mkdir()
    return Result(folder / name, name, {})


def ranked(template: str, log_loss: float) -> RankedTemplate:
    return RankedTemplate(template, "connectors", 0.0, log_loss, 0.1)


def folds_of(folder: Path, number: int, scores: dict[str, np.ndarray]) -> list[Result]:
    """A round that was run, from scores (rows, labels) of each template."""
    results = []
    for fold in range(2):
        held = fold_rows(GOLD, 2, fold)
        results.append(made(folder, f"round-{number}-fold-{fold}"))
        by_template = {template: values[held].tolist() for template, values in scores.items()}
        write_record(results[-1].dir / ROUND, Round(held, by_template))
    return results


def test_templates_of_the_last_round_come_first_each_by_its_losses(tmp_path: Path) -> None:
    screened = made(tmp_path, "screen")
    write_records(
        screened.dir / SCREENED, [ranked(t, n / 9) for n, t in enumerate(("d", "a", "b", "c"))]
    )
    rng = np.random.default_rng(0)
    first = {name: rng.normal(size=(6, 2)) for name in ("d", "a", "b")}
    last = {name: rng.normal(size=(6, 2)) for name in ("a", "b")}
    rounds = [folds_of(tmp_path, 1, first), folds_of(tmp_path, 2, last)]
    assert [t.template for t in Ranking.of(screened, [], GOLD).templates] == ["d", "a", "b", "c"]
    ranking = Ranking.of(screened, rounds, GOLD)
    losses = {name: corrected_losses(values, GOLD, 2) for name, values in last.items()}
    best = sorted(losses, key=lambda name: losses[name].mean())
    assert [t.template for t in ranking.templates] == [*best, "d", "c"]
    assert [t.rounds for t in ranking.templates] == [2, 2, 1, 0]
    for template in ranking.templates[:2]:
        expected = LogLoss.of(losses[template.template])
        assert template.log_loss == pytest.approx(expected.mean)
        assert template.standard_error == pytest.approx(expected.standard_error)
        assert ranking.losses[template.template] == pytest.approx(
            losses[template.template].tolist()
        )
    left_out = LogLoss.of(corrected_losses(first["d"], GOLD, 2))
    assert ranking.templates[2].log_loss == pytest.approx(left_out.mean)
    assert ranking.templates[3] == ranked("c", 3 / 9)


def test_a_search_compares_what_it_says(finished: Make) -> None:
    settings = finished(
        until="search", search={"templates": True, "generators": ["connectors"], **SEARCH}
    )
    screened = read_records(result(settings, "search/screen").dir / SCREENED, RankedTemplate)
    assert len(screened) == 9
    assert [t.log_loss for t in screened] == sorted(t.log_loss for t in screened)
    gold = compared_labels(result(settings, "prepare/labelled"), ("sad", "happy"))
    assert gold == [0] * 4 + [1] * 4
    units = planned(settings)
    for number, count in enumerate((8, 4), 1):
        held, templates = [], []
        for fold in range(2):
            name = f"search/round-{number}-fold-{fold}"
            found = read_record(result(settings, name).dir / ROUND, Round)
            held += found.rows
            templates.append(list(found.scores))
            assert {len(scores) for scores in found.scores.values()} == {len(found.rows)}
            assert units[name].unit.templates == count
            assert units[name].unit.tuning.steps == 2 * number
        assert sorted(held) == list(range(8))
        assert templates[0] == templates[1]
        assert len(templates[0]) == min(count, 9)
