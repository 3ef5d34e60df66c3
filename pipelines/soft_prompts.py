"""All ways of tuning a masked language model on one task, in one table: accuracy and cost.

    python pipelines/soft_prompts.py DATASETS --output runs/soft-prompts

DATASETS has a folder for each set with kshot.parquet (columns split, seed, text_a, text_b,
label), unlabeled.parquet and test.parquet. Each set, seed and method is a run of its own, up to
the ensemble: nothing is distilled. Run the same command again to resume after a stop.

The columns of the table:

    single PVPs, ensemble   accuracy in percent, mean ± sample standard deviation over the seeds
    trained parameters      of one PVP; with full, all but the frozen word embeddings
    s per fine-tune         mean of all PVPs as the runs make them: loading, tuning, saving, with
                            as many others at the same time as machine.jobs says
    ms per update, peak MiB of the first updates of the first pattern and seed, in a process of
                            their own while the run waits; memory is that of the whole process
                            with its libraries, or on a GPU what torch allocates there
    saved KiB               mean size of a PVP's folder
"""

import multiprocessing
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from pet_pipeline import (
    Generation,
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
    read_settings,
    save_table,
)
from pet_pipeline.compute import Compute
from pet_pipeline.methods import METHODS
from pet_pipeline.metrics import mean_and_sd
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.demonstrate import demonstrate
from pet_pipeline.stages.finetune import FineTune, fine_tunes
from pet_pipeline.stages.results import MODEL, Model
from pet_pipeline.units import Info, Unit, read_record

TASKS = {"ag_news": "agnews_text", "yelp5": "yelp_full"}  # elsewhere named like the set
POOL_ROWS = 64  # nothing is distilled; the stages need a few rows
WIDTH = 100  # of a table at least: a figure that wraps can be read, one that is cut cannot
MEASURED_UPDATES = 20  # memory and time of an update do not change after the first ones
OPTIONS = {"finetune.method": "--methods", "patterns": "--patterns", "output": "--output"}
HEADER = (
    "method",
    "single\nPVPs",
    "\nensemble",
    "trained\nparameters",
    "s per\nfine-tune",
    "ms per\nupdate",
    "peak\nMiB",
    "saved\nKiB",
)


@dataclass(frozen=True)
class Measured:
    """What one method reached on one sample, and what its PVPs took."""

    single: float  # accuracy, the mean of the PVPs
    ensemble: float  # accuracy
    seconds: float  # of a fine-tune
    saved_bytes: float


@dataclass(frozen=True)
class Cost:
    """What a method takes, whatever the sample."""

    trainable: int
    update_seconds: float
    peak_mib: float


def main(
    datasets: Path,
    output: Path = Path("runs/soft-prompts"),
    sets: str = "sst2,trec",
    seeds: str = "13,21,42",
    methods: str = ",".join(METHODS),
    patterns: Annotated[
        str, typer.Option(help="Names of patterns, or how many of each task's, by name; 0 is all.")
    ] = "3",
    test_rows: Annotated[int, typer.Option(min=0, help="Rows to measure on; 0 is all.")] = 1000,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    override: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> None:
    """Run every set, seed and method, then print a table for each set."""
    check_samples(datasets, sets, seeds)
    for method in methods.split(","):
        if method not in METHODS:
            raise typer.BadParameter(f"{method!r}: no such method; there are {', '.join(METHODS)}")
    try:
        refuse_overrides(override, OPTIONS)
        for name in sets.split(","):
            results: dict[str, list[Measured]] = defaultdict(list)
            costs: dict[str, Cost] = {}
            for seed in seeds.split(","):
                sample = sample_of(datasets / name, int(seed), output, test_rows)
                sample["patterns"] = pattern_names(sample["task"], patterns)
                for method in methods.split(","):
                    fixed = {
                        "output": str(output / f"{name}-{seed}" / method),
                        "finetune": {"method": method},
                    }
                    settings = read_settings(None, override or [], over=sample | fixed)
                    results[method].append(run_method(settings))
                    if method not in costs:
                        costs[method] = cost_of(settings)
            title, rows = f"{name}, accuracy in percent", lines(results, costs)
            print_table(title, HEADER, rows, markdown=markdown)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


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
    """Raise `UserError` about settings that the program itself decides; options: by setting."""
    for text in override or ():
        name = text.partition("=")[0].strip()
        if name in options:
            raise UserError(f"--set {name}: this program sets it; use {options[name]}")


def sample_of(folder: Path, seed: int, output: Path, test_rows: int) -> dict[str, Any]:
    """The settings that all methods share on one sample of a set: its task and its tables."""
    name, samples = folder.name, pq.read_table(folder / "kshot.parquet")
    task = f"patterns/{TASKS.get(name, name)}"
    drawn = pc.and_(pc.equal(samples["seed"], seed), pc.equal(samples["split"], "train"))
    labelled = samples.filter(drawn).drop_columns(["split", "seed"])
    test = pq.read_table(folder / "test.parquet")
    if 0 < test_rows < test.num_rows:
        numbers = np.random.default_rng(0).permutation(test.num_rows)[:test_rows]
        test = test.take(pa.array(np.sort(numbers)))
    return {
        "task": task,
        "data": {
            "labelled": save_table(labelled, output / "samples", f"{name}-{seed}"),
            "pool": str(folder / "unlabeled.parquet"),
            "test": save_table(test, output / "samples", f"{name}-test-{test.num_rows}"),
            "columns": dict(zip(load_task(task).columns, ("text_a", "text_b"), strict=False)),
            "pool_rows": POOL_ROWS,
        },
        "ensemble": {"temperature_folds": 0},
        "distill": {"enabled": False},
        "baseline": {"enabled": False},
    }


def pattern_names(task: str, patterns: str) -> list[str]:
    """The names that the option means: those it lists, or the first default ones of a task."""
    if not patterns.isdecimal():
        return patterns.split(",")
    names = [pattern.name for pattern in load_task(task).patterns]
    return names[: int(patterns)] if int(patterns) else names


def run_method(settings: Settings) -> Measured:
    """Tune the patterns with one method, and measure them on the test rows."""
    with Run.open(settings) as run:
        task = find_task(run, settings)
        inputs = encode(run, task, prepare(run, task, settings), settings)
        models = finetune(run, task, inputs, settings)
        scores = annotate(run, task, models, inputs, settings)
        soft = ensemble(run, task, scores, inputs, settings)
        measured = evaluate(run, task, [Generation(0, scores, soft, {})], inputs, settings)
    assert measured is not None
    metrics = read_metrics(measured)
    single, together = metrics.system("mean"), metrics.system("ensemble")
    assert single is not None
    assert together is not None
    return Measured(
        single=single.accuracy,
        ensemble=together.accuracy,
        seconds=fmean(seconds_of(model) for model in models),
        saved_bytes=fmean(saved_bytes(model) for model in models),
    )


def cost_of(settings: Settings) -> Cost:
    """What the first fine-tune of a run takes."""
    with Run.open(settings) as run:
        task = find_task(run, settings)
        inputs = encode(run, task, prepare(run, task, settings), settings)
        units = fine_tunes(run, task, inputs, settings, generation=0, added=None)
        first = next(iter(units.values()))
        info = run.do("cost", {"updates": FirstUpdates(first, MEASURED_UPDATES)})["updates"].info
    return Cost(info["trainable"], info["seconds"] / info["updates"], info["peak_mib"])


@dataclass(frozen=True)
class FirstUpdates(Unit):
    """Time and memory of a fine-tune's first updates, in a process of its own."""

    real: FineTune
    updates: int

    def work(self, out: Path, compute: Compute) -> Info:
        """Write nothing; the figures are the info."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            return alone.submit(first_updates, self.real, self.updates, compute).result()


def first_updates(real: FineTune, updates: int, compute: Compute) -> Info:
    """What a fine-tune's first updates take in this process, which does nothing else."""
    if real.tuning is None:
        raise UserError("finetune.steps: 0 tunes nothing, so there is nothing to compare")
    steps = min(updates, real.tuning.steps)
    real = replace(real, tuning=replace(real.tuning, steps=steps))
    compute = compute.at(real.precision)
    rows, gold = real.training_rows()
    pvp, own = real.load(compute), range(real.n_labelled)
    ready = demonstrate(pvp, real.examples, rows, own, draws=1, compute=compute)
    seed = seed_from("finetune", real.pattern.name, real.seed, real.generation)
    start = time.perf_counter()
    real.tune(pvp, ready, gold, seed, "first updates")
    seconds = time.perf_counter() - start
    trained = [p.numel() for p in pvp.lm.model.parameters() if p.requires_grad]
    return {
        "updates": steps,
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "trainable": sum(trained),
    }


def peak_mib() -> float:
    """Most memory that this process has had; what torch allocated on the GPU if it uses one."""
    import torch  # takes seconds, which --help need not wait

    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak / 2**20
    status = Path("/proc/self/status")  # there getrusage counts the parent before exec, too
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident / (2**20 if sys.platform == "darwin" else 2**10)


def seconds_of(model: Model) -> float:
    """How long a fine-tune took when it was done."""
    record = read_record(model.result.dir)
    assert record is not None
    return float(record["seconds"])


def saved_bytes(model: Model) -> int:
    """The size of the files that a PVP is saved in."""
    files = (model.result.dir / MODEL).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def lines(results: dict[str, list[Measured]], costs: dict[str, Cost]) -> list[tuple[str, ...]]:
    """A line of the table for each method."""
    return [
        (
            method,
            percent([m.single for m in measured]),
            percent([m.ensemble for m in measured]),
            f"{costs[method].trainable:,}",
            f"{fmean(m.seconds for m in measured):.1f}",
            f"{1000 * costs[method].update_seconds:.0f}",
            f"{costs[method].peak_mib:,.0f}",
            f"{fmean(m.saved_bytes for m in measured) / 2**10:,.1f}",
        )
        for method, measured in results.items()
    ]


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


if __name__ == "__main__":
    typer.run(main)
