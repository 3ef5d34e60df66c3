"""What `pet label-next` is worth: rows it chooses against random ones, labelled by gold labels.

    python pipelines/label_next_simulation.py DATASETS --output runs/label-next

DATASETS is as few_shot.py reads it; in unlabeled.parquet the column gold stands for the person.
Each set and seed starts with a few rows per label; in each round either arm gets as many rows of
the pool, and everything is tuned again. Measured is the ensemble, without a classifier. Run the
same command again to resume after a stop.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from few_shot import pattern_names, sample_of, until_evaluate
from rich.console import Console
from rich.table import Table

from pet_pipeline import (
    Run,
    Settings,
    UserError,
    find_task,
    load_task,
    read_settings,
    save_table,
)
from pet_pipeline.duplicates import is_known, known_texts, text_hashes
from pet_pipeline.files import write_text
from pet_pipeline.metrics import mean_and_sd
from pet_pipeline.seeds import seed_from
from pet_pipeline.settings import write_settings
from pet_pipeline.stages.choose_rows import choose_rows
from pet_pipeline.stages.merge_labels import merge_labels
from pet_pipeline.tables import shard_files

# Cheaper: the temperature, at which disagreement is measured, then goes by agreement alone.
CHEAP = ["ensemble.temperature_folds=0"]

Accuracies = dict[str, list[float]]  # by arm, after each round; the first before any
Choose = Callable[[Run, Settings, int, int], pa.Table]  # rows and round: rows with an id


def main(
    datasets: Path,
    output: Path = Path("runs/label-next"),
    sets: str = "ag_news,trec",
    seeds: str = "13,21,42",
    rounds: int = 3,
    rows: Annotated[int, typer.Option(help="Rows labelled in each round.")] = 16,
    start: Annotated[int, typer.Option(help="Rows per label before the first round.")] = 4,
    patterns: Annotated[int, typer.Option(help="Patterns of each task, by name.")] = 3,
    pool_rows: int = 1000,
    test_rows: int = 600,
    override: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Run every set, seed, arm and round, then print a table for each set."""
    try:
        for name in sets.split(","):
            results = []
            for seed in map(int, seeds.split(",")):
                root = output / f"{name}-{seed}"
                sample = sample_of(
                    datasets / name,
                    seed,
                    output,
                    per_label=start,
                    test_rows=test_rows,
                    pool_rows=pool_rows,
                )
                values = sample | {
                    "patterns": pattern_names(sample["task"], str(patterns)),
                    "output": str(root / "start"),
                    "data": sample["data"] | {"seed": seed},
                    "distill": {"enabled": False},
                    "baseline": {"enabled": False},
                }
                settings = read_settings(None, [*CHEAP, *(override or [])], over=values)
                refuse_other_settings(root, settings, rows)
                gold = gold_of(datasets / name)
                results.append(simulate(settings, root, gold, rows=rows, rounds=rounds))
            print_table(name, results, rows)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def refuse_other_settings(root: Path, settings: Settings, rows: int) -> None:
    """Refuse to resume with rounds that were made with other settings."""
    text = f"# {rows} rows per round\n{write_settings(settings)}"
    file = root / "settings.toml"
    if file.exists() and file.read_text("utf-8") != text:
        raise UserError(f"{root}: its rounds have other settings, {file}; name another --output")
    root.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def gold_of(folder: Path) -> dict[str, str]:
    """The label of each row of the pool, by its id."""
    table = pq.read_table(folder / "unlabeled.parquet", columns=["id", "gold"])
    return dict(zip(map(str, table["id"].to_pylist()), table["gold"].to_pylist(), strict=True))


def simulate(
    settings: Settings, root: Path, gold: dict[str, str], *, rows: int, rounds: int
) -> Accuracies:
    """The accuracy of the ensemble in each arm before and after each round."""
    first = measured(settings)
    return {
        arm: [first, *run_arm(settings, root, gold, arm=arm, rows=rows, rounds=rounds)]
        for arm in ARMS
    }


def run_arm(
    settings: Settings, root: Path, gold: dict[str, str], *, arm: str, rows: int, rounds: int
) -> list[float]:
    """The accuracy after each round of an arm, which goes on from the common start.

    A round is a table of labelled rows, which is merged as a person's is, and a result.
    """
    folder = root / arm
    if not folder.exists():
        beside = root / f".{arm}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(settings.output, beside)
        beside.rename(folder)
    settings = settings.model_copy(update={"output": str(folder)})
    accuracies = []
    for number in range(1, rounds + 1):
        name = f"{arm}-{number}"
        result = root / f"{name}.json"
        if not result.exists():
            filled = root / f"{name}.parquet"
            if not filled.exists():
                chosen = ARMS[arm](plan(settings), settings, rows, number)
                labels = [gold[str(n)] for n in chosen["id"].to_pylist()]
                columns = ["id", *load_task(settings.task).columns]
                save_table(chosen.select(columns).append_column("label", [labels]), root, name)
            planned = plan(settings)
            merge_labels(planned, find_task(planned, settings), settings, filled)
            write_text(result, json.dumps({"accuracy": measured(settings)}))
        accuracies.append(json.loads(result.read_text("utf-8"))["accuracy"])
    return accuracies


def choose_next(run: Run, settings: Settings, rows: int, number: int) -> pa.Table:
    """What `pet label-next` chooses."""
    return choose_rows(run, settings, n=rows)


def choose_random(run: Run, settings: Settings, rows: int, number: int) -> pa.Table:
    """Random rows of the pool whose texts are not labelled."""
    columns = list(load_task(settings.task).columns)
    shards = shard_files(run.root / "prepare" / "pool")
    pool = pa.concat_tables(pq.read_table(file) for file in shards)
    labelled = pq.read_table(run.root / "prepare" / "labelled" / "table.parquet")
    hashes = text_hashes(pool, columns)
    free = np.unique(hashes, return_index=True)[1]  # one row of each text
    free = free[~is_known(hashes[free], known_texts([text_hashes(labelled, columns)]))]
    rng = np.random.default_rng(seed_from("random rows", settings.data.seed, number))
    return pool.take(pa.array(rng.choice(np.sort(free), rows, replace=False)))


ARMS: dict[str, Choose] = {"label-next": choose_next, "random": choose_random}


def plan(settings: Settings) -> Run:
    """A plan of the pipeline: what `choose_rows` and `merge_labels` find results by."""
    run = Run.open(settings, plan=True)
    until_evaluate(run, settings)
    return run


def measured(settings: Settings) -> float:
    """The ensemble's accuracy on the test rows, after a run of the pipeline."""
    with Run.open(settings) as run:
        done = until_evaluate(run, settings)
    return done.accuracy("ensemble")


def print_table(name: str, results: list[Accuracies], rows: int) -> None:
    """Mean and sample standard deviation over the seeds in percent; differences are paired."""
    table = Table("new rows", *ARMS, "difference", "each seed", box=None)
    table.title, table.title_justify = f"{name}, accuracy of the ensemble", "left"
    one, other = ARMS
    for number in range(len(results[0][one])):
        percent = {arm: [100 * result[arm][number] for result in results] for arm in ARMS}
        apart = [a - b for a, b in zip(percent[one], percent[other], strict=True)]
        cells = ["{:.1f} ± {:.1f}".format(*mean_and_sd(percent[arm])) for arm in ARMS]
        difference = "{:+.1f} ± {:.1f}".format(*mean_and_sd(apart))
        each = "  ".join(f"{value:+.1f}" for value in apart)
        table.add_row(str(number * rows), *cells, difference, each)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
