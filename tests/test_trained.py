"""From Python: tables in memory are trained on, what is done is kept, mistakes are said first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from testing import HAPPY, SAD, rows

from pet_pipeline import train
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import Task, load_task
from pet_pipeline.run import Run
from pet_pipeline.stages.find_task import find_task
from pet_pipeline.trained import Trained

LABELLED = {"text": SAD + HAPPY, "label": ["sad"] * 4 + ["happy"] * 4}
POOL = [f"{text} {more}" for more in ("and so on", "of my team") for text in SAD + HAPPY]
TEST = pa.table({"text": [f"{text} again" for text in SAD + HAPPY], "label": LABELLED["label"]})
WORDS = {"sad": "bad", "happy": ["good", "great"]}
TEMPLATES = ["{text} it was {mask}."]
SMALL: dict[str, Any] = {
    "learning_rate": 3e-4,
    "finetune": {"steps": 3, "batch_size": 4},
    "ensemble": {"temperature": 1.0},
    "distill": {"steps": 4, "batch_size": 4},
    "baseline": {"steps": 3, "batch_size": 4},
    "machine": {"threads": 1, "jobs": 1, "precision": "float32", "device": "cpu"},
}


class Runs:
    """Calls of `train` with a pipeline that finds its task, and does nothing else."""

    def __init__(self, folder: Path):
        self.output = folder / "run"
        self.tasks: list[Task] = []
        self.settings: list[Settings] = []
        self.stopped: BaseException | None = None

    def pipeline(self, settings: Settings, run: Run) -> None:
        task = find_task(run, settings)
        if run.plan:
            return
        self.tasks.append(task)
        self.settings.append(settings)
        if self.stopped:
            raise self.stopped

    def __call__(self, *tables: Any, **arguments: Any) -> Settings:
        """The settings that the pipeline is run with."""
        train(*tables, **{"output": self.output, "model": "none", **arguments})
        return self.settings[-1]

    @property
    def task(self) -> Path:
        return self.output / "task"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs(tmp_path)
    monkeypatch.setattr("pet_pipeline.trained.pet_full", lambda: made.pipeline)
    return made


Finished = tuple[Trained, Callable[[], Trained]]


@pytest.fixture(scope="module")
def finished(tiny_mlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """What a small run came to, and the same call again."""
    output = tmp_path_factory.mktemp("trained") / "run"

    def again() -> Trained:
        return train(
            pd.DataFrame(LABELLED),
            pd.Series(POOL),
            test=TEST,
            words=WORDS,
            templates=TEMPLATES,
            output=output,
            model=str(tiny_mlm),
            data={"shard_rows": 7},
            **SMALL,
        )

    return again(), again


def test_tables_become_a_classifier(finished: Finished) -> None:
    result, _ = finished
    assert result.classifier.labels == ["sad", "happy"]
    predicted = result.classifier.predict([*TEST["text"].to_pylist(), ""])
    evaluated = rows(result.folder / "evaluate" / "all" / "predictions.parquet")
    assert predicted == [*[row["classifier"] for row in evaluated], None]
    assert result.classifier.compute.threads == 1
    assert result.metrics is not None
    kinds = {system.kind for system in result.metrics.systems}
    assert {"ensemble", "classifier", "baseline"} <= kinds
    assert "<h1>run</h1>" in result.report.read_text("utf-8")
    assert repr(result) == f"Trained(folder={result.folder!r})"


def test_soft_labels_have_the_texts_of_the_pool(finished: Finished) -> None:
    soft = finished[0].soft_labels
    assert soft.column_names == ["id", "text", "label", "confidence", "entropy", "probs"]
    assert soft["text"].to_pylist() == POOL
    probs = np.stack(soft["probs"].to_pylist())
    names = np.array(["sad", "happy"])[probs.argmax(1)]
    assert soft["label"].to_pylist() == names.tolist()
    assert json.loads(soft.schema.metadata[b"labels"]) == ["sad", "happy"]


def test_the_same_call_again_does_nothing_again(finished: Finished) -> None:
    result, again = finished
    before = units_run(result.folder)
    assert before > 8
    second = again()
    assert units_run(result.folder) == before
    assert second.folder == result.folder
    assert second.metrics == result.metrics
    assert second.soft_labels.equals(result.soft_labels)


def test_without_a_pool_the_classifier_is_the_baseline(tiny_mlm: Path, tmp_path: Path) -> None:
    result = train(LABELLED, test=TEST, output=tmp_path / "run", model=str(tiny_mlm), **SMALL)
    texts = TEST["text"]
    evaluated = rows(result.folder / "evaluate" / "all" / "predictions.parquet")
    assert result.classifier.predict(texts) == [row["baseline"] for row in evaluated]
    with pytest.raises(UserError, match=r"run: a run without a pool has no soft labels$"):
        _ = result.soft_labels


def units_run(folder: Path) -> int:
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return sum(json.loads(line)["event"] == "unit" for line in lines)


def test_tables_are_named_or_saved_in_the_run(
    runs: Runs, tiny_task: Path, tiny_tables: dict[str, str]
) -> None:
    settings = runs(
        tiny_tables["labelled"],
        Path(tiny_tables["pool"]),
        test=TEST,
        task=tiny_task,
        data={"development": pd.DataFrame(LABELLED), "k": 2},
        finetune={"steps": 7, "seeds": [1, 2]},
    )
    data, folder = settings.data, runs.output / "tables"
    assert (data.labelled, data.pool, data.k) == (tiny_tables["labelled"], tiny_tables["pool"], 2)
    assert data.test == str(folder / "test.parquet")
    assert data.development == str(folder / "development.parquet")
    assert sorted(folder.iterdir()) == [Path(data.development), Path(data.test)]
    assert pq.read_table(data.test).equals(TEST)
    assert (settings.task, settings.output) == (str(tiny_task), str(runs.output))
    assert (settings.finetune.steps, settings.finetune.seeds) == (7, (1, 2))


@pytest.mark.parametrize("named", [True, False])
def test_texts_alone_are_in_the_column_of_the_other_tables(runs: Runs, named: bool) -> None:
    labelled = pa.table({"message": SAD, "label": ["sad", "happy"] * 2, "n": range(4)})
    columns = {"text": "message"} if named else {}
    settings = runs(labelled, np.array(POOL), data={"columns": columns})
    assert pq.read_table(settings.data.pool).to_pydict() == {"message": POOL}
    assert runs.tasks[-1].columns == ("text" if named else "message",)


def test_texts_alone_are_in_the_column_of_the_task(runs: Runs, tmp_path: Path) -> None:
    task = tmp_path / "task"
    task.mkdir()
    (task / "task.toml").write_text(
        'columns = ["mail"]\nlabels = ["a", "b"]\n[verbalizer]\na = "good"\nb = "bad"\n'
    )
    (task / "one.toml").write_text('template = "{mail} {mask}"\n')
    settings = runs(None, POOL, task=task)
    assert pq.read_table(settings.data.pool).column_names == ["mail"]


def test_a_task_is_made_of_labels_words_and_templates(runs: Runs) -> None:
    runs(LABELLED, words=WORDS, templates=TEMPLATES)
    task = load_task(runs.task)
    assert (task.labels, task.columns) == (("sad", "happy"), ("text",))
    (pattern,) = task.patterns
    assert pattern.words == (("bad",), ("good", "great"))
    assert pattern.render({"text": "A day:"}) == "A day: it was {mask}."
    assert runs.tasks[-1].name == "run"
    assert runs.settings[-1].task == ""

    runs(LABELLED, labels=["happy", "sad"], words={"sad": "terrible"})  # in place of the first
    task = load_task(runs.task)
    assert task.labels == ("happy", "sad")
    assert {pattern.words for pattern in task.patterns} == {(("happy",), ("terrible",))}
    assert len(task.patterns) == 4

    runs(LABELLED)  # takes it as it is
    assert load_task(runs.task) == task


def test_numbers_are_labels_too(runs: Runs) -> None:
    runs({"text": SAD, "label": [1, 0, 1, 0]}, labels=[1, 0], words={0: "bad", 1: "good"})
    assert runs.tasks[-1].labels == ("1", "0")
    assert runs.tasks[-1].patterns[0].words == (("good",), ("bad",))


def test_labels_and_words_do_without_labelled_texts(runs: Runs) -> None:
    runs(None, POOL, words=WORDS)
    assert runs.tasks[-1].labels == ("sad", "happy")
    assert runs.tasks[-1].columns == ("text",)


@pytest.mark.parametrize("made", [{}, {"words": WORDS, "templates": TEMPLATES}])
def test_a_task_that_was_edited_is_not_replaced(runs: Runs, made: dict[str, Any]) -> None:
    runs(LABELLED, **made)
    before = len(runs.tasks[-1].patterns)
    edited = runs.task / "mine.toml"
    edited.write_text('template = "{mask}: {text}"\n')
    with pytest.raises(UserError) as error:
        runs(LABELLED, words=WORDS, templates=["{text} {mask}"])
    assert str(error.value) == (
        f"task: {runs.task} was made without the labels, words or templates that are given, or "
        f"edited since; to keep it, give task={str(runs.task)!r} in place of them, else remove it"
    )
    assert edited.exists()
    runs(LABELLED, task=runs.task)  # of the same run
    assert len(runs.tasks[-1].patterns) == before + 1


def test_a_task_that_would_be_wrong_replaces_nothing(runs: Runs) -> None:
    runs(LABELLED, words=WORDS, templates=TEMPLATES)
    before = load_task(runs.task)
    with pytest.raises(UserError, match="mask"):
        runs(LABELLED, words=WORDS, templates=["{text} without"])
    assert load_task(runs.task) == before


def test_a_run_has_the_name_of_its_task_or_table(
    runs: Runs, tiny_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs(LABELLED, task=tiny_task, output="").output == "runs/mood"
    pq.write_table(pa.table(LABELLED), "feelings.parquet")
    assert runs("feelings.parquet", output="").output == "runs/feelings"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"labeled": LABELLED},
            "labeled: not an argument of train, and not a setting; did you mean 'labelled'?",
        ),
        ({"finetune": {"step": 3}}, "settings: finetune.step: no such setting; did you mean"),
        (
            {"labelled": LABELLED, "output": ""},
            "output: name a folder for the run, such as output='runs/mood'",
        ),
        (
            {"task": "patterns/mood", "words": WORDS},
            "task: patterns/mood has labels, words and templates; give others, or the task, not",
        ),
        ({"labels": "sad"}, "labels: a list is needed; found 'sad'"),
        ({"templates": "{text} {mask}"}, "templates: a list is needed; found '{text} {mask}'"),
        ({"words": ["bad"]}, "words: a dict is needed, from labels to words; found ['bad']"),
        (
            {"data": LABELLED["text"]},
            "data: a dict of settings is needed; tables are labelled, pool and test",
        ),
        ({"task": "nowhere"}, "nowhere/task.toml: "),
        ({}, "task: not set, and no labelled texts to make one from; "),
    ],
)
def test_mistakes_in_arguments(runs: Runs, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        runs(**arguments)
    assert str(error.value).startswith(problem)
    assert not runs.tasks


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"labelled": 3}, "labelled: an object of type int is not a table; give an Arrow or"),
        ({"labelled": SAD}, "data.labelled: {}/tables/labelled.parquet has no column 'label'"),
        ({"pool": ["a", 3]}, "pool[1]: found 3 (int); a text is needed"),
    ],
)
def test_mistakes_in_tables(runs: Runs, tables: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        runs(**{"labelled": LABELLED, "pool": POOL, **tables})
    assert str(error.value).startswith(problem.format(runs.output))
    runs(LABELLED, POOL)  # the folder can still be used


def test_a_folder_with_other_files_is_left_alone(runs: Runs) -> None:
    runs.output.mkdir()
    (runs.output / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="has files in it and is not a run"):
        runs(LABELLED, POOL)
    assert [file.name for file in runs.output.iterdir()] == ["notes.txt"]


def test_an_interrupted_run_says_how_to_resume(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.stopped = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        runs(LABELLED, POOL)
    said = capsys.readouterr().err
    assert f"{runs.output}: 0 units done, 0 to do\n" in said
    assert said.endswith("stopped; finished units are kept: the same call resumes\n")


def test_what_a_run_left_out_is_said(runs: Runs) -> None:
    result = train(LABELLED, POOL, output=runs.output, model="none")
    with pytest.raises(UserError, match=r"run: a run without a finished classifier"):
        _ = result.classifier
    assert result.metrics is None
