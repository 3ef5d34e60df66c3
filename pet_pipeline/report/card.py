"""The model card that lies beside the classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pet_pipeline.report.facts import Facts

METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "mcc": "matthews_correlation",
}


def model_card(facts: Facts) -> str:
    """README.md of a classifier, with the front matter that the hub reads."""
    sections = (_front_matter, _what, _use, _data, _patterns, _results, _making, _limits)
    return "\n".join("\n".join(section(facts)) + "\n" for section in sections)


def _front_matter(facts: Facts) -> Iterator[str]:
    yield "---"
    yield "library_name: transformers"
    yield "pipeline_tag: text-classification"
    if facts.on_hub:
        yield f"base_model: {json.dumps(facts.model)}"
    yield "tags:"
    yield from ("- pet", "- few-shot", "- text-classification")
    if measured := facts.system("classifier"):
        yield from _model_index(facts, measured)
    yield "---"


def _model_index(facts: Facts, measured: dict[str, Any]) -> Iterator[str]:
    metric = (facts.metrics or {})["metric"]
    name = json.dumps(facts.task.name)
    yield "metrics:"
    yield f"- {METRIC_NAMES[metric]}"
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
    yield f"    - type: {METRIC_NAMES[metric]}"
    yield f"      name: {metric}"
    yield f"      value: {measured['value']:.4f}"


def _what(facts: Facts) -> Iterator[str]:
    yield f"# {facts.task.name}"
    yield ""
    columns = " and ".join(f"`{column}`" for column in facts.task.columns)
    labels = ", ".join(f"`{label}`" for label in facts.task.labels)
    yield f"A text classifier. It reads {columns} and gives one of the labels {labels}."


def _use(facts: Facts) -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "from transformers import pipeline"
    yield ""
    yield 'classify = pipeline("text-classification", model="path/to/this/folder")'
    if len(facts.task.columns) > 1:
        yield 'print(classify({"text": "...", "text_pair": "..."}, truncation=True))'
    else:
        yield 'print(classify("...", truncation=True))'
    yield "```"


def _data(facts: Facts) -> Iterator[str]:
    yield "## Data"
    yield ""
    for name, rows in facts.rows.items():
        counts = ", ".join(f"{label} {n}" for label, n in facts.labelled.items())
        yield f"- {name}: {rows} rows" + (f" ({counts})" if name == "labelled" else "")


def _patterns(facts: Facts) -> Iterator[str]:
    yield "## Patterns"
    yield ""
    for pattern, (name, template) in zip(facts.task.patterns, facts.templates, strict=True):
        words = "; ".join(
            f"{label}: {', '.join(group)}"
            for label, group in zip(pattern.labels, pattern.words, strict=True)
        )
        yield f"- {name}: `{template}` ({words})"


def _results(facts: Facts) -> Iterator[str]:
    yield "## Results"
    yield ""
    if facts.metrics is None:
        yield "Not measured: there was no test table."
        return
    metric = facts.metrics["metric"]
    yield f"| system | {metric} | 95 % interval | calibration error |"
    yield "|---|---|---|---|"
    for s in facts.systems():
        interval = f"{s['low']:.3f} to {s['high']:.3f}"
        if s["kind"] == "mean":
            interval = f"range {interval}"
        yield f"| {s['name']} | {s['value']:.3f} | {interval} | {s['calibration_error']:.3f} |"


def _making(facts: Facts) -> Iterator[str]:
    distill, finetune = facts.settings["distill"], facts.settings["finetune"]
    yield "## How it was made"
    yield ""
    n_models, n_generations = len(facts.last["models"]), len(facts.generations)
    tuned = f", each tuned for {finetune['steps']} steps" if facts.labelled else ""
    yield (
        f"By pattern-exploiting training (Schick and Schütze, 2001.07676) with pet_pipeline: "
        f"{n_models} models on {facts.model}{tuned}, in {n_generations} "
        f"generation{'s' * (n_generations != 1)}, labelled the pool together; this classifier was "
        f"distilled from their soft labels in {distill['steps']} steps at temperature "
        f"{distill['temperature']}."
    )


def _limits(facts: Facts) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (
        "It learned from soft labels that models gave, and repeats their mistakes and the biases "
        "of the base model. It knows texts like those of the pool; on others nothing was measured."
    )
    if measured := facts.system("classifier"):
        yield (
            f"Its probabilities were off by {measured['calibration_error']:.3f} on average on the "
            "test rows (expected calibration error)."
        )
