"""The model card that lies beside the classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pet_pipeline.metrics import percent
from pet_pipeline.models import HubModel, model_title
from pet_pipeline.report.answers import coverage_sentence, suggested_point
from pet_pipeline.report.data import ReportData
from pet_pipeline.stages.evaluate import System

HUB_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "mcc": "matthews_correlation",
}


def model_card(data: ReportData) -> str:
    """README.md of a classifier, with the front matter that the hub reads."""
    sections = (_front_matter, _summary, _use, _data, _patterns, _results, _making, _limits)
    return "\n".join("\n".join(section(data)) + "\n" for section in sections)


def _front_matter(data: ReportData) -> Iterator[str]:
    yield "---"
    yield "library_name: transformers"
    yield "pipeline_tag: text-classification"
    if isinstance(data.student, HubModel):
        yield f"base_model: {json.dumps(data.student.name)}"
    yield "tags:"
    yield from ("- pet", "- few-shot", "- text-classification")
    if classifier := data.system("classifier"):
        yield from _model_index(data, classifier)
    yield "---"


def _model_index(data: ReportData, classifier: System) -> Iterator[str]:
    name, metric = json.dumps(data.task.name), HUB_METRICS[data.task.metric]
    yield "metrics:"
    yield f"- {metric}"
    yield "model-index:"
    yield f"- name: {name}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-classification"
    yield "    dataset:"
    yield f"      name: {name}"
    yield f"      type: {name}"
    yield "      split: test"
    yield "    metrics:"
    yield f"    - type: {metric}"
    yield f"      name: {json.dumps(data.metric)}"
    yield f"      value: {classifier.value:.4f}"


def _summary(data: ReportData) -> Iterator[str]:
    yield f"# {data.task.name}"
    yield ""
    columns = " and ".join(f"`{column}`" for column in data.task.columns)
    labels = ", ".join(f"`{label}`" for label in data.task.labels)
    yield f"A text classifier. It reads {columns} and gives one of the labels {labels}."


def _use(data: ReportData) -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "from transformers import pipeline"
    yield ""
    yield 'classify = pipeline("text-classification", model="path/to/this/folder")'
    if len(data.task.columns) > 1:
        yield 'print(classify({"text": "...", "text_pair": "..."}, truncation=True))'
    else:
        yield 'print(classify("...", truncation=True))'
    yield "```"


def _data(data: ReportData) -> Iterator[str]:
    yield "## Data"
    yield ""
    for name, rows in data.rows.items():
        counts = ", ".join(f"{label} {n}" for label, n in data.labelled.items())
        yield f"- {name}: {rows} rows" + (f" ({counts})" if name == "labelled" else "")


def _patterns(data: ReportData) -> Iterator[str]:
    yield "## Patterns"
    yield ""
    for pattern, (name, template) in zip(data.task.patterns, data.templates, strict=True):
        words = "; ".join(
            f"{label}: {', '.join(group)}"
            for label, group in zip(pattern.labels, pattern.words, strict=True)
        )
        yield f"- {name}: `{template}` ({words})"


def _results(data: ReportData) -> Iterator[str]:
    yield "## Results"
    yield ""
    if data.metrics is None:
        yield "Not measured: there was no test table."
        return
    yield f"| system | {_cell(data.metric)} | 95 % interval | calibration error |"
    yield "|---|---|---|---|"
    for s in data.metrics.last_systems():
        interval = f"{s.low:.3f} to {s.high:.3f}"
        if s.kind == "mean":
            interval = f"range {interval}"
        yield f"| {_cell(s.name)} | {s.value:.3f} | {interval} | {s.calibration_error:.3f} |"


def _making(data: ReportData) -> Iterator[str]:
    distill = data.settings.distill
    yield "## How it was made"
    yield ""
    n_models = len(data.ensemble.models) if data.ensemble else 0
    n_generations = len(data.generations)
    tuned = f", each tuned for {data.updates} steps" if data.tuned else ""
    into = f" into {model_title(data.student)}" if data.student != data.base else ""
    yield (
        f"By pattern-exploiting training (Schick and Schütze, 2001.07676) with pet_pipeline: "
        f"{n_models} models on {model_title(data.base)}{tuned}, in {n_generations} "
        f"generation{'s' * (n_generations != 1)}, labelled the pool together; this classifier was "
        f"distilled from their soft labels{into} in "
        f"{data.steps} steps at temperature "
        f"{distill.temperature}."
    )


def _limits(data: ReportData) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (
        "It learned from soft labels that models gave, and repeats their mistakes and the biases "
        "of the base model. It knows texts like those of the pool; on others nothing was measured."
    )
    if classifier := data.system("classifier"):
        yield (
            f"Its probabilities were off by {classifier.calibration_error:.3f} on average on the "
            "test rows (expected calibration error)."
        )
        wished, point = suggested_point(classifier)
        if point:
            yield coverage_sentence(classifier, point)
        else:
            yield f"It is right on {percent(wished)} of the test texts or more without a threshold."


def _cell(text: str) -> str:
    """A text in a table of Markdown, where a bar would begin the next cell."""
    return text.replace("|", "\\|")
