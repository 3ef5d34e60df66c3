"""What looks wrong in results is remarked on, with numbers and with what to do; nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pet_pipeline.metrics import Paired, label_qualities
from pet_pipeline.remarks import remarks
from pet_pipeline.stages.ensemble import EnsembleSummary
from pet_pipeline.stages.evaluate import Metrics, System
from pet_pipeline.stages.pool_summary import Histogram

LABELS = ["sad", "happy"]
EVEN = [[40, 10], [10, 40]]
DO = (
    "Look at the label words of the other labels (pet patterns), label more rows of them "
    "(pet label-next), or try --set calibration.method=contextual."
)


def pool(sad: int, happy: int) -> EnsembleSummary:
    """An ensemble that gives the pool these labels."""
    return EnsembleSummary(
        models=["a-1"],
        weights=[1.0],
        temperature=2.0,
        rows=sad + happy,
        agreement=[[1.0]],
        label_counts={"sad": sad, "happy": happy},
        label_mass={"sad": float(sad), "happy": float(happy)},
        entropy=Histogram([0, 1], [sad + happy]),
        disputed=[],
    )


def system(
    kind: str, value: float = 0.8, counts: list[list[int]] = EVEN, *, low: float = 0.0
) -> System:
    """What was measured of a system on a hundred rows."""
    return System(
        kind=kind,
        name=kind,
        generation=None,
        value=value,
        low=low,
        high=1.0,
        accuracy=value,
        f1_macro=value,
        calibration_error=0.1,
        confusion=counts,
        labels=label_qualities(counts, LABELS),
    )


def metrics(*systems: System, p_value: float = 0.001, metric: str = "accuracy") -> Metrics:
    """The metrics of some systems."""
    paired = Paired(1, 9, p_value)
    return Metrics(metric, LABELS, 100, 1, list(systems), against_baseline=paired)


def test_good_results_need_no_remark() -> None:
    fine = metrics(system("ensemble", low=0.75), system("classifier"), system("baseline", 0.7))
    assert remarks(fine, pool(60, 40)) == []
    assert remarks(None, None) == []
    assert remarks(metrics(system("baseline")), None) == []


def test_an_ensemble_that_gives_one_label_to_nearly_all_rows() -> None:
    assert remarks(None, pool(2, 98)) == [
        f"The ensemble gives 'happy' to 98 % of the pool rows. {DO}"
    ]
    told = remarks(metrics(system("ensemble")), pool(2, 98))
    assert told == [
        "The ensemble gives 'happy' to 98 % of the pool rows; 50 % of the test rows have it. " + DO
    ]
    assert remarks(None, pool(6, 94)) == []


def test_a_classifier_that_gives_one_label_to_nearly_all_rows() -> None:
    one_sided = system("classifier", 0.5, [[0, 50], [1, 49]])
    assert remarks(metrics(one_sided), pool(50, 50)) == [
        "The classifier gives 'happy' to 99 % of the test rows; 50 % of the test rows have it. "
        + DO
    ]


def test_an_ensemble_is_remarked_on_once() -> None:
    both = metrics(system("ensemble", 0.5, [[0, 50], [0, 50]]))
    assert len(remarks(both, pool(1, 99))) == 1
    (told,) = remarks(both, pool(50, 50))
    assert told.startswith("The ensemble gives 'happy' to 100 % of the test rows; 50 % of")


@pytest.mark.parametrize(("gold", "remarked"), [(89, True), (90, False)])
def test_labels_that_most_rows_have_may_be_given_to_nearly_all(gold: int, remarked: bool) -> None:
    counts = [[0, 100 - gold], [0, gold]]
    assert bool(remarks(metrics(system("ensemble", 0.9, counts)), pool(1, 99))) == remarked


def test_a_classifier_below_the_interval_of_its_ensemble() -> None:
    ensemble = system("ensemble", 0.8, low=0.72)
    assert remarks(metrics(ensemble, system("classifier", 0.719)), None) == [
        "The classifier's accuracy, 0.719, is below the 95 % interval of its ensemble (0.720 to "
        "1.000): it has not learned what the ensemble knows. Distill longer "
        "(--set distill.passes=4), add texts to the pool, or name a larger encoder (distill.model)."
    ]
    assert remarks(metrics(ensemble, system("classifier", 0.72)), None) == []


@pytest.mark.parametrize(
    ("p_value", "chance"), [(0.04, ""), (0.06, " (a difference that may be chance)")]
)
def test_a_classifier_below_the_baseline(p_value: float, chance: str) -> None:
    systems = (system("classifier", 0.6), system("baseline", 0.65))
    assert remarks(metrics(*systems, p_value=p_value, metric="f1"), None) == [
        f"The classifier's f1 of 'happy', 0.600, is below the baseline's, 0.650{chance}: the "
        "pool's soft labels did not help. Improve the patterns (the report shows where their "
        "models disagree), or use the baseline, which is in distill/baseline of the run."
    ]


def test_an_ensemble_whose_temperature_nothing_says() -> None:
    ensemble = replace(pool(50, 50), temperature=1.0)
    (remark,) = remarks(None, ensemble)
    assert remark.startswith("The ensemble's temperature is 1, so confidences are too high")
