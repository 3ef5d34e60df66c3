"""The time that is left follows costs and what has been finished."""

from __future__ import annotations

import pytest

from pet_pipeline.estimate import KNOWN, Estimate


def expecting(jobs: int = 1) -> Estimate:
    """Four fine-tunes and a distillation twice as long as they are together."""
    estimate = Estimate(jobs)
    estimate.expect("finetune", dict.fromkeys("abcd", 10.0))
    estimate.expect("distill", {"classifier": 80.0})
    return estimate


def test_nothing_is_known_before_something_is_finished() -> None:
    estimate = expecting()
    estimate.expect("prepare", {"tables": KNOWN * 100})
    assert estimate.seconds_left() is None
    estimate.finish("prepare", "tables", 100.0)  # too small to say how fast the others are
    assert estimate.seconds_left() is None


@pytest.mark.parametrize(("jobs", "seconds"), [(1, 30 + 80), (2, 15 + 80), (8, 10 + 80)])
def test_other_stages_take_as_long_by_their_costs_as_what_was_finished(
    jobs: int, seconds: float
) -> None:
    estimate = expecting(jobs)
    estimate.finish("finetune", "a", 10.0)
    assert estimate.seconds_left() == pytest.approx(seconds)


def test_a_stage_that_has_begun_goes_by_its_own_units() -> None:
    estimate = expecting()
    estimate.finish("finetune", "a", 10.0)
    estimate.expect("distill", {"other": 20.0})
    estimate.finish("distill", "other", 5.0)
    assert estimate.seconds_left() == pytest.approx(30 + 80 / 4)


def test_costs_are_replaced_when_more_is_known() -> None:
    estimate = expecting()
    estimate.finish("finetune", "a", 10.0)
    estimate.expect("distill", {"classifier": 7.0})
    assert estimate.seconds_left() == pytest.approx(37)


def test_all_done() -> None:
    estimate = expecting()
    for name in "abcd":
        estimate.finish("finetune", name, 1.0)
    estimate.finish("distill", "classifier", 1.0)
    assert estimate.seconds_left() == 0


def test_a_unit_that_was_not_expected_counts_for_nothing() -> None:
    estimate = expecting()
    estimate.finish("report", "page", 9.0)
    assert estimate.seconds_left() is None
