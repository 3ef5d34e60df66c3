"""Metric and calibration error on public data sets, over few-shot samples.

    python pipelines/few_shot_table.py DATASETS --output runs/few-shot
    python pipelines/few_shot_table.py DATASETS --systems pipelines/systems.toml

DATASETS is as few_shot.py reads it. Each set and sample is a run of its own, pet_full with the
default settings; run the same command again to resume after a stop.

--systems compares settings: a TOML file with a line for each system, its name and what it sets, as
--set has it. The runs of the later systems begin with the first one's results, so that only what
depends on the difference is done again.
"""

import os
import shutil
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from few_shot import SAMPLES, check_samples, percent, print_table, refuse_overrides, sample_of
from pet_full import pet_full

from pet_pipeline import Run, Settings, UserError, read_settings
from pet_pipeline.stages.evaluate import System
from pet_pipeline.units import read_record

KINDS = {
    "mean": "mean PVP",
    "ensemble": "ensemble",
    "classifier": "classifier",
    "baseline": "baseline",
}
EXAMPLE = 'mine = ["finetune.steps=40", "finetune.seeds=[1, 2]"]'
OPTIONS = {
    "output": "--output",
    "task": "--sets",
    "data.labelled": "--sets",
    "data.pool": "--sets",
    "data.test": "--sets",
    "data.columns": "--sets",
    "data.pool_rows": "--pool-rows",
}
NOT_COPIED = shutil.ignore_patterns("log.jsonl", ".lock", "report")


@dataclass(frozen=True)
class Measured:
    """What one run measured, and what it took."""

    systems: dict[str, System]  # by kind: the mean PVP, the ensemble, the classifier, the baseline
    seconds: float  # of all units, as if one came after the other


Results = dict[str, dict[str, list[Measured]]]  # by system, and by set


def main(
    datasets: Path,
    output: Path = Path("runs/few-shot"),
    sets: str = "ag_news,sst2,trec",
    seeds: str = "13,21,42",
    pool_rows: Annotated[int, typer.Option(min=0, help="Rows of the pool; 0 is all.")] = 3000,
    per_label: Annotated[
        str, typer.Option(help="Labelled rows per label, as 5 or banking77=5,trec=8; 0 is all.")
    ] = "0",
    test_rows: Annotated[
        str, typer.Option(help="Rows to measure on: all, even, odd, or how many.")
    ] = "all",
    systems: Annotated[
        Path | None, typer.Option(help="TOML file with the settings of each system.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    override: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> None:
    """Run every set, seed and system, then print a table for each set, and one of the means."""
    check_samples(datasets, sets, seeds)
    counts, measured_on = counts_of(per_label, sets), rows_of(test_rows)
    try:
        compared = read_systems(systems) if systems else {"": []}
        for changes in (override, *compared.values()):
            refuse_overrides(changes, OPTIONS)
        results: Results = defaultdict(lambda: defaultdict(list))
        for name in sets.split(","):
            for seed in seeds.split(","):
                sample = sample_of(
                    datasets / name,
                    int(seed),
                    output,
                    per_label=counts[name],
                    pool_rows=pool_rows,
                    **measured_on,
                )
                folders = [output / system / f"{name}-{seed}" for system in compared]
                for folder, (system, changes) in zip(folders, compared.items(), strict=True):
                    own = sample | {"output": str(folder)}
                    settings = read_settings(None, [*(override or []), *changes], over=own)
                    copy_results(folders[0], folder)
                    results[system][name].append(run_one(settings))
            print_set(name, results, markdown=markdown)
        if len(compared) > 1:
            print_means(results, markdown=markdown)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def counts_of(per_label: str, sets: str) -> dict[str, int]:
    """The labelled rows per label of each set, 0 for all."""
    counts = dict.fromkeys(sets.split(","), 0)
    for part in per_label.split(","):
        name, _, number = part.rpartition("=")
        if not number.isdecimal() or (name and name not in counts):
            raise typer.BadParameter(f"--per-label {part!r}: a number, or SET=NUMBER, is needed")
        counts |= {name: int(number)} if name else dict.fromkeys(counts, int(number))
    return counts


def rows_of(test_rows: str) -> dict[str, Any]:
    """The rows to measure on, as `sample_of` takes them."""
    if test_rows.isdecimal():
        return {"test_rows": int(test_rows)}
    if test_rows not in ("all", "even", "odd"):
        raise typer.BadParameter(f"--test-rows {test_rows!r}: all, even, odd or a number is needed")
    return {"half": test_rows.removeprefix("all")}


def read_systems(file: Path) -> dict[str, list[str]]:
    """The settings of each system, by its name; raises `UserError` if a file has none."""
    try:
        systems = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--systems {file}: {error}") from None
    if not systems:
        raise UserError(f"--systems {file}: is empty; write lines such as {EXAMPLE}")
    for name, changes in systems.items():
        if not isinstance(changes, list) or not all(isinstance(text, str) for text in changes):
            raise UserError(f"--systems {file}: {name}: a list of settings is needed: {EXAMPLE}")
        if Path(name).name != name or name in ("..", SAMPLES):
            raise UserError(f"--systems {file}: {name!r} cannot be the name of a folder of runs")
        read_settings(None, changes)
    return systems


def copy_results(first: Path, folder: Path) -> None:
    """Begin a run with the results of another; files are linked, because none is ever changed."""
    if folder.exists() or folder == first:
        return
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(first, beside, ignore=NOT_COPIED, copy_function=_link)
    beside.rename(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)


def run_one(settings: Settings) -> Measured:
    """What a run with these settings measures."""
    with Run.open(settings) as run:
        metrics = pet_full(settings, run)
        records = [read_record(unit.dir) for unit in run.units]
    systems = metrics.last_systems() if metrics else []
    return Measured(
        systems={system.kind: system for system in systems},
        seconds=sum(record["seconds"] for record in records if record),
    )


def print_set(name: str, results: Results, *, markdown: bool) -> None:
    """Mean and sample standard deviation over the seeds; the metric in percent."""
    header = ("system", "", "metric", "each seed", "calibration error", "seconds")
    rows = [
        (
            system or "default",
            title,
            percent([s.value for s in found]),
            "  ".join(f"{100 * s.value:.1f}" for s in found),
            f"{fmean(s.calibration_error for s in found):.3f}",
            f"{fmean(m.seconds for m in by_set[name]):.0f}",
        )
        for system, by_set in results.items()
        for kind, title in KINDS.items()
        if (found := [m.systems[kind] for m in by_set[name] if kind in m.systems])
    ]
    print_table(name, header, rows, names=2, markdown=markdown)


def print_means(results: Results, *, markdown: bool) -> None:
    """For each system the mean of all sets, in percent, and how far it is from the first one's."""
    rows = []
    first = next(iter(results.values()))
    for system, by_set in results.items():
        cells = []
        for kind in KINDS:
            value, reference = mean_value(by_set, kind), mean_value(first, kind)
            if value is None or reference is None:
                cells.append("")
            elif by_set is first:
                cells.append(f"{value:.1f}")
            else:
                cells.append(f"{value:.1f} ({value - reference:+.1f})")
        seconds = fmean(m.seconds for measured in by_set.values() for m in measured)
        rows.append((system, *cells, f"{seconds:.0f}"))
    header = ("system", *KINDS.values(), "seconds")
    print_table("mean over the sets", header, rows, markdown=markdown)


def mean_value(by_set: Mapping[str, Iterable[Measured]], kind: str) -> float | None:
    """The mean of a kind of system over the sets' means, in percent; None if one has none."""
    values = [
        [m.systems[kind].value for m in measured if kind in m.systems]
        for measured in by_set.values()
    ]
    return 100 * fmean(map(fmean, values)) if all(values) else None


if __name__ == "__main__":
    typer.run(main)
