"""What looks wrong in the results of a run, in sentences that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pet_pipeline.metrics import metric_title, percent
from pet_pipeline.stages.ensemble import EnsembleSummary
from pet_pipeline.stages.evaluate import Metrics

NEARLY_ALL = 0.95  # of the rows with one predicted label, above which something is wrong,
USUAL = 0.9  # unless as large a fraction of the test rows has it
LIKELY_CHANCE = 0.05  # p-value above which a difference is called possible chance


def remarks(metrics: Metrics | None, ensemble: EnsembleSummary | None) -> list[str]:
    """A remark for each thing that looks wrong; empty if nothing does.

    metrics: None if there was no test table; ensemble: None if there was no pool
    """
    return [
        *_one_sided(metrics, ensemble),
        *_uncalibrated(ensemble),
        *(_compared(metrics) if metrics else ()),
    ]


def _one_sided(metrics: Metrics | None, ensemble: EnsembleSummary | None) -> Iterator[str]:
    """The ensemble or the classifier that gives one label to nearly all rows."""
    gold: Mapping[str, int] = {}
    predicted: list[tuple[str, str, Mapping[str, int]]] = []
    if ensemble:
        predicted.append(("ensemble", "pool", ensemble.label_counts))
    for kind in ("ensemble", "classifier") if ensemble else ("baseline",):
        system = metrics.system(kind) if metrics else None
        if system and system.labels:
            gold = {quality.label: quality.gold for quality in system.labels}
            by_label = {quality.label: quality.predicted for quality in system.labels}
            predicted.append((kind, "test", by_label))
    remarked = set()
    for kind, rows, counts in predicted:
        label = max(counts, key=lambda label: counts[label])
        fraction, usual = _fraction(counts, label), _fraction(gold, label)
        if kind not in remarked and fraction >= NEARLY_ALL and usual < USUAL:
            remarked.add(kind)
            compared = f"; {percent(usual)} of the test rows have it" if gold else ""
            remedy = (
                "Look at the label words of the other labels (pet patterns), label more rows of "
                "them (pet label-next), or try --set calibration.method=contextual."
                if ensemble
                else "Label more rows of the other labels."
            )
            yield (
                f"The {kind} gives {label!r} to {percent(fraction)} of the {rows} rows{compared}. "
                f"{remedy}"
            )


def _uncalibrated(ensemble: EnsembleSummary | None) -> Iterator[str]:
    """The ensemble whose confidences are those of its models, which are too high."""
    if ensemble and ensemble.expected.accuracy is None and ensemble.temperature == 1.0:
        yield (
            "The ensemble's temperature is 1, so confidences are too high: there is nothing to fit "
            "it by. Add a pattern, so that models can agree, or more labelled rows for "
            "ensemble.temperature_folds."
        )


def _compared(metrics: Metrics) -> Iterator[str]:
    """The classifier where it is below what it was made from, or could be replaced by."""
    classifier = metrics.system("classifier")
    ensemble, baseline = metrics.system("ensemble"), metrics.system("baseline")
    title = metric_title(metrics.metric, metrics.labels)
    if classifier and ensemble and classifier.value < ensemble.low:
        yield (
            f"The classifier's {title}, {classifier.value:.3f}, is below the 95 % interval of its "
            f"ensemble ({ensemble.low:.3f} to {ensemble.high:.3f}): it has not learned what the "
            "ensemble knows. Distill longer (--set distill.passes=4), add texts to the pool, or "
            "name a larger encoder (distill.model)."
        )
    if classifier and baseline and classifier.value < baseline.value:
        yield (
            f"The classifier's {title}, {classifier.value:.3f}, is below the baseline's, "
            f"{baseline.value:.3f}{_chance(metrics)}: the pool's soft labels did not help. Improve "
            "the patterns (the report shows where their models disagree), or use the baseline, "
            "which is in distill/baseline of the run."
        )


def _fraction(counts: Mapping[str, int], label: str) -> float:
    return counts.get(label, 0) / max(1, sum(counts.values()))


def _chance(metrics: Metrics) -> str:
    """Whether the difference from the baseline may be one of these test rows only."""
    pair = metrics.against_baseline
    return " (a difference that may be chance)" if pair and pair.p_value > LIKELY_CHANCE else ""
