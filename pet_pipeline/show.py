"""What the command line prints: plans, states, results, patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pet_pipeline.patterns import Task
from pet_pipeline.progress import duration
from pet_pipeline.run import Run, Unit, record
from pet_pipeline.stages.evaluate import METRICS_FILE, read_metrics

console = Console()


def unit_states(run: Run) -> list[tuple[Unit, str, str]]:
    """Each unit of a plan with its state, done, stale or to do, and the reason or the seconds."""
    states = []
    units = {unit.dir: unit for unit in run.units}  # generations may share some
    for unit in units.values():
        forced = {unit.stage, _stage_of(run, unit)} & set(run.force)
        if forced:
            states.append((unit, "to do", "forced"))
        elif unit.result():
            seconds = (record(unit.dir) or {}).get("seconds", 0.0)
            states.append((unit, "done", duration(seconds)))
        elif why := unit.why():
            states.append((unit, "stale", "; ".join(why)))
        else:
            states.append((unit, "to do", ""))
    return states


def print_units(run: Run) -> None:
    """The plan of a run as a table, and how much is done."""
    table = Table("stage", "unit", "state", "seconds, or why", box=None, pad_edge=False)
    colour = {"done": "green", "stale": "yellow", "to do": "cyan"}
    states = unit_states(run)
    for unit, state, reason in states:
        shown = f"[{colour[state]}]{state}[/]"
        table.add_row(_stage_of(run, unit), unit.dir.name, shown, escape(reason))
    console.print(table)
    counts = {name: sum(state == name for _, state, _ in states) for name in colour}
    console.print(", ".join(f"{n} {name}" for name, n in counts.items() if n) or "no units")


def print_results(run: Run, program: str) -> None:
    """The results of a finished run, where they lie, and what to type next."""
    units = {unit.stage: unit for unit in run.units if unit.result()}
    console.print()
    if "evaluate" in units and (result := units["evaluate"].result()):
        console.print(_results_table(read_metrics(result)))
    for stage, name, file in (
        ("search", "patterns", ""),
        ("distill", "classifier", ""),
        ("ensemble", "soft labels", ""),
        ("evaluate", "metrics", METRICS_FILE),
        ("report", "report", "index.html"),
    ):
        if stage in units:
            console.print(f"{name:<12} {units[stage].dir / file}", soft_wrap=True, highlight=False)
    if "distill" in units:
        command = f'{program} predict {units["distill"].dir} --text "..."'
        console.print(f"{'try it':<12} {command}", soft_wrap=True, highlight=False)


def print_patterns(
    task: Task,
    rows: Sequence[dict[str, str]],
    described: dict[str, dict[str, Any]],
) -> None:
    """Each pattern on real rows, with its label words.

    described: by pattern, what the tokenizer ring knows: words, warnings, prior; may be empty
    """
    for pattern in task.patterns:
        known = described.get(pattern.name, {})
        console.rule(escape(pattern.name), align="left")
        for row in rows:
            console.print(escape(_shortened(pattern.render(row))), highlight=False)
        table = Table("label", "label words", box=None, pad_edge=False)
        if known:
            table.add_column("tokens")
        if "prior" in known:
            table.add_column("prior", justify="right")
        for n, (label, words) in enumerate(zip(pattern.labels, pattern.words, strict=True)):
            cells = [label, ", ".join(words)]
            if known:
                cells.append("  ".join(" ".join(tokens) for tokens in known["words"][label]))
            if "prior" in known:
                cells.append(f"{known['prior'][n]:.3f}")
            table.add_row(*(escape(cell) for cell in cells))
        console.print(table)
        for warning in known.get("warnings", []):
            console.print(f"[yellow]note[/] {escape(warning)}", highlight=False)
        console.print()


def print_prediction(text: str, labels: Sequence[str], probs: Sequence[float]) -> None:
    """The labels of a text, likeliest first."""
    console.print(escape(text), highlight=False)
    for label, p in sorted(zip(labels, probs, strict=True), key=lambda pair: -pair[1]):
        bar = "█" * round(30 * p)
        console.print(f"  {escape(label):<24} {p:6.1%} {bar}", highlight=False)


def _results_table(metrics: dict[str, Any]) -> Table:
    last = metrics["generations"] - 1
    title = f"{metrics['metric']} on {metrics['test_rows']} test rows"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("system")
    table.add_column(metrics["metric"], justify="right")
    table.add_column("95 % interval", justify="center")
    table.add_column("calibration error", justify="right")
    for s in metrics["systems"]:
        if s["generation"] not in (None, last):
            continue
        interval = f"{s['low']:.3f} to {s['high']:.3f}"
        if s["kind"] == "mean":
            interval = f"({interval})"
        bold = s["kind"] in ("ensemble", "classifier")
        name = escape(s["name"])
        table.add_row(
            f"[bold]{name}[/]" if bold else name,
            f"{s['value']:.3f}",
            interval,
            f"{s['calibration_error']:.3f}",
        )
    if any(s["kind"] == "mean" for s in metrics["systems"]):
        table.caption = "in brackets: the range of the single PVPs"
        table.caption_justify = "left"
    return table


def _stage_of(run: Run, unit: Unit) -> str:
    folder = unit.dir.parent.relative_to(run.root).as_posix()
    return unit.stage if folder == "." else folder


def _shortened(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
