"""A pipeline run from Python: tables in, a classifier and a report out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.files import write_text
from pet_pipeline.in_memory import is_texts, save_table
from pet_pipeline.labelled import text_columns
from pet_pipeline.new_task import save_task, task_of
from pet_pipeline.patterns import load_task
from pet_pipeline.pipeline import pet_full
from pet_pipeline.progress import say
from pet_pipeline.run import OWN_TASK, Run
from pet_pipeline.settings import check_settings, run_folder
from pet_pipeline.stages.evaluate import Metrics
from pet_pipeline.stages.find_task import task_files
from pet_pipeline.stages.from_settings import pinned_source
from pet_pipeline.tables import shard_files

if TYPE_CHECKING:
    from pet_pipeline.classifier import Classifier

SOURCES = ("labelled", "pool", "test", "development")  # of the settings' data
TABLES = "tables"  # the folder of those that were given in memory
ARGUMENTS = ("labelled", "pool", "test", "task", "labels", "words", "templates", "output")
ENSEMBLE = "ensemble/all"
WRITTEN = ".task.json"  # the task that was written last, to tell whether it was edited since


@dataclass(frozen=True)
class Trained:
    """What a run has made, in its folder.

    metrics: of every system on the test table; None without one
    """

    folder: Path
    metrics: Metrics | None = field(repr=False)
    results: Mapping[str, Path] = field(repr=False)  # the last folder of a stage and a name
    compute: Compute | None = field(default=None, repr=False)  # where the classifier predicts

    @property
    def report(self) -> Path:
        """The HTML page about the run."""
        return self.folder / "report" / "index.html"

    @cached_property
    def classifier(self) -> Classifier:
        """The finished classifier; of a run without a pool, the baseline.

        Raises `UserError` if the settings leave it out.
        """
        from pet_pipeline.classifier import Classifier

        name = "distill/classifier" if ENSEMBLE in self.results else "distill/baseline"
        return Classifier(self.results.get(name, self.folder), self.compute)

    @property
    def soft_labels(self) -> pa.Table:
        """The pool: id, texts, label, confidence, entropy (nats) and probs (rows, labels).

        Raises `UserError` for a run without a pool.
        """
        if ENSEMBLE not in self.results:
            raise UserError(f"{self.folder}: a run without a pool has no soft labels")
        soft = _read_shards(self.results[ENSEMBLE])
        pool = _read_shards(self.folder / "prepare" / "pool")
        for column in reversed(pool.column_names[1:]):
            soft = soft.add_column(1, column, pool[column])
        return soft


def train(
    labelled: object = None,
    pool: object = None,
    *,
    test: object = None,
    task: Path | str = "",
    labels: Sequence[str] = (),
    words: Mapping[str, str | Sequence[str]] | None = None,
    templates: Sequence[str] = (),
    output: Path | str = "",
    **settings: Any,
) -> Trained:
    """Run `pet_full` and return what it made; the same call again resumes, or returns at once.

        result = train(labelled, pool, test=test, output="runs/mood", finetune={"steps": 100})
        result.classifier.predict("What a day!")

    labelled, pool, test: Arrow or pandas tables or lists of dicts; or, as in the settings, paths,
    URLs and `datasets:` names. The pool may be a list or a column of texts.
    task: folder of a task. Without one, OUTPUT/task is made from the labelled table, and from
    labels (in order), words (of some labels or all) and templates where they are given.
    output: folder of the run; settings: the others, by name, those of a section in a dict
    Raises `UserError` with what is wrong in arguments and tables, and what stopped the run.
    """
    raise_all([*_setting_problems(settings), *_task_problems(task, labels, words, templates)])
    given = {"labelled": labelled, "pool": pool, "test": test}
    tables = {**settings.pop("data", {}), **{n: t for n, t in given.items() if t is not None}}
    in_memory = {n: tables.pop(n) for n in SOURCES if not _is_source(tables.get(n))}
    if not output and not task and ("labelled" in in_memory or labels or words):
        raise UserError("output: name a folder for the run, such as output='runs/mood'")
    data = {name: str(value) if name in SOURCES else value for name, value in tables.items()}
    paths = {"task": _path(task), "output": _path(output)}
    checked = check_settings({**settings, **paths, "data": data})
    folder = run_folder(checked)
    files = {name: str(folder / TABLES / f"{name}.parquet") for name in in_memory}
    data_settings = checked.data.model_copy(update=files)
    final = checked.model_copy(update={"output": str(folder), "data": data_settings})
    with Run.open(final) as run:
        _save_tables(run, final, in_memory)
        if labels or words or templates:
            names, groups = [str(label) for label in labels], words and _by_name(words)
            made = task_files(run, final, labels=names, words=groups, templates=templates or None)
            _write_task(run, made)
        metrics = _run(run, final)
    results = {f"{unit.stage}/{unit.dir.name}": unit.dir for unit in run.units}
    return Trained(folder, metrics, results, Compute.of(final.machine))


def _setting_problems(settings: Mapping[str, object]) -> Iterator[str]:
    known = list(Settings.model_fields)
    for name in settings:
        if name not in known:
            near = nearest(name, [*ARGUMENTS, *known])
            yield f"{name}: not an argument of train, and not a setting{near}"
    if not isinstance(settings.get("data", {}), Mapping):
        yield "data: a dict of settings is needed; tables are labelled, pool and test"


def _task_problems(task: object, labels: object, words: object, templates: object) -> Iterator[str]:
    if task and (labels or words or templates):
        yield f"task: {task} has labels, words and templates; give others, or the task, not both"
    for name, values in (("labels", labels), ("templates", templates)):
        if not isinstance(values, list | tuple):
            yield f"{name}: a list is needed; found {short(values)}"
    if words is not None and not isinstance(words, Mapping):
        yield f"words: a dict is needed, from labels to words; found {short(words)}"


def _by_name(words: Mapping[Any, str | Sequence[str]]) -> dict[str, str | Sequence[str]]:
    return {str(label): group for label, group in words.items()}


def _is_source(table: object) -> bool:
    """Whether a table is named, by what the settings take, or not given."""
    return table is None or isinstance(table, str | Path)


def _path(path: Path | str) -> str:
    return str(Path(path).expanduser()) if path else ""


def _save_tables(run: Run, settings: Settings, tables: Mapping[str, object]) -> None:
    """Save tables where the settings say; labelled first, which may tell what texts are called."""
    for name, table in tables.items():
        column = _text_column(run, settings) if name != "labelled" and is_texts(table) else "text"
        save_table(table, run.root / TABLES, name, column=column)


def _text_column(run: Run, settings: Settings) -> str:
    """What the tables call the (first) text column of the task."""
    own, data = run.root / OWN_TASK, settings.data
    if settings.task or own.exists():
        column = load_task(settings.task or own).columns[0]
        return data.columns.get(column, column)
    if data.labelled:
        column = text_columns(pinned_source(run, data.labelled), data.columns)[0]
        return data.columns.get(column, column)
    return "text"


def _write_task(run: Run, files: Mapping[str, str]) -> None:
    """Write a task into the run's folder, in place of the one that was written by the last call.

    Raises `UserError` if that was edited since, or if there is another.
    """
    folder, record = run.root / OWN_TASK, run.root / WRITTEN
    inside = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    there = {f.relative_to(folder).as_posix(): f.read_text("utf-8", "replace") for f in inside}
    if there == files:
        return
    if there and (not record.exists() or there != json.loads(record.read_text("utf-8"))):
        raise UserError(
            f"task: {folder} was made without the labels, words or templates that are given, or "
            f"edited since; to keep it, give task={str(folder)!r} in place of them, else remove it"
        )
    task_of(files, folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    save_task(folder, files)
    write_text(record, json.dumps(files, indent=1))


def _run(run: Run, settings: Settings) -> Metrics | None:
    """Plan the pipeline, which finds what is wrong with the settings, and run it."""
    pipeline = pet_full()
    try:
        planned = Run.open(settings, plan=True)
        pipeline(settings, planned)
        units = {unit.dir: unit.result() for unit in planned.units}
        done = sum(result is not None for result in units.values())
        say(f"{run.root}: {done} units done, {len(units) - done} to do")
        run.expect(planned)
        metrics = pipeline(settings, run)
    except UserError:
        raise
    except BaseException:
        say("stopped; finished units are kept: the same call resumes")
        raise
    return metrics if isinstance(metrics, Metrics) else None


def _read_shards(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in shard_files(folder))
