"""Few-shot samples of public data sets, and tables of what was measured on them.

The programs beside this one use it. A folder DATASETS has a folder for each set, with kshot.parquet
(columns split, seed, text_a, text_b, label), unlabeled.parquet and test.parquet; text_b is read by
tasks with two texts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from pet_pipeline import (
    Generation,
    Metrics,
    Run,
    Settings,
    UserError,
    annotate,
    encode,
    ensemble,
    evaluate,
    find_task,
    finetune,
    load_task,
    prepare,
    read_metrics,
    save_table,
    select,
)
from pet_pipeline.metrics import mean_and_sd
from pet_pipeline.stages.results import Inputs, Model

TASKS = {"ag_news": "agnews_text", "yelp5": "yelp_full"}  # elsewhere named like the set
WIDTH = 100  # of a table at least: a figure that wraps can be read, one that is cut cannot
SAMPLES = "samples"  # the folder of their tables in a program's output
HALVES = {"even": 0, "odd": 1}  # of the test rows


def task_of(name: str) -> str:
    """The folder of a set's task."""
    return f"patterns/{TASKS.get(name, name)}"


def check_samples(datasets: Path, sets: str, seeds: str) -> None:
    """Refuse what is not there before anything is run."""
    for name in sets.split(","):
        for file in ("kshot", "unlabeled", "test"):
            if not (datasets / name / f"{file}.parquet").exists():
                where = datasets / name / f"{file}.parquet"
                raise typer.BadParameter(f"{where}: no such file; a set is a folder of {datasets}")
        samples = datasets / name / "kshot.parquet"
        columns = pq.read_schema(samples).names
        if missing := {"split", "seed", "text_a", "label"} - {*columns}:
            raise typer.BadParameter(f"{samples}: no column {', '.join(sorted(missing))}")
        table = pq.read_table(samples, columns=["split", "seed"])
        drawn = table.filter(pc.equal(table["split"], "train"))
        known = {str(seed) for seed in drawn["seed"].to_pylist()}
        for seed in seeds.split(","):
            if seed not in known:
                raise typer.BadParameter(f"{samples}: no rows of seed {seed!r}; {sorted(known)}")


def refuse_overrides(override: Iterable[str] | None, options: dict[str, str]) -> None:
    """Raise `UserError` about settings that a program itself decides; options: by setting."""
    for text in override or ():
        name = text.partition("=")[0].strip()
        if name in options:
            raise UserError(f"--set {name}: this program sets it; use {options[name]}")


def sample_of(
    folder: Path,
    seed: int,
    output: Path,
    *,
    per_label: int = 0,
    test_rows: int = 0,
    half: str = "",
    pool_rows: int = 0,
) -> dict[str, Any]:
    """The settings of one sample of a set: its task and its tables, which are written.

    per_label: so many labelled rows of each label, the first ones; test_rows: so many random ones;
    half: "even" or "odd" test rows; pool_rows: of the pool; 0 and "" are all
    """
    name = folder.name
    task = task_of(name)
    labelled = labelled_rows(folder, seed)
    if per_label:
        labelled = first_rows(labelled, per_label)
    test = pq.read_table(folder / "test.parquet")
    if half:
        test = test.take(pa.array(range(HALVES[half], test.num_rows, 2)))
    if 0 < test_rows < test.num_rows:
        numbers = np.random.default_rng(0).permutation(test.num_rows)[:test_rows]
        test = test.take(pa.array(np.sort(numbers)))
    samples = output / SAMPLES
    sample = f"{name}-{seed}-{per_label}" if per_label else f"{name}-{seed}"
    measured = f"{name}-test-{half or 'all'}-{test.num_rows}"
    return {
        "task": task,
        "data": {
            "labelled": save_table(labelled, samples, sample),
            "pool": str(folder / "unlabeled.parquet"),
            "test": save_table(test, samples, measured),
            "columns": dict(zip(load_task(task).columns, ("text_a", "text_b"), strict=False)),
            "pool_rows": pool_rows,
        },
    }


def labelled_rows(folder: Path, seed: int) -> pa.Table:
    """The labelled rows that a set's sample has."""
    samples = pq.read_table(folder / "kshot.parquet")
    drawn = pc.and_(pc.equal(samples["seed"], seed), pc.equal(samples["split"], "train"))
    return samples.filter(drawn).drop_columns(["split", "seed"])


def first_rows(labelled: pa.Table, per_label: int) -> pa.Table:
    """The first rows of each label."""
    counts: Counter[str] = Counter()
    first = []
    for n, label in enumerate(labelled["label"].to_pylist()):
        counts[label] += 1
        if counts[label] <= per_label:
            first.append(n)
    return labelled.take(pa.array(first, pa.int64()))


@dataclass(frozen=True)
class Evaluated:
    """Models that were tuned, and what they and their ensemble reach; no metrics in a plan."""

    inputs: Inputs
    models: list[Model]
    metrics: Metrics | None

    def accuracy(self, kind: str) -> float:
        """Of the mean PVP, "mean", or of the "ensemble"."""
        system = self.metrics.system(kind) if self.metrics else None
        assert system is not None
        return system.accuracy


def until_evaluate(run: Run, settings: Settings) -> Evaluated:
    """PET without the classifier: models, their ensemble, and what they reach."""
    task = find_task(run, settings)
    inputs = encode(run, task, prepare(run, task, settings), settings)
    inputs = select(run, task, inputs, settings)
    models = finetune(run, task, inputs, settings)
    scores = annotate(run, task, models, inputs, settings)
    soft = ensemble(run, task, scores, inputs, settings)
    metrics = evaluate(run, task, [Generation(0, scores, soft, {})], inputs, settings)
    return Evaluated(inputs, models, read_metrics(metrics) if metrics and not run.plan else None)


def pattern_names(task: str, patterns: str) -> list[str]:
    """The names that an option means: those it lists, or the first default ones of a task."""
    if not patterns.isdecimal():
        return patterns.split(",")
    names = [pattern.name for pattern in load_task(task).patterns]
    return names[: int(patterns)] if int(patterns) else names


def percent(accuracies: Sequence[float]) -> str:
    """Mean and sample standard deviation, in percent.

    >>> percent([0.5, 0.75, 1.0])
    '75.0 ± 25.0'
    """
    return "{:.1f} ± {:.1f}".format(*mean_and_sd([100 * value for value in accuracies]))


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    names: int = 1,
    markdown: bool = False,
) -> None:
    """Print a table whose first columns are names, and the others figures."""
    if markdown:
        cells = [[" ".join(cell.split()) for cell in row] for row in (header, *rows)]
        rule = ["---" if n < names else "---:" for n in range(len(header))]
        text = "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))
        typer.echo(f"{title}:\n\n{text}\n")
        return
    table = Table(title=title, title_justify="left", box=None)
    for n, column in enumerate(header):
        side = "left" if n < names else "right"
        table.add_column(column, justify=side, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    Console(width=max(WIDTH, Console().width)).print(table)
