"""What the command line prints: plans, states, results, patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pet_pipeline.metrics import metric_title
from pet_pipeline.patterns import Pattern, Task, all_patterns
from pet_pipeline.progress import duration
from pet_pipeline.remarks import remarks
from pet_pipeline.run import Run
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.evaluate import METRICS_FILE, Metrics, read_metrics
from pet_pipeline.stages.merge_labels import own_labelled
from pet_pipeline.texts import shortened
from pet_pipeline.units import PlannedUnit, read_record

SHOWN_CHARACTERS = 400  # of a rendered pattern

console = Console()


@dataclass(frozen=True)
class DescribedPattern:
    """What a model and its tokenizer make of a pattern."""

    words: dict[str, list[list[str]]]  # label -> word -> tokens
    warnings: list[str]
    prior: list[float] | None = None  # the untuned model's probability of each label


def unit_states(run: Run) -> list[tuple[PlannedUnit, str, str]]:
    """Each unit of a plan with its state, done, stale or to do, and the time, reason or size."""
    states = []
    for unit in {unit.dir: unit for unit in run.units if run.covers(unit)}.values():
        if run.is_forced(unit):
            states.append((unit, "to do", ", ".join(filter(None, ["forced", unit.unit.size()]))))
        elif unit.result():
            states.append((unit, "done", _done(unit)))
        elif why := run.why(unit):
            states.append((unit, "stale", "; ".join(filter(None, [*why, unit.unit.size()]))))
        else:
            states.append((unit, "to do", unit.unit.size()))
    return states


def _done(unit: PlannedUnit) -> str:
    """How long a finished unit took, and what of a model it trained or found trainable."""
    record = read_record(unit.dir) or {}
    counts = {
        "trainable": "trainable parameters",
        "soft_tokens": "soft tokens",
    }
    found = [f"{record['info'][n]:,} {c}" for n, c in counts.items() if n in record.get("info", {})]
    return ", ".join([duration(record.get("seconds", 0.0)), *found])


def print_units(run: Run) -> None:
    """The plan of a run as a table, and how much is done."""
    table = Table("stage", "unit", "state", "time, size or reason", box=None, pad_edge=False)
    colour = {"done": "green", "stale": "yellow", "to do": "cyan"}
    states = unit_states(run)
    for unit, state, more in states:
        coloured = f"[{colour[state]}]{state}[/]"
        table.add_row(run.place_of(unit)[0], unit.dir.name, coloured, escape(more))
    console.print(table)
    counts = {name: sum(state == name for _, state, _ in states) for name in colour}
    console.print(", ".join(f"{n} {name}" for name, n in counts.items() if n) or "no units")
    if (file := own_labelled(run)).exists():
        note = f"labelled rows: {file}, in place of data.labelled"
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def print_results(run: Run, program: str) -> None:
    """The results of a finished run, where they are, and what to type next."""
    units = {f"{unit.stage}/{unit.dir.name}": unit for unit in run.units if unit.result()}
    console.print()
    evaluated, combined = (
        units[name].result() if name in units else None for name in ("evaluate/all", "ensemble/all")
    )
    metrics = read_metrics(evaluated) if evaluated else None
    if metrics:
        console.print(_results_table(metrics))
    for remark in remarks(metrics, read_ensemble(combined) if combined else None):
        console.print(f"[yellow]note[/] {escape(remark)}", soft_wrap=True, highlight=False)
    searched = next((name for name in reversed(units) if name.startswith("search/")), "search")
    # Without a pool, the baseline is for use.
    alone = {"distill/classifier", "ensemble/all"}.isdisjoint(units)
    for unit, name, file in (
        (searched, "patterns", ""),
        ("distill/classifier", "classifier", ""),
        *([("distill/baseline", "baseline", "")] if alone else []),
        ("ensemble/all", "soft labels", ""),
        ("evaluate/all", "metrics", METRICS_FILE),
        ("report/report", "report", "index.html"),
    ):
        if unit in units:
            console.print(f"{name:<12} {units[unit].dir / file}", soft_wrap=True, highlight=False)
    if classifier := units.get("distill/baseline" if alone else "distill/classifier"):
        command = f'{program} predict {classifier.dir} --text "..."'
        console.print(f"{'try it':<12} {command}", soft_wrap=True, highlight=False)


def print_patterns(
    task: Task,
    rows: Sequence[dict[str, str]],
    described: Mapping[str, DescribedPattern],
) -> None:
    """Each pattern on real rows, with its label words, also those that are not default.

    described: by pattern; empty if there is no model to ask
    """
    for pattern in all_patterns(task):
        note = " (default = false: taken only by name)" if pattern in task.others else ""
        console.rule(escape(pattern.name + note), align="left")
        for row in rows:
            console.print(escape(shortened(pattern.render(row), SHOWN_CHARACTERS)), highlight=False)
        description = described.get(pattern.name)
        console.print(_words_table(pattern, description))
        for warning in description.warnings if description else []:
            console.print(f"[yellow]note[/] {escape(warning)}", highlight=False)
        console.print()


def print_prediction(text: str, probs: Mapping[str, float], why_empty: str | None = None) -> None:
    """The labels of a text by their probabilities, the most probable first.

    why_empty: the reason if none of them is given
    """
    console.print(escape(text), highlight=False)
    if why_empty:
        console.print(f"  no label: {escape(why_empty)}", highlight=False)
    for label, p in sorted(probs.items(), key=lambda pair: -pair[1]):
        bar = "█" * round(30 * p)
        console.print(f"  {escape(label):<24} {p:6.1%} {bar}", highlight=False)


def _words_table(pattern: Pattern, description: DescribedPattern | None) -> Table:
    """The label words of a pattern, with their tokens and the prior where they are known."""
    table = Table("label", "label words", box=None, pad_edge=False)
    prior = description.prior if description else None
    if description:
        table.add_column("tokens")
    if prior:
        table.add_column("prior", justify="right")
    for n, (label, words) in enumerate(zip(pattern.labels, pattern.words, strict=True)):
        cells = [label, ", ".join(words)]
        if description:
            cells.append("  ".join(" ".join(tokens) for tokens in description.words[label]))
        if prior:
            cells.append(f"{prior[n]:.3f}")
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _results_table(metrics: Metrics) -> Table:
    """The systems of the last generation."""
    metric = escape(metric_title(metrics.metric, metrics.labels))
    title = f"{metric} on {metrics.test_rows} test rows"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("system")
    table.add_column(metric, justify="right")
    table.add_column("95 % interval", justify="center")
    table.add_column("calibration error", justify="right")
    systems = metrics.last_systems()
    for s in systems:
        interval = f"{s.low:.3f} to {s.high:.3f}"
        if s.kind == "mean":
            interval = f"({interval})"
        name = escape(s.name)
        table.add_row(
            f"[bold]{name}[/]" if s.kind in ("ensemble", "classifier") else name,
            f"{s.value:.3f}",
            interval,
            f"{s.calibration_error:.3f}",
        )
    if any(s.kind == "mean" for s in systems):
        table.caption = "in brackets: the range of the single PVPs"
        table.caption_justify = "left"
    return table
