"""Null prompts with BitFit (2106.13353) beside hand-written patterns and full fine-tuning.

    python pipelines/null_prompts.py DATASETS --output runs/null-prompts

DATASETS is as few_shot.py reads it. As in the paper, the learning rate is chosen on folds of the
labelled rows (`finetune.select`): with each rate PVPs score the rows that they were not tuned on,
and the rate with the lowest mean log-loss is the one with which the PVPs are tuned on all labelled
rows and measured on the test rows. Full fine-tuning has the default rate, unless --full-rates has
several.

Each set, seed, kind of patterns and method is a run of its own. Run the same command again to
resume after a stop.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from few_shot import (
    check_samples,
    pattern_names,
    percent,
    print_table,
    refuse_overrides,
    sample_of,
    until_evaluate,
)
from soft_prompts import NOT_DISTILLED, POOL_ROWS

from pet_pipeline import (
    Run,
    Settings,
    UserError,
    load_task,
    read_settings,
)
from pet_pipeline.patterns import all_patterns
from pet_pipeline.stages.from_settings import base_model
from pet_pipeline.stages.selected import RankedTuning, read_selection, tuning_of

HEADER = ("patterns", "method", "single PVPs", "ensemble", "rate of each seed")
CANDIDATES = ("patterns", "method", "rate", "accuracy", "log-loss", "chosen")
NULL = "null_"  # how the names of null prompts begin
OPTIONS = {
    "finetune.method": "null-prompts has bitfit and full",
    "finetune.learning_rate": "--rates and --full-rates",
    "finetune.select": "--rates and --full-rates",
    "finetune.select_rates": "--rates and --full-rates",
    "finetune.select_steps": "finetune.steps",
    "finetune.select_folds": "--folds",
    "patterns": "--patterns",
    "output": "--output",
}


@dataclass(frozen=True)
class Measured:
    """What some patterns reach on the test rows with the chosen rate."""

    single: float  # accuracy, the mean of the PVPs
    ensemble: float  # accuracy
    rate: float
    candidates: list[RankedTuning]  # by their rates; none if there was nothing to choose


Results = dict[tuple[str, str], list[Measured]]  # by kind of patterns, and by method


def main(
    datasets: Path,
    output: Path = Path("runs/null-prompts"),
    sets: str = "sst2,trec",
    seeds: str = "13,21,42",
    rates: Annotated[
        str, typer.Option(help="Learning rates of BitFit to choose from.")
    ] = "1e-3,3e-3,1e-2,3e-2",
    full_rates: Annotated[
        str, typer.Option(help="Those of full fine-tuning; 0 is the default one.")
    ] = "0",
    folds: Annotated[int, typer.Option(min=2, help="Folds of the labelled rows.")] = 4,
    patterns: Annotated[
        str, typer.Option(help="Hand-written patterns: names, or how many, by name; 0 is all.")
    ] = "0",
    test_rows: Annotated[int, typer.Option(min=0, help="Rows to measure on; 0 is all.")] = 1000,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    override: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> None:
    """Run every set, seed, kind of patterns and method, then print two tables for each set."""
    check_samples(datasets, sets, seeds)
    methods = {"bitfit": rates_of(rates), "full": rates_of(full_rates)}
    try:
        refuse_overrides(override, OPTIONS)
        for name in sets.split(","):
            results: Results = defaultdict(list)
            for seed in seeds.split(","):
                sample = sample_of(
                    datasets / name, int(seed), output, test_rows=test_rows, pool_rows=POOL_ROWS
                )
                sample |= NOT_DISTILLED
                for kind, names in kinds(sample["task"], patterns).items():
                    for method, candidates in methods.items():
                        root = output / f"{name}-{seed}" / f"{kind}-{method}"
                        fixed = {
                            "output": str(root),
                            "patterns": names,
                            "finetune": {"method": method, **choice_of(candidates, folds)},
                        }
                        settings = read_settings(None, override or [], over=sample | fixed)
                        results[kind, method].append(run_one(settings))
            print_results(name, results, markdown=markdown)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def rates_of(text: str) -> list[float]:
    """The learning rates of an option."""
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: numbers with commas between them are needed") from None
    if len({*rates}) < len(rates) or not all(0 <= rate < 1 for rate in rates):
        raise typer.BadParameter(f"{text!r}: different rates below 1 are needed")
    if 0 in rates and len(rates) > 1:
        raise typer.BadParameter(f"{text!r}: 0, the default rate, is not one to choose from")
    return rates


def kinds(task: str, patterns: str) -> dict[str, list[str]]:
    """The names of a task's null prompts and of its hand-written patterns."""
    null = [p.name for p in all_patterns(load_task(task)) if p.name.startswith(NULL)]
    if not null:
        raise UserError(f"{task}: has no null prompt; add a file {NULL}end.toml")
    return {"null": null, "hand-written": pattern_names(task, patterns)}


def choice_of(rates: list[float], folds: int) -> dict[str, Any]:
    """The settings that choose one of the rates on folds; of a single rate, this one."""
    if len(rates) == 1:
        return {"learning_rate": rates[0]}
    return {
        "learning_rate": rates[0],
        "select": "folds",
        "select_rates": [rate / rates[0] for rate in rates],
        "select_steps": [1.0],
        "select_folds": folds,
    }


def run_one(settings: Settings) -> Measured:
    """Choose a rate on the folds, tune on all labelled rows with it, measure on the test rows."""
    with Run.open(settings) as run:
        done = until_evaluate(run, settings)
        rate = tuning_of(
            done.inputs, settings, base_model(run, settings)
        ).optimisation.learning_rate
    selected = done.inputs.selected
    candidates = read_selection(selected).candidates if selected else []
    return Measured(done.accuracy("mean"), done.accuracy("ensemble"), rate, candidates)


def print_results(name: str, results: Results, *, markdown: bool) -> None:
    """Accuracies on the test rows with the chosen rates, then those on the folds for each rate."""
    rows = [
        (
            kind,
            method,
            percent([m.single for m in measured]),
            percent([m.ensemble for m in measured]),
            "  ".join(f"{m.rate:g}" for m in measured),
        )
        for (kind, method), measured in results.items()
    ]
    print_table(f"{name}, accuracy in percent", HEADER, rows, names=2, markdown=markdown)
    if choices := [*candidate_lines(results)]:
        title = f"{name}, labelled rows held out in a fold"
        print_table(title, CANDIDATES, choices, names=2, markdown=markdown)


def candidate_lines(results: Results) -> Iterator[tuple[str, ...]]:
    """For each rate that could be chosen what it reached, and for how many seeds it was."""
    for (kind, method), measured in results.items():
        for same_rate in zip(*(m.candidates for m in measured), strict=True):
            rate = same_rate[0].learning_rate
            yield (
                kind,
                method,
                f"{rate:g}",
                percent([c.accuracy for c in same_rate]),
                f"{fmean(c.log_loss.mean for c in same_rate):.3f}",
                f"{sum(m.rate == rate for m in measured)} of {len(measured)}",
            )


if __name__ == "__main__":
    typer.run(main)
