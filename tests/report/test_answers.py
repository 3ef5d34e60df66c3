"""The first screen's sentences, for the runs that there can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_data import CASES, report_data

from pet_pipeline.metrics import CoveragePoint, Measured, Paired, label_qualities, proportion
from pet_pipeline.report.answers import (
    Command,
    good_enough,
    interval,
    left_to_it,
    more_labels,
    next_commands,
    suggested_point,
    weak_labels,
)
from pet_pipeline.report.data import HeldOut, ReportData
from pet_pipeline.settings import check_settings
from pet_pipeline.stages.ensemble import Expectation
from pet_pipeline.stages.evaluate import System

LABELS = ("sad", "happy", "angry")
POINTS = [
    CoveragePoint(0.0, 1.0, 0.8, 0.75, 0.84, 300),
    CoveragePoint(0.8, 0.62, 0.93, 0.9, 0.95, 186),
    CoveragePoint(0.995, 0.2, 0.97, 0.9, 0.99, 60),
    CoveragePoint(0.9999, 0.01, 1.0, 0.44, 1.0, 3),
]


def with_best(data: ReportData, **values: Any) -> ReportData:
    """The data with other values of the classifier."""
    assert data.metrics
    systems = [replace(s, **values) if s.kind == "classifier" else s for s in data.metrics.systems]
    return replace(data, metrics=replace(data.metrics, systems=systems, test_rows=300))


def counted(counts: list[list[int]]) -> dict[str, Any]:
    """What was measured of a system with these counts of rows."""
    right, rows = sum(row[n] for n, row in enumerate(counts)), sum(map(sum, counts))
    labels = label_qualities(counts, LABELS)
    return {"confusion": counts, "labels": labels, "accuracy": right / rows}


@pytest.fixture
def data() -> ReportData:
    """A run of three labels whose classifier is right on 80 % of 300 test rows."""
    made = with_best(
        report_data(labels=LABELS),
        **counted([[90, 5, 5], [10, 80, 10], [5, 25, 70]]),
        coverage=POINTS,
        calibration_error=0.04,
    )
    assert made.metrics
    systems = [
        replace(s, accuracy=0.7) if s.kind == "baseline" else s for s in made.metrics.systems
    ]
    return replace(made, metrics=replace(made.metrics, systems=systems))


def test_good_enough_says_the_accuracy_and_what_it_is_compared_with(data: ReportData) -> None:
    assert good_enough(data) == [
        "The classifier is right on 80 % of the 300 test texts (95 % interval 75 to 84 %).",
        "Always answering 'sad', the most frequent label, would be right on 33 %.",
        "The baseline is right on 70 %: of the same texts, 12 are right with the classifier alone "
        "and 3 with the baseline alone, more than by chance (McNemar's test, p 0.035).",
    ]


def test_good_enough_says_what_may_be_chance(data: ReportData) -> None:
    one_sided = with_best(data, **counted([[220, 5, 5], [20, 10, 10], [5, 15, 10]]))
    assert one_sided.metrics
    same = replace(
        one_sided, metrics=replace(one_sided.metrics, against_baseline=Paired(5, 4, 1.0))
    )
    _, most, baseline = good_enough(same)
    assert most == (
        "Always answering 'sad', the most frequent label, would be right on 77 %: "
        "it is not shown to be better than that."
    )
    assert "a difference that may be chance (McNemar's test, p 1.000)" in baseline
    sure = replace(one_sided.metrics, against_baseline=Paired(50, 4, 1e-9))
    assert "(McNemar's test, p below 0.001)" in good_enough(replace(same, metrics=sure))[2]


def test_good_enough_adds_the_metric_of_the_task(data: ReportData) -> None:
    assert data.metrics
    other = replace(data, metrics=replace(data.metrics, metric="mcc"))
    other = replace(other, task=replace(other.task, metric="mcc"))
    classifier = other.system("classifier")
    assert classifier
    value = f"{classifier.value:.3f} (95 % interval {classifier.low:.3f} to {classifier.high:.3f})"
    assert good_enough(other)[1] == f"The metric of the task, mcc, is {value}."


def test_without_a_test_table_only_an_estimate_is_given() -> None:
    data = report_data(measured=False)
    assert good_enough(data) == [
        "Not known: there was no test table, so nothing was measured.",
        "200 labelled texts that nothing is trained on would tell the accuracy to within about 7 "
        "points.",
    ]
    generation = data.generations[0]
    estimated = replace(generation.ensemble, expected=Expectation(0.72, 0.8, 5, 8))
    data = replace(data, generations=[replace(generation, ensemble=estimated)])
    assert "the ensemble may be right on about 72 % of the pool; that is an" in good_enough(data)[1]
    assert weak_labels(data) == ["Not known without a test table."]
    assert left_to_it(data)[0].startswith("Not known without a test table: ")


def test_weak_labels_are_named_worst_first(data: ReportData) -> None:
    assert weak_labels(data) == [
        "'angry' (F1 0.76): 70 of its 100 texts are found, 25 are taken for 'happy'; of the 85 "
        "that are called 'angry', 70 are.",
        "'happy' (F1 0.76): 80 of its 100 texts are found, 10 are taken for 'sad'; of the 110 "
        "that are called 'happy', 80 are.",
        "'sad' (F1 0.88): 90 of its 100 texts are found, 5 are taken for 'happy'; of the 105 that "
        "are called 'sad', 90 are.",
    ]


def test_labels_within_chance_do_not_stand_out(data: ReportData) -> None:
    alike = with_best(data, **counted([[8, 1, 1], [2, 7, 1], [1, 1, 8]]))
    assert weak_labels(alike) == [
        "No label stands out: F1 is between 0.74 and 0.80, a range that may be chance. The lowest "
        "is 'happy' (F1 0.74): 7 of its 10 texts are found, 2 are taken for 'sad'; of the 9 that "
        "are called 'happy', 7 are (so few texts say little).",
    ]


def test_good_labels_and_absent_ones(data: ReportData) -> None:
    good = with_best(data, **counted([[100, 0, 0], [0, 100, 0], [0, 0, 0]]))
    assert weak_labels(good) == [
        "On none that was measured: every label's F1 is at least 0.9.",
        "No test text has 'angry', so nothing is known there.",
    ]


def test_a_label_that_is_never_predicted(data: ReportData) -> None:
    never = with_best(data, **counted([[100, 0, 0], [0, 100, 0], [40, 60, 0]]))
    assert weak_labels(never)[0] == (
        "'angry' (F1 0.00): 0 of its 100 texts are found, 60 are taken for 'happy'."
    )


def test_what_can_be_left_to_it_is_the_largest_coverage_of_the_next_wished_accuracy(
    data: ReportData,
) -> None:
    assert left_to_it(data) == [
        "At threshold 0.80 the classifier answers 62 % of the texts and is right on 93 % of those "
        "(95 % interval 90 to 95 %).",
        "The other 38 % are left to a person. The threshold was chosen on these test texts, so "
        "expect a little less on others.",
        "Its confidences are off by 4 points on average (calibration error), so they can be taken "
        "at their word.",
    ]
    assert left_to_it(with_best(data, accuracy=0.92))[0].startswith("At threshold 0.995 the")


def test_an_accuracy_that_no_threshold_reaches(data: ReportData) -> None:
    poor = with_best(data, accuracy=0.6, coverage=POINTS[:1], calibration_error=0.2)
    assert left_to_it(poor) == [
        "At no threshold that answers 20 test texts or more is it right on 90 % of them.",
        "None is better than answering all texts.",
        "Its confidences are off by 20 points on average (calibration error), so they should be "
        "taken with care.",
    ]
    assert suggested_point(system_of(poor)) == (0.9, POINTS[0])
    assert "--threshold" not in next_commands(poor)[0].line
    better = with_best(poor, coverage=[*POINTS[:1], replace(POINTS[1], accuracy=0.85)])
    assert left_to_it(better)[1].startswith("The best: At threshold 0.80 the classifier answers")


def test_few_answered_rows_make_no_suggestion(data: ReportData) -> None:
    point = suggested_point(system_of(with_best(data, accuracy=0.97)))
    assert point == (0.99, POINTS[2])  # not the last, of three rows
    assert suggested_point(system_of(with_best(data, accuracy=0.992))) == (0.99, None)
    perfect = with_best(data, accuracy=0.992)
    assert left_to_it(perfect)[0] == "All texts: it is right on 99 % or more without a threshold."


def system_of(data: ReportData) -> System:
    """The classifier."""
    assert data.best
    return data.best


def test_more_labels_compares_models_tuned_on_fewer(data: ReportData) -> None:
    data = with_mean(
        replace(data, held_out=HeldOut(9, 12, proportion(4, 12), proportion(8, 12))), 0.7
    )
    assert more_labels(data) == [
        "Tuned on 9 of the 12 labelled texts, the models of single patterns are right on 67 % of "
        "those left out (95 % interval 39 to 86 %, 12 texts); untuned, they are right on 33 %.",
        "Tuned on all 12, they are right on 70 % of the test texts (95 % interval 65 to 75 %).",
        "The intervals overlap, so these figures cannot tell what more labels would bring.",
        "To see, label some more, run again, and compare.",
    ]
    clear = replace(data, held_out=HeldOut(9, 320, proportion(80, 320), proportion(160, 320)))
    assert more_labels(clear)[2] == (
        "More labels may bring more; but these are other texts, whose labels may be easier."
    )


def with_mean(data: ReportData, accuracy: float) -> ReportData:
    """The data with another mean accuracy of the first generation's PVPs."""
    assert data.metrics
    systems = [
        replace(s, accuracy=accuracy) if s.kind == "mean" else s for s in data.metrics.systems
    ]
    return replace(data, metrics=replace(data.metrics, systems=systems))


def test_more_labels_says_what_would_be_needed(data: ReportData) -> None:
    (unknown,) = more_labels(replace(data, held_out=None))
    assert unknown.startswith("Not known: no model was tuned on a part of the 12 labelled texts")
    setting = "--set ensemble.temperature_folds=2"
    assert setting in unknown
    name, value = setting.removeprefix("--set ensemble.").split("=")
    check_settings({"ensemble": {name: int(value)}})  # there is such a setting
    assert more_labels(report_data(labelled=False)) == [
        "Not known: no labelled texts were used. 8 to 16 of each label usually bring the most."
    ]
    (alone,) = more_labels(report_data(**CASES["no pool"]))
    assert alone.startswith("Not known: one classifier was trained, on all of the labelled texts.")
    assert more_labels(report_data(measured=False))[1] == (
        "With a test table the report compares this with all of them."
    )


def lines(data: ReportData) -> list[str]:
    """The commands that are suggested."""
    return [command.line for command in next_commands(data)]


def test_the_next_commands_fit_the_run(data: ReportData) -> None:
    label = ["--n 50 --output todo.csv", "--merge todo.csv"]
    label = [f"pet label-next 'runs/my mood' {options}" for options in label]
    again = "pet run 'runs/my mood/config.toml'"
    predict = "pet predict 'runs/my mood/distill/{}' --table texts.csv --output labels.csv"
    assert next_commands(data)[0] == Command(
        "Label a table, leaving what is below the threshold empty",
        predict.format("classifier") + " --threshold 0.8",
    )
    assert lines(data)[1:] == [*label, again]
    assert lines(with_best(data, accuracy=1.0))[0] == predict.format("classifier")
    assert lines(report_data(measured=False)) == [
        predict.format("classifier"),
        f"{again} --set data.test=test.csv",
        *label,
        again,
    ]
    assert lines(report_data(classifier=False)) == [*label, again]
    alone = lines(report_data(**CASES["no pool"]))
    assert alone[0].startswith(predict.format("baseline"))
    assert alone[1:] == [f"{again} --pool pool.csv"]


def test_intervals_are_in_percent() -> None:
    assert interval(Measured(0.99, 0.954, 0.998)) == "95 % interval 95 to 99.8 %"
