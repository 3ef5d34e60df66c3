"""The LM-BFF recipe: manual and found templates, with and without demonstrations, over samples.

    python pipelines/lm_bff.py DATASETS --output runs/lm-bff

DATASETS has a folder for each set with kshot.parquet (columns split, seed, text_a, text_b, label;
16 rows per label for training and as many for development), unlabeled.parquet and test.parquet.
The table has a row for each system and a column for each set: mean (standard deviation) over the
samples, in percent. A single pattern is chosen on the development rows. Run the same command
again to resume after a stop; each system of each sample is a run of its own.
"""

from collections import defaultdict
from pathlib import Path
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
    distill,
    encode,
    ensemble,
    evaluate,
    find_patterns,
    find_task,
    finetune,
    prepare,
    read_metrics,
    read_settings,
    save_table,
)
from pet_pipeline.metrics import mean_and_sd
from pet_pipeline.stages.results import SCORES, TABLE
from pet_pipeline.tables import Floats, labels_of, read_scores

TASKS = {"ag_news": "agnews_text"}  # where the task's folder has another name than the set's
PAIR = {"premise": "text_a", "hypothesis": "text_b"}
COLUMNS = {"sst2": {"sentence": "text_a"}, "snli": PAIR, "rte": PAIR, "cb": PAIR}
SYSTEMS = {
    "zero-shot": "prompt, zero-shot",
    "in-context": "prompt and demonstrations, zero steps",
    "manual": "prompt-based FT (manual)",
    "manual-demos": "  + demonstrations",
    "auto": "prompt-based FT (auto)",
    "auto-demos": "  + demonstrations",
}
BOTH = (("manual", "auto"), ("manual-demos", "auto"), ("manual-demos", "auto-demos"))
POOL_ROWS = 64  # the recipe has no pool; the stages need a few rows of one

Scored = dict[str, dict[str, Floats]]  # by table, and there by pattern: (rows, labels)
Values = dict[tuple[str, str], float]  # by system, and by what was made of its patterns


def main(
    datasets: Path,
    output: Path = Path("runs/lm-bff"),
    sets: str = "sst2,trec,snli",
    seeds: str = "13,21,42,87,100",
    systems: str = ",".join(SYSTEMS),
    test_rows: Annotated[int, typer.Option(help="Rows of each test table; 0 is all.")] = 0,
    override: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Run every system on every sample of every set, then print the table."""
    check(datasets, sets, seeds, systems)
    results: dict[str, list[Values]] = defaultdict(list)
    try:
        for name in sets.split(","):
            for seed in seeds.split(","):
                sample = sample_of(datasets / name, int(seed), output, test_rows)
                root = output / f"{name}-{seed}"
                results[name].append(run_sample(sample, root, systems.split(","), override))
            print_table(results)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def check(datasets: Path, sets: str, seeds: str, systems: str) -> None:
    """Refuse what is not there before anything is run."""
    for name in systems.split(","):
        if name not in SYSTEMS:
            raise typer.BadParameter(f"{name!r}: no such system; there are {', '.join(SYSTEMS)}")
    for name in sets.split(","):
        file = datasets / name / "kshot.parquet"
        if not file.exists():
            raise typer.BadParameter(f"{file}: no such file; a set is a folder of {datasets}")
        known = {str(seed) for seed in pq.read_table(file, columns=["seed"])["seed"].to_pylist()}
        for seed in seeds.split(","):
            if seed not in known:
                raise typer.BadParameter(f"{file}: no rows of seed {seed!r}; {sorted(known)}")


def sample_of(folder: Path, seed: int, output: Path, test_rows: int) -> dict[str, Any]:
    """The settings of one sample: its task and its tables."""
    name, rows = folder.name, pq.read_table(folder / "kshot.parquet")
    columns = COLUMNS.get(name, {"text": "text_a"})
    texts = [*columns.values(), "label"]
    data: dict[str, Any] = {"pool": str(folder / "unlabeled.parquet"), "pool_rows": POOL_ROWS}
    for table, split in (("labelled", "train"), ("development", "dev")):
        chosen = pc.and_(pc.equal(rows["seed"], seed), pc.equal(rows["split"], split))
        part = rows.filter(chosen).select(texts)
        data[table] = save_table(part, output / "samples", f"{name}-{seed}-{split}")
    test = pq.read_table(folder / "test.parquet").select(texts)
    if 0 < test_rows < test.num_rows:
        order = np.random.default_rng(0).permutation(test.num_rows)[:test_rows]
        test = test.take(pa.array(np.sort(order)))
    data["test"] = save_table(test, output / "samples", f"{name}-test-{test.num_rows}")
    return {"task": f"patterns/{TASKS.get(name, name)}", "data": data | {"columns": columns}}


def run_sample(
    sample: dict[str, Any], root: Path, wanted: list[str], override: list[str] | None
) -> Values:
    """What each system reaches on the test table of one sample."""
    values: Values = {}
    scored: dict[str, Scored] = {}
    gold: dict[str, list[int]] = {}
    for system in wanted:
        raw, overrides = sample | {"output": str(root / system)}, [*(override or [])]
        if system.startswith("auto"):
            raw["task"] = str(find_templates(sample, root / "search", override))
            overrides.append("patterns=[]")  # all that were found
        if system in ("zero-shot", "in-context"):
            overrides.append("finetune.steps=0")
        if system.endswith("-demos") or system == "in-context":
            raw["demonstrations"] = {"enabled": True}
        settings = read_settings(None, overrides, over=raw)
        scored[system], gold, supervised = run_system(settings, compare=system == "manual")
        values |= {(system, kind): v for kind, v in readings(scored[system], gold).items()}
        if supervised is not None:
            values["fine-tuning", ""] = supervised
    for one, other in BOTH:
        if one in scored and other in scored:
            each = [*scored[one]["test"].values(), *scored[other]["test"].values()]
            values[f"{one}, {other}", "ensemble"] = accuracy(mean_of(each), gold["test"])
    return values


def find_templates(sample: dict[str, Any], root: Path, override: list[str] | None) -> Path:
    """The folder of the templates that a search finds; it is a task's folder."""
    raw = sample | {"output": str(root), "search": {"templates": True, "use": "replace"}}
    settings = read_settings(None, override or [], over=raw)
    with Run.open(settings) as run:
        task = find_task(run, settings)
        tables = prepare(run, task, settings)
        found = find_patterns(run, task, tables, settings).templates
    assert found is not None
    return found.dir


def run_system(
    settings: Settings, *, compare: bool
) -> tuple[Scored, dict[str, list[int]], float | None]:
    """Scores of the development and test rows by pattern, their labels, and the baseline's value.

    compare: whether to train the baseline, the same encoder without a prompt
    """
    with Run.open(settings) as run:
        task = find_task(run, settings)
        inputs = encode(run, task, prepare(run, task, settings), settings)
        scores = annotate(run, task, finetune(run, task, inputs, settings), inputs, settings)
        soft = ensemble(run, task, scores, inputs, settings)
        classifiers = distill(run, task, None, inputs, settings) if compare else None
        generations = [Generation(0, scores, soft, {})]
        metrics = evaluate(run, task, generations, inputs, settings, classifiers=classifiers)
    assert metrics is not None
    measured = inputs.tables.measured
    gold = {name: labels_of(table.dir / TABLE, task.labels) for name, table in measured.items()}
    scored = {
        name: {s.model.name: read_scores(s.tables[name].dir / SCORES)[1] for s in scores}
        for name in measured
    }
    supervised = read_metrics(metrics).system("baseline")
    return scored, gold, supervised.accuracy if supervised else None


def readings(scored: Scored, gold: dict[str, list[int]]) -> dict[str, float]:
    """The pattern that is best on the development rows, the mean pattern, and the ensemble."""
    development, test = (
        {name: accuracy(scores, gold[table]) for name, scores in scored[table].items()}
        for table in ("development", "test")
    )
    return {
        "best on dev": test[max(development, key=lambda name: development[name])],
        "mean": float(np.mean(list(test.values()))),
        "ensemble": accuracy(mean_of([*scored["test"].values()]), gold["test"]),
    }


def mean_of(scores: list[Floats]) -> Floats:
    """The mean over patterns of the labels' log-probabilities (rows, labels)."""
    shifted = [s - np.logaddexp.reduce(s, axis=1, keepdims=True) for s in scores]
    return np.asarray(np.mean(shifted, axis=0))


def accuracy(scores: Floats, gold: list[int]) -> float:
    """Fraction of the rows whose label has the highest score."""
    return float((scores.argmax(1) == np.array(gold)).mean())


def print_table(results: dict[str, list[Values]]) -> None:
    """Mean and sample standard deviation over the samples in percent, laid out as in the paper."""
    order = ["fine-tuning", *SYSTEMS]
    names = SYSTEMS | {"fine-tuning": "fine-tuning without a prompt"}
    lines = dict.fromkeys(line for each in results.values() for values in each for line in values)
    place = {name: n for n, name in enumerate(order)}
    table = Table("system", "of its patterns", *results, box=None)
    for system, kind in sorted(lines, key=lambda line: place.get(line[0], len(order))):
        cells = []
        for samples in results.values():
            percent = [100 * v[system, kind] for v in samples if (system, kind) in v]
            cells.append("{:.1f} ({:.1f})".format(*mean_and_sd(percent)) if percent else "")
        table.add_row(names.get(system, f"both: {system}"), kind, *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
