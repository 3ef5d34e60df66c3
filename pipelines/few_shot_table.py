"""Metric and calibration error on public data sets, over few-shot samples.

    python pipelines/few_shot_table.py DATASETS --output runs/few-shot

DATASETS has a folder for each set with kshot.parquet (columns split, seed, text_a, text_b,
label), unlabeled.parquet and test.parquet; text_b is read by tasks with two texts. Each set and
sample is a run of its own, pet_full with the default settings; run the same command again to
resume after a stop.
"""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from pet_full import pet_full
from rich.console import Console
from rich.table import Table

from pet_pipeline import Run, load_task, read_settings, save_table
from pet_pipeline.metrics import mean_and_sd
from pet_pipeline.stages.evaluate import System

TASKS = {
    "ag_news": "agnews_text",
    "banking77": "banking77",
    "cb": "cb",
    "rte": "rte",
    "snli": "snli",
    "sst2": "sst2",
    "trec": "trec",
    "tweet_emotion": "tweet_emotion",
    "yelp5": "yelp_full",
}
KINDS = {
    "mean": "mean PVP",
    "ensemble": "ensemble",
    "classifier": "classifier",
    "baseline": "baseline",
}


def main(
    datasets: Path,
    output: Path = Path("runs/few-shot"),
    sets: str = "ag_news,sst2,trec",
    seeds: str = "13,21,42",
    pool_rows: int = 3000,
    override: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Run every set and seed, then print the table."""
    if unknown := [name for name in sets.split(",") if name not in TASKS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: not one of {', '.join(TASKS)}")
    for name in sets.split(","):
        results: dict[str, list[System]] = defaultdict(list)
        for seed in seeds.split(","):
            for system in run_one(datasets / name, int(seed), output, pool_rows, override):
                results[KINDS.get(system.kind, system.name)].append(system)
        print_table(name, results)


def run_one(
    folder: Path, seed: int, output: Path, pool_rows: int, override: list[str] | None
) -> list[System]:
    """What one run measured of each system."""
    samples = pq.read_table(folder / "kshot.parquet")
    chosen = pc.and_(pc.equal(samples["seed"], seed), pc.equal(samples["split"], "train"))
    labelled = samples.filter(chosen).drop_columns(["split", "seed"])
    task = f"patterns/{TASKS[folder.name]}"
    values = {
        "task": task,
        "output": str(output / f"{folder.name}-{seed}"),
        "data": {
            "labelled": save_table(labelled, output / "samples", f"{folder.name}-{seed}"),
            "pool": str(folder / "unlabeled.parquet"),
            "test": str(folder / "test.parquet"),
            "columns": dict(zip(load_task(task).columns, ("text_a", "text_b"), strict=False)),
            "pool_rows": pool_rows,
        },
    }
    settings = read_settings(None, override or [], over=values)
    with Run.open(settings) as run:
        metrics = pet_full(settings, run)
    return metrics.last_systems() if metrics else []


def print_table(name: str, results: dict[str, list[System]]) -> None:
    """Mean and sample standard deviation over the seeds; the metric in percent."""
    columns = ("system", "mean", "sd", "each seed", "calibration error", "sd")
    table = Table(*columns, title=name, title_justify="left", box=None)
    for system, measured in results.items():
        percent = [100 * s.value for s in measured]
        mean, sd = mean_and_sd(percent)
        error, error_sd = mean_and_sd([s.calibration_error for s in measured])
        each = "  ".join(f"{value:.1f}" for value in percent)
        table.add_row(system, f"{mean:.1f}", f"{sd:.1f}", each, f"{error:.3f}", f"{error_sd:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
