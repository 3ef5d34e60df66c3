"""Accuracy of PVPs, ensemble, classifier and baseline on public data sets, over few-shot samples.

    python pipelines/few_shot_table.py DATASETS --output runs/few-shot

DATASETS has a folder for each set with kshot.parquet (columns split, seed, text_a, label),
unlabeled.parquet and test.parquet. Each set and sample is a run of its own, pet_full with the
default settings; run the same command again to resume after a stop.
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

from pet_pipeline import Run, read_settings, save_table
from pet_pipeline.metrics import mean_and_sd

TASKS = {"ag_news": "agnews_text", "sst2": "sst2", "trec": "trec", "tweet_emotion": "tweet_emotion"}
COLUMN = {"sst2": "sentence"}  # of the task; elsewhere "text"
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
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name in sets.split(","):
        for seed in seeds.split(","):
            for system, value in run_one(datasets / name, int(seed), output, pool_rows, override):
                results[name][system].append(value)
        print_table(name, results[name])


def run_one(
    folder: Path, seed: int, output: Path, pool_rows: int, override: list[str] | None
) -> list[tuple[str, float]]:
    """The metric of each system of one run, by the name it has in the table."""
    samples = pq.read_table(folder / "kshot.parquet")
    chosen = pc.and_(pc.equal(samples["seed"], seed), pc.equal(samples["split"], "train"))
    labelled = samples.filter(chosen).select(["id", "text_a", "label"])
    root = output / f"{folder.name}-{seed}"
    values = {
        "task": f"patterns/{TASKS[folder.name]}",
        "output": str(root),
        "data": {
            "labelled": save_table(labelled, output / "samples", f"{folder.name}-{seed}"),
            "pool": str(folder / "unlabeled.parquet"),
            "test": str(folder / "test.parquet"),
            "columns": {COLUMN.get(folder.name, "text"): "text_a"},
            "pool_rows": pool_rows,
        },
    }
    settings = read_settings(None, override or [], over=values)
    with Run.open(settings) as run:
        metrics = pet_full(settings, run)
    systems = metrics.systems if metrics else []
    return [(KINDS.get(s.kind, s.name), s.value) for s in systems]


def print_table(name: str, systems: dict[str, list[float]]) -> None:
    """Mean and sample standard deviation over the seeds, in percent."""
    table = Table("system", "mean", "sd", "each seed", title=name, title_justify="left", box=None)
    for system, values in systems.items():
        percent = [100 * value for value in values]
        mean, sd = mean_and_sd(percent)
        table.add_row(system, f"{mean:.1f}", f"{sd:.1f}", "  ".join(f"{v:.1f}" for v in percent))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
