"""All ways of tuning a masked language model on one task, in one table: accuracy and cost.

    python pipelines/soft_prompts.py DATASETS --output runs/soft-prompts

DATASETS is as few_shot.py reads it. Each set, seed and method is a run of its own, up to the
ensemble: nothing is distilled. Run the same command again to resume after a stop.

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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

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

from pet_pipeline import (
    Run,
    Settings,
    UserError,
    encode,
    find_task,
    prepare,
    read_settings,
)
from pet_pipeline.compute import Compute
from pet_pipeline.methods import METHODS
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.demonstrate import demonstrate
from pet_pipeline.stages.finetune import FineTune, fine_tunes
from pet_pipeline.stages.results import MODEL, Model
from pet_pipeline.units import Info, Unit, read_record

POOL_ROWS = 64  # nothing is distilled; the stages need a few rows
NOT_DISTILLED = {
    "ensemble": {"temperature_folds": 0},
    "distill": {"enabled": False},
    "baseline": {"enabled": False},
}
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
                sample = sample_of(
                    datasets / name, int(seed), output, test_rows=test_rows, pool_rows=POOL_ROWS
                )
                sample |= NOT_DISTILLED
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


def run_method(settings: Settings) -> Measured:
    """Tune the patterns with one method, and measure them on the test rows."""
    with Run.open(settings) as run:
        done = until_evaluate(run, settings)
    return Measured(
        single=done.accuracy("mean"),
        ensemble=done.accuracy("ensemble"),
        seconds=fmean(seconds_of(model) for model in done.models),
        saved_bytes=fmean(saved_bytes(model) for model in done.models),
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


if __name__ == "__main__":
    typer.run(main)
