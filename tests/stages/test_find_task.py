"""A run without a task makes one from its labelled table, and keeps it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from testing import HAPPY, SAD, run, todo

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import load_task
from pet_pipeline.run import Run
from pet_pipeline.stages.find_task import find_task

Make = Callable[..., Settings]


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a labelled table, of other labels or with other columns."""

    def write(
        name: str = "mine", labels: tuple[str, str] = ("sad", "happy"), **columns: Any
    ) -> str:
        whole = {"text": SAD + HAPPY, "label": [labels[0]] * 4 + [labels[1]] * 4} | columns
        pq.write_table(
            pa.table({k: v for k, v in whole.items() if v is not None}),
            tmp_path / f"{name}.parquet",
        )
        return str(tmp_path / f"{name}.parquet")

    return write


def prepared(settings: Settings) -> list[str]:
    """The units of `prepare` that a run would execute."""
    return [name for name in todo(settings) if name.startswith("prepare/")]


def test_a_task_is_made_once_and_as_it_was_planned(
    tiny_settings: Make,
    labelled: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tiny_settings(task="", data={"labelled": labelled(labels=("bad", "wonderful"))})
    swapped = labelled("test", labels=("bad", "wonderful"))
    settings = tiny_settings(task="", data={"labelled": settings.data.labelled, "test": swapped})
    before = run(settings, plan=True)
    assert not (tmp_path / "run").exists()
    run(settings, until="prepare")
    said = capsys.readouterr().err
    folder = tmp_path / "run" / "task"
    assert f"task: {folder}, made from {settings.data.labelled}" in said
    assert "note:" not in said
    assert load_task(folder).labels == ("bad", "wonderful")
    assert [unit.key for unit in run(settings, plan=True).units] == [u.key for u in before.units]
    assert prepared(settings) == []
    made = {file: file.read_bytes() for file in folder.iterdir()}
    run(settings, until="prepare")
    assert {file: file.read_bytes() for file in folder.iterdir()} == made
    assert "made from" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this module share a run that is prepared."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture
def own(tiny_settings: Make, one_run: Path) -> Settings:
    """The settings of a run without a task that is prepared."""
    settings = tiny_settings(task="", output=str(one_run / "mood"))
    if not (one_run / "mood").exists():
        run(settings, until="prepare")
    return settings


def moved(settings: Settings, folder: Path) -> Settings:
    """The same settings, with the run's folder copied to another place."""
    shutil.copytree(settings.output, folder)
    return settings.model_copy(update={"output": str(folder)})


def test_the_task_is_called_like_the_folder_it_was_made_in(own: Settings, tmp_path: Path) -> None:
    copy = moved(own, tmp_path / "elsewhere")
    assert find_task(Run.open(own, plan=True), own).name == "mood"
    assert find_task(Run.open(copy, plan=True), copy).name == "mood"
    assert todo(copy) == todo(own)
    assert prepared(copy) == []


def test_a_task_that_was_bettered_is_kept(own: Settings, tmp_path: Path) -> None:
    settings = moved(own, tmp_path / "copy")
    file = tmp_path / "copy" / "task" / "task.toml"
    text = file.read_text()
    assert 'happy = ["happy"]\n' in text
    file.write_text(text.replace('["happy"]', '["great", "good"]'))
    (tmp_path / "copy" / "task" / "colon.toml").unlink()
    assert prepared(settings) == ["prepare/patterns", "prepare/data"]
    task = find_task(Run.open(settings, plan=True), settings)
    assert task.patterns[0].words == (("great", "good"), ("sad",))
    assert len(task.patterns) == 3


def test_words_that_the_model_splits_are_noted(
    tiny_settings: Make, labelled: Callable[..., str], tmp_path: Path
) -> None:
    table = labelled(labels=("sad", "beautiful"))
    settings = tiny_settings(task="", data={"labelled": table, "test": ""})
    with Run.open(settings) as opened:
        find_task(opened, settings)
    assert 'beautiful = ["beautiful"]' in (tmp_path / "run/task/task.toml").read_text()
    assert "  # 9 tokens\n" in (tmp_path / "run/task/task.toml").read_text()


def test_columns_of_other_names_and_labels_that_say_nothing(
    tiny_settings: Make,
    labelled: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = labelled(text=None, message=SAD + HAPPY, label=None, mood=[0] * 7 + [1])
    settings = tiny_settings(task="", data={"labelled": table, "columns": {"label": "mood"}})
    with Run.open(settings) as opened:
        task = find_task(opened, settings)
    assert (task.columns, task.labels, task.metric) == (("message",), ("0", "1"), "f1_macro")
    file = tmp_path / "run/task/task.toml"
    note = f"note: '0', '1' do not say what is meant; write better label words into {file}"
    assert note in capsys.readouterr().err.splitlines()


def problem(settings: Settings) -> str:
    """What is said of a run before anything is written."""
    with pytest.raises(UserError) as error:
        find_task(Run.open(settings, plan=True), settings)
    return str(error.value)


def test_a_task_cannot_be_made_of_nothing(tiny_settings: Make) -> None:
    settings = tiny_settings(task="", data={"labelled": ""})
    assert problem(settings) == (
        "task: not set, and no labelled texts to make one from; name the folder of a task, "
        "--task FOLDER, which zero-shot runs need, or give --labelled FILE"
    )
    assert problem(settings.model_copy(update={"output": ""})) == problem(settings)


def test_columns_that_cannot_be_known_are_named(
    tiny_settings: Make, labelled: Callable[..., str]
) -> None:
    unclear = labelled(text=None, message=SAD + HAPPY, subject=SAD + HAPPY)
    assert problem(tiny_settings(task="", data={"labelled": unclear})) == (
        f"data.labelled: {unclear} has no column 'text'; one of 'message', 'subject' may be it: "
        'add --text-column message (data.columns = {text = "message"})'
    )
    unlabelled = labelled(label=None, category=["a", "b"] * 4)
    assert problem(tiny_settings(task="", data={"labelled": unlabelled})) == (
        f"data.labelled: {unlabelled} has no column 'label'; it has 'text', 'category'; if it is "
        "'category', add --label-column category (data.columns = {label = \"category\"})"
    )
    one = labelled(labels=("sad", "sad"))
    assert problem(tiny_settings(task="", data={"labelled": one})) == (
        f"data.labelled: {one}: column 'label' has one label, 'sad'; a classifier needs two "
        "labels or more"
    )


def test_labels_that_a_made_task_lacks_are_named(
    own: Settings, labelled: Callable[..., str], tmp_path: Path
) -> None:
    settings = moved(own, tmp_path / "copy")
    data = settings.data.model_copy(update={"labelled": labelled(labels=("angry", "sad"))})
    settings = settings.model_copy(update={"data": data})
    folder = tmp_path / "copy" / "task"
    assert problem(settings) == (
        f"data.labelled: 'angry' is not among the labels of {folder}/task.toml; add what is "
        f"missing there, with label words, or remove {folder} and run again to make a new task"
    )
    shutil.copy(own.data.labelled, tmp_path / "copy" / "labelled.parquet")  # is read in its place
    assert find_task(Run.open(settings, plan=True), settings).labels == ("happy", "sad")


def test_a_folder_holds_the_run_of_one_task(own: Settings, tiny_task: Path, tmp_path: Path) -> None:
    settings = moved(own, tmp_path / "copy")
    task = tmp_path / "copy" / "task"
    Run.open(settings.model_copy(update={"task": str(task)}), plan=True)
    with pytest.raises(UserError) as error:
        Run.open(settings.model_copy(update={"task": str(tiny_task)}), plan=True)
    assert str(error.value) == (
        f"output: {tmp_path}/copy is the run of another task, {task}; name another folder"
    )


def test_patterns_are_chosen_by_name_in_the_order_of_their_files(
    tiny_settings: Make, own: Settings
) -> None:
    settings = tiny_settings(patterns=["mood", "it_was"])
    task = find_task(Run.open(settings, plan=True), settings)
    assert [pattern.name for pattern in task.patterns] == ["it_was", "mood"]
    for chosen in (own, own.model_copy(update={"output": own.output + "-new"})):  # made, to make
        settings = chosen.model_copy(update={"patterns": ("colon",)})
        task = find_task(Run.open(settings, plan=True), settings)
        assert [pattern.name for pattern in task.patterns] == ["colon"]


def test_a_choice_does_not_change_what_is_done_of_a_pattern(tiny_settings: Make) -> None:
    def keys(**changes: Any) -> set[str]:
        units = run(tiny_settings(**changes), plan=True).units
        return {unit.key for unit in units if unit.stage.endswith("finetune")}

    assert len(keys()) == 3
    assert len(keys(patterns=["mood", "it_was"])) == 2
    assert keys(patterns=["mood", "it_was"]) < keys()


def test_a_pattern_that_is_not_default_is_not_run(
    tiny_settings: Make, tiny_task: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mood"
    shutil.copytree(tiny_task, folder)
    before = todo(tiny_settings(task=str(folder)))
    (folder / "null_end.toml").write_text('template = "{text} {mask}"\ndefault = false\n')
    assert todo(tiny_settings(task=str(folder))) == before
    chosen = todo(tiny_settings(task=str(folder), patterns=["null_end"]))
    tuned = [name for name in chosen if "/finetune/" in name]
    assert tuned == ["gen-0/finetune/null_end-1"]


def test_a_name_that_is_not_a_pattern_is_told_before_anything_is_written(
    tiny_settings: Make, tmp_path: Path
) -> None:
    told = "patterns: 'it_is' is not a pattern of the task mood; did you mean 'it_was'?"
    assert problem(tiny_settings(patterns=["it_is"])) == told
    new = tiny_settings(task="", patterns=["colom"], output=str(tmp_path / "new"))
    with pytest.raises(UserError, match="patterns: 'colom' is not a pattern of the task new; did"):
        run(new)
    assert not (tmp_path / "new" / "task").exists()
