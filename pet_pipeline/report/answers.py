"""The report's first screen: plain answers to what one asks before using a classifier."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pet_pipeline.metrics import (
    CoveragePoint,
    LabelQuality,
    Measured,
    coverage_at,
    percent,
    proportion,
)
from pet_pipeline.report.data import ReportData
from pet_pipeline.stages.evaluate import Metrics, System

WISHED = (0.9, 0.95, 0.99)  # accuracies that a threshold is looked for
FEWEST_ANSWERED = 20  # test texts, below which an accuracy says too little
GOOD_F1 = 0.9
WEAKEST = 3  # labels that are named
FEW_TEST_ROWS = 30  # of a label
CHANCE = 0.05  # p-value above which a difference is called possible chance
TO_LABEL = 50


@dataclass(frozen=True)
class Command:
    """Something to type next, and what for."""

    purpose: str
    line: str


def good_enough(data: ReportData) -> list[str]:
    """How good the best system is, and whether the pool was worth it."""
    metrics, best = data.metrics, data.best
    if metrics is None or best is None:
        return [
            "Not known: there was no test table, so nothing was measured.",
            *_expected(data),
            "200 labelled texts that nothing is trained on would tell the accuracy to within "
            "about 7 points.",
        ]
    correct = proportion(round(best.accuracy * metrics.test_rows), metrics.test_rows)
    sentences = [
        f"The {best.name} is right on {percent(best.accuracy)} of the {metrics.test_rows:,} test "
        f"texts ({interval(correct)})."
    ]
    if metrics.metric != "accuracy":
        value = f"{best.value:.3f} (95 % interval {best.low:.3f} to {best.high:.3f})"
        sentences.append(f"The metric of the task, {data.metric}, is {value}.")
    if best.labels:
        most = max(best.labels, key=lambda quality: quality.gold)
        share = most.gold / metrics.test_rows
        verdict = ": it is not shown to be better than that" if correct.low <= share else ""
        sentences.append(
            f"Always answering {most.label!r}, the most frequent label, would be right on "
            f"{percent(share)}{verdict}."
        )
    return [*sentences, *_against_baseline(metrics, best)]


def _expected(data: ReportData) -> Iterator[str]:
    """What the ensemble's temperature was chosen by, where nothing was measured."""
    expected = data.ensemble.expected if data.ensemble else None
    if expected and expected.accuracy is not None:
        evidence = []
        if expected.agreement is not None:
            evidence.append("how often the models agree")
        if expected.held_out_rows:
            evidence.append("labelled texts that some were tuned without")
        yield (
            f"By {' and by '.join(evidence)}, "
            f"the ensemble may be right on about {percent(expected.accuracy)} of the pool; that is "
            "an estimate, and can be far off where all models make the same mistake."
        )


def _against_baseline(metrics: Metrics, best: System) -> Iterator[str]:
    baseline, pair = metrics.system("baseline"), metrics.against_baseline
    if baseline is None or pair is None:
        return
    verdict = "a difference that may be chance" if pair.p_value > CHANCE else "more than by chance"
    yield (
        f"The baseline is right on {percent(baseline.accuracy)}: of the same texts, {pair.gained} "
        f"are right with the {best.name} alone and {pair.lost} with the baseline alone, {verdict} "
        f"(McNemar's test, p {_p_value(pair.p_value)})."
    )


def weak_labels(data: ReportData) -> list[str]:
    """The labels that are predicted worst, and what they are taken for."""
    best = data.best
    if best is None or not best.labels or not best.confusion:
        return ["Not known without a test table."]
    absent = [quality.label for quality in best.labels if not quality.gold]
    known = [quality for quality in best.labels if quality.gold and quality.f1]
    ordered = sorted(known, key=_f1)
    weak = [quality for quality in ordered if _f1(quality) < GOOD_F1][:WEAKEST]
    sentences = []
    if not weak:
        sentences.append(f"On none that was measured: every label's F1 is at least {GOOD_F1}.")
    weaknesses = [_weakness(quality, data.task.labels, best.confusion) for quality in weak]
    if weak and _overlap(ordered[0], ordered[-1]):
        weaknesses = [
            f"No label stands out: F1 is between {_f1(ordered[0]):.2f} and "
            f"{_f1(ordered[-1]):.2f}, a range that may be chance. The lowest is {weaknesses[0]}"
        ]
    sentences += weaknesses
    if absent:
        named = ", ".join(repr(label) for label in absent[:WEAKEST])
        more = f" and {len(absent) - WEAKEST} more" if len(absent) > WEAKEST else ""
        sentences.append(f"No test text has {named}{more}, so nothing is known there.")
    return sentences


def _overlap(low: LabelQuality, high: LabelQuality) -> bool:
    return bool(low.f1 and high.f1 and low.f1.high >= high.f1.low)


def _weakness(quality: LabelQuality, labels: tuple[str, ...], counts: list[list[int]]) -> str:
    """How a label is missed, and with which other one."""
    number = labels.index(quality.label)
    missed = [(rows, label) for label, rows in zip(labels, counts[number], strict=True)]
    del missed[number]
    most, other = max(missed)
    name = repr(quality.label)
    text = f"{name} (F1 {_f1(quality):.2f}): {quality.right} of its {quality.gold} texts are found"
    if most:
        text += f", {most} are taken for {other!r}"
    if quality.predicted:
        text += f"; of the {quality.predicted} that are called {name}, {quality.right} are"
    few = " (so few texts say little)" if quality.gold < FEW_TEST_ROWS else ""
    return f"{text}{few}."


def left_to_it(data: ReportData) -> list[str]:
    """At which threshold the best system is how often right, and how much it answers then."""
    best = data.best
    if best is None or not best.coverage:
        return [
            "Not known without a test table: a threshold is chosen by the accuracy that is "
            "measured at it."
        ]
    wished, point = suggested_point(best)
    sentences = []
    if point is None:
        sentences.append(
            f"All texts: it is right on {percent(wished)} or more without a threshold."
        )
    elif point.accuracy >= wished:
        sentences.append(coverage_sentence(best, point))
        sentences.append(
            f"The other {percent(1 - point.coverage)} are left to a person. The threshold was "
            "chosen on these test texts, so expect a little less on others."
        )
    else:
        sentences.append(
            f"At no threshold that answers {FEWEST_ANSWERED} test texts or more is it right on "
            f"{percent(wished)} of them."
        )
        sentences.append(
            f"The best: {coverage_sentence(best, point)}"
            if point.threshold
            else "None is better than answering all texts."
        )
    error = best.calibration_error
    verdict = "can be taken at their word" if error <= 0.05 else "should be taken with care"
    sentences.append(
        f"Its confidences are off by {100 * error:.0f} points on average (calibration error), so "
        f"they {verdict}."
    )
    return sentences


def suggested_point(system: System) -> tuple[float, CoveragePoint | None]:
    """A wished accuracy above the system's own, and the point of the curve that is nearest to it.

    None if the highest of the wished accuracies needs no threshold.
    """
    wished = next((value for value in WISHED if system.accuracy < value), WISHED[-1])
    if system.accuracy >= wished:
        return wished, None
    points = [p for p in system.coverage or [] if p.rows >= FEWEST_ANSWERED or not p.threshold]
    best = max(points or [], key=lambda p: (p.accuracy, p.rows), default=None)
    return wished, coverage_at(points or [], wished) or best


def coverage_sentence(system: System, point: CoveragePoint) -> str:
    """A point of the coverage curve in words."""
    short = f"{point.threshold:.2f}"
    threshold = short if float(short) == point.threshold else str(point.threshold)
    return (
        f"At threshold {threshold} the {system.name} answers {percent(point.coverage)} of the "
        f"texts and is right on {percent(point.accuracy)} of those "
        f"({interval(Measured(point.accuracy, point.low, point.high))})."
    )


def more_labels(data: ReportData) -> list[str]:
    """What labelled texts brought so far, by the models that were tuned without some of them."""
    n_labelled = sum(data.labelled.values())
    if not n_labelled:
        return [
            "Not known: no labelled texts were used. 8 to 16 of each label usually bring the most."
        ]
    if not data.generations:
        return [
            "Not known: one classifier was trained, on all of the labelled texts. Label more, run "
            "again with another --output, and compare both: pet compare A B."
        ]
    part, whole = data.held_out, data.first_accuracy
    if part is None:
        return [
            f"Not known: no model was tuned on a part of the {n_labelled} labelled texts only, so "
            "there is nothing to compare with. With --set ensemble.temperature_folds=2 each half "
            "of them is left out once, and the report compares."
        ]
    sentences = [
        f"Tuned on {part.tuned_on} of the {n_labelled} labelled texts, the models of single "
        f"patterns are right on {percent(part.accuracy.value)} of those left out "
        f"({interval(part.accuracy)}, {part.rows} texts); untuned, they are right on "
        f"{percent(part.untuned.value)}."
    ]
    if whole is None:
        return [*sentences, "With a test table the report compares this with all of them."]
    sentences.append(
        f"Tuned on all {n_labelled}, they are right on {percent(whole.value)} of the test texts "
        f"({interval(whole)})."
    )
    overlap = whole.low <= part.accuracy.high
    sentences.append(
        "The intervals overlap, so these figures cannot tell what more labels would bring."
        if overlap
        else "More labels may bring more; but these are other texts, whose labels may be easier."
    )
    return [*sentences, "To see, label some more, run again, and compare."]


def next_commands(data: ReportData) -> list[Command]:
    """What to type next."""
    folder, commands = data.folder, []
    best = data.best
    if not data.generations or (best and best.kind == "baseline"):
        classifier = f"{folder}/distill/baseline"
    else:
        classifier = f"{folder}/distill/classifier" if data.classifier else ""
    if classifier:
        purpose = "Label a table"
        line = f"pet predict {_quoted(classifier)} --table texts.csv --output labels.csv"
        point = suggested_point(best)[1] if best else None
        if point and point.threshold:
            line += f" --threshold {point.threshold:g}"
            purpose = "Label a table, leaving what is below the threshold empty"
        commands.append(Command(purpose, line))
    config = _quoted(f"{folder}/config.toml")
    if not data.generations:
        purpose = "Train a better one, with a pool of unlabelled texts"
        commands.append(Command(purpose, f"pet run {config} --pool pool.csv"))
    if data.metrics is None:
        purpose = "Measure; the pool's copies of test texts are left out, so it is distilled again"
        measure = Command(purpose, f"pet run {config} --set data.test=test.csv")
        commands.append(measure)
    if data.ensemble:
        label = f"pet label-next {_quoted(folder)}"
        commands.append(
            Command(
                f"Write the {TO_LABEL} texts that are best to label next",
                f"{label} --n {TO_LABEL} --output todo.csv",
            )
        )
        commands.append(Command("Take them in when they are labelled", f"{label} --merge todo.csv"))
        commands.append(Command("Run again with them", f"pet run {config}"))
    return commands


def interval(measured: Measured) -> str:
    """The interval of a fraction in words.

    >>> interval(Measured(0.5, 0.41, 0.596))
    '95 % interval 41 to 60 %'
    """
    low, high = percent(measured.low).removesuffix(" %"), percent(measured.high)
    return f"95 % interval {low} to {high}"


def _f1(quality: LabelQuality) -> float:
    return quality.f1.value if quality.f1 else 0.0


def _p_value(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _quoted(text: str) -> str:
    return shlex.quote(text)
