"""What a user can get wrong: each mistake's message, exit code 2, and nothing trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import BertConfig, BertForSequenceClassification, GPT2Config
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.run import Run

LABELS = ["sad", "sad", "happy", "happy"]
TEXTS = ["bad day", "awful food", "great day", "good food"]


class Shop:
    """A folder with everything a run needs, to be broken in one place."""

    def __init__(self, folder: Path, mlm: Path, task: Path):
        self.folder = folder
        self.mlm = folder / "model"
        shutil.copytree(mlm, self.mlm)
        shutil.copytree(task, folder / "mood")
        self.table("labelled", text=TEXTS, label=LABELS)
        self.table("test", text=TEXTS, label=LABELS)
        self.table("pool", text=TEXTS)

    def table(self, name: str, **columns: list[Any]) -> None:
        pq.write_table(pa.table(columns), self.folder / f"{name}.parquet")

    def pattern(self, text: str, name: str = "bad") -> None:
        (self.folder / "mood" / f"{name}.toml").write_text(text)

    def config(self, **values: Any) -> None:
        file = self.mlm / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def run(self, *options: str, **data: str) -> str:
        """The message of `pet run`, with this folder's path left out."""
        names = {"labelled": "labelled.parquet", "pool": "pool.parquet", "test": "test.parquet"}
        words = ["run", "--task", "mood", "--model", "model", "--output", "run"]
        for name, file in {**names, **data}.items():
            words += [f"--{name}", file]
        return self.pet(*words, *options)

    def pet(self, *words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 2, f"{result.output}\n{result.exception}"
        assert not list((self.folder / "run").rglob("finetune/*/unit.json"))
        message = result.stderr.partition("error: ")[2]  # before it stands what was done so far
        return message.strip().replace(f"{self.folder}/", "")


@pytest.fixture
def shop(tmp_path: Path, tiny_mlm: Path, tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path, tiny_mlm, tiny_task)


SET = "--set"
SETTINGS = {
    ("finetun.steps=1",): "settings: finetun: no such setting; did you mean 'finetune'?",
    ("finetune.step=1",): "settings: finetune.step: no such setting; did you mean 'steps'?",
    (
        "finetune.steps=many",
    ): "settings: finetune.steps: input should be a valid integer; found 'many'",
    (
        "finetune.steps=-1",
    ): "settings: finetune.steps: input should be greater than or equal to 0; found -1",
    (
        "finetune.seeds=[1, 1]",
    ): "settings: finetune.seeds: the same seed stands there twice; found [1, 1]",
    ("ensemble.weights=best",): (
        "settings: ensemble.weights: input should be 'uniform', 'wmean' or 'fitted'; found 'best'"
    ),
    ("finetune.clip=inf",): "settings: finetune.clip: input should be a finite number; found inf",
    ("finetune.steps",): "--set finetune.steps: no '='; write section.key=value",
    (
        "data.columns={txt='a'}",
    ): "data.columns: 'txt' is no column of the task; did you mean 'text'?",
    ("baseline.max_tokens=300",): "baseline.max_tokens: 300 is more than the model reads, 256",
    ("finetune.max_tokens=4",): "finetune.max_tokens: 4 is too few; 8 is the least",
    ("ensemble.weights=fitted", "ensemble.fit_on=development"): (
        "ensemble.fit_on: 'development' needs data.development; 'folds' does not"
    ),
    ("data.k=9",): "labelled.parquet: 'sad' has 2 rows, data.k = 9; lower data.k or add rows",
    ("machine.device=cuda:7",): "machine.device: 'cuda:7' cannot be used: ",
}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s[-1])
def test_settings(shop: Shop, settings: tuple[str, ...]) -> None:
    message = shop.run(*(word for text in settings for word in (SET, text)))
    expected = SETTINGS[settings]
    if "device" in settings[0]:
        assert message.startswith(expected)
        assert message.endswith("'auto' takes what is there")
    else:
        assert message == expected


PATTERNS = {
    'template = "{text} fine"': "template has 0 {mask}; exactly one is needed, however long the words",
    'template = "{txet} {mask}"': "{txet} is no column of this task; did you mean 'text'?",
    'template = "{text:keeep} {mask}"': "{text:keeep}: no such spec; did you mean 'keep'?",
    'tempalte = "{text} {mask}"': "unknown key 'tempalte'; did you mean 'template'?",
    'template = "{text} {mask"': "template: expected '}' before end of string",
}


@pytest.mark.parametrize("text", PATTERNS)
def test_patterns(shop: Shop, text: str) -> None:
    shop.pattern(text)
    assert PATTERNS[text] in shop.run()
    assert f"mood/bad.toml: {PATTERNS[text]}" in shop.pet("patterns", "mood")


WORDS = 'template = "{{text}} {{mask}}"\n[verbalizer]\nsad = ["{}"]\nhappy = ["{}"]\n'


def test_words_that_the_model_does_not_know(shop: Shop) -> None:
    shop.pattern(WORDS.format("中", "great"))
    message = "pattern 'bad': label word '中' has tokens that the model does not know"
    assert shop.run() == message
    assert shop.pet("patterns", "mood", "--model", "model") == message


def test_words_that_are_the_same_to_the_model(shop: Shop) -> None:
    shop.pattern(WORDS.format("Great", "great"))
    assert shop.run() == (
        "pattern 'bad': label words 'Great' (sad) and 'great' (happy) are the same tokens for this model"
    )


def test_patterns_that_leave_no_room_for_the_text(shop: Shop) -> None:
    shop.pattern('template = "{text} in summary it was {mask}."')
    assert shop.run("--set", "finetune.max_tokens=8") == (
        "pattern 'bad': its own words and masks take 8 of max_tokens = 8, "
        "which leaves none for the text"
    )


def test_no_such_task(shop: Shop) -> None:
    assert shop.pet("run", "--task", "moood", "--pool", "pool.parquet") == (
        "moood/task.toml: no such task; did you mean 'mood'?"
    )


def test_nothing_to_run(shop: Shop) -> None:
    assert shop.pet("run") == (
        "nothing to run: give a settings file, or --task, --labelled, --pool and --test; "
        "the demo is data/support/demo.toml"
    )


def test_no_pool(shop: Shop) -> None:
    assert shop.run(pool="") == (
        "data.pool: not set; give the table of unlabelled texts, --pool FILE"
    )


def test_settings_files(shop: Shop) -> None:
    (shop.folder / "my.toml").write_text("task = 'a'\ntask = 'b'\n")
    assert shop.pet("run", "my.toml") == "my.toml: Cannot overwrite a value (at line 2, column 11)"
    assert (
        shop.pet("run", "mine.toml") == "mine.toml: no such settings file; did you mean 'my.toml'?"
    )
    assert shop.pet("run", "mood") == "mood: a folder; a settings file is needed, such as my.toml"


def test_tables_that_are_not_there_or_lack_a_column_are_shown_together(shop: Shop) -> None:
    shop.table("test", txt=TEXTS, label=LABELS)
    assert shop.run(pool="pol.parquet") == (
        "2 problems:\n"
        "  - data.test: test.parquet has no column 'text'; did you mean 'txt'?"
        '; or map it: data.columns = {text = "..."}\n'
        "  - data.pool: pol.parquet: no such file or folder; did you mean 'pool.parquet'?"
    )


TABLES: dict[str, tuple[str, dict[str, list[Any]], str]] = {
    "unknown label": (
        "labelled",
        {"text": TEXTS, "label": ["sad", "sad", "hapy", "hapy"]},
        "labelled.parquet: 'hapy' (2 rows) is no label of the task; did you mean 'happy'?",
    ),
    "no label": (
        "test",
        {"text": TEXTS, "label": ["sad", None, "happy", "happy"]},
        "test.parquet: 1 row without a label; the pool is for those",
    ),
    "duplicate id": (
        "pool",
        {"id": ["a", "b", "a", "c"], "text": TEXTS},
        "pool.parquet: row 2 has an id that stands there before (1 such rows); ids must be unique; "
        "without the column, row numbers serve",
    ),
    "null id": (
        "labelled",
        {"id": ["a", None, "b", "c"], "text": TEXTS, "label": LABELS},
        "labelled.parquet: 1 rows have no id; fill or drop the column",
    ),
    "empty text": (
        "labelled",
        {"text": ["a", " ", "b", None], "label": LABELS},
        "labelled.parquet: row 1 has no text in 'text' (2 such rows); drop them",
    ),
    "empty labelled": (
        "labelled",
        {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())},
        "data.labelled: labelled.parquet has no rows",
    ),
    "empty pool": (
        "pool",
        {"text": pa.array([], pa.string())},
        "data.pool: pool.parquet has no rows",
    ),
}


@pytest.mark.parametrize("mistake", TABLES)
def test_tables(shop: Shop, mistake: str) -> None:
    name, columns, message = TABLES[mistake]
    shop.table(name, **columns)
    assert shop.run() == message


def test_mistakes_in_several_tables_are_shown_together(shop: Shop) -> None:
    shop.table("labelled", text=TEXTS, label=["sad", "sad", "hapy", "happy"])
    shop.table("pool", id=[1, 1, 2, 3], text=TEXTS)
    lines = shop.run().splitlines()
    assert lines[0] == "2 problems:"
    assert "'hapy' (1 row)" in lines[1]
    assert "row 1 has an id that stands there before" in lines[2]


def test_files_that_are_no_tables(shop: Shop) -> None:
    (shop.folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert shop.run(pool="broken.parquet").startswith("data.pool: broken.parquet: cannot be read: ")
    (shop.folder / "pool.xls").touch()
    assert shop.run(pool="pool.xls").startswith(
        "data.pool: pool.xls: no table found; one of '.parquet'"
    )
    mixed = shop.folder / "mixed"
    mixed.mkdir()
    (mixed / "a.csv").write_text("text\na\n")
    (mixed / "b.jsonl").write_text('{"text": "b"}\n')
    assert shop.run(pool="mixed").startswith("data.pool: mixed: 'csv', 'json' found; one of")


def test_models(shop: Shop) -> None:
    assert shop.run("--model", "./modell") == (
        "model: ./modell: no such folder, and no hub name; did you mean 'model'?"
    )
    assert shop.run("--model", "mood") == (
        "model: mood has no config.json; name a folder that a model is in"
    )
    assert shop.run("--model", "no-such-model") == (
        "model: no-such-model is no folder here, is not in the cache, and the hub cannot be reached"
    )


def test_the_embedded_model_outside_of_a_checkout(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pet_pipeline.models.__file__", str(shop.folder / "lib" / "pet" / "models.py")
    )
    assert shop.run("--model", EMBEDDED_MODEL) == (
        f"model: {EMBEDDED_MODEL} comes with a checkout of pet_pipeline and is not here; give "
        "--model a folder with a masked language model, or a hub name such as roberta-base"
    )


def test_a_model_of_another_kind(shop: Shop) -> None:
    GPT2Config(n_layer=1).save_pretrained(shop.mlm)
    assert shop.run() == (
        "model: model is a gpt2 model, which has no masked-LM head; name one such as bert, "
        "roberta, deberta-v2 or modernbert"
    )


def test_a_model_that_was_tuned_for_something_else(shop: Shop) -> None:
    config = BertConfig.from_pretrained(shop.mlm)
    BertForSequenceClassification(config).save_pretrained(shop.mlm)
    message = shop.run()
    assert message.startswith(
        "model: model has no trained masked-LM head (missing: cls.predictions"
    )
    assert message.endswith("name the model that was pretrained, not one tuned for another task")


def test_broken_weights(shop: Shop) -> None:
    (shop.mlm / "model.safetensors").write_bytes(b"no weights")
    assert shop.run().startswith("model: model cannot be loaded: ")


def test_no_weights(shop: Shop) -> None:
    (shop.mlm / "model.safetensors").unlink()
    assert shop.run().startswith("model: model cannot be loaded: ")


def test_a_tokenizer_without_a_mask(shop: Shop) -> None:
    file = shop.mlm / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("mask_token")
    file.write_text(json.dumps(config))
    assert shop.run() == "model: model has no mask token; name a masked LM"


def test_output_folders(shop: Shop, tiny_settings: Callable[..., Any]) -> None:
    (shop.folder / "run").write_text("")
    assert shop.run() == "output: run is a file; name a folder"
    (shop.folder / "run").unlink()
    (shop.folder / "run").mkdir()
    (shop.folder / "run" / "thesis.txt").touch()
    assert (
        shop.run()
        == "output: run has files in it and is no run (no config.toml); name a new folder"
    )
    (shop.folder / "run" / "thesis.txt").unlink()
    (shop.folder / "run" / "config.toml").write_text('task = "other"')
    assert shop.run() == "output: run is the run of another task, other; name another folder"


def test_models_and_tokenizers_that_do_not_belong_together(shop: Shop) -> None:
    from transformers import BertForMaskedLM

    config = BertConfig.from_pretrained(shop.mlm, vocab_size=50)
    BertForMaskedLM(config).save_pretrained(shop.mlm)
    message = shop.run()
    assert message.startswith("model: model has 50 tokens, its tokenizer 2")
    assert message.endswith("they are not of the same model")


def test_a_student_that_is_not_there(shop: Shop) -> None:
    assert shop.run("--set", "distill.model=mood") == (
        "distill.model: mood has no config.json; name a folder that a model is in"
    )


def test_weights_that_cannot_be_fitted(shop: Shop) -> None:
    shop.table("labelled", text=TEXTS[1:3], label=["sad", "happy"])
    assert shop.run("--set", "ensemble.weights=fitted") == (
        "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and no "
        "label has two; add rows, or take 'uniform'"
    )


def test_a_file_where_the_tasks_folder_is_needed(shop: Shop) -> None:
    message = "mood/task.toml: a file; name the task's folder, mood"
    assert shop.pet("patterns", "mood/task.toml") == message
    assert shop.pet("run", "--task", "mood/task.toml") == message


def test_a_run_that_is_at_work(shop: Shop) -> None:
    with Run(shop.folder / "run", config='task = "mood"'):
        assert shop.run() == "run: another process is at work on this run"


def test_stages(shop: Shop) -> None:
    assert shop.run("--until", "fintune") == (
        "stage 'fintune': no such stage in this run; did you mean 'finetune'?"
    )
    assert shop.run("--force", "gen-7/finetune").startswith(
        "stage 'gen-7/finetune': no such stage in this run"
    )


PREDICT = {
    ("--text", "a", "--table", "t.csv"): 'predict: give --text "..." or --table FILE, one of them',
    (): 'predict: give --text "..." or --table FILE, one of them',
    ("--table", "pool.parquet"): "predict: --table needs --output FILE.parquet for the labels",
    ("--text", "a", "--output", "o"): (
        "predict: --output goes with --table; what --text gets is shown here"
    ),
    ("--text", "a"): "mood: no classifier; name the folder that a run's last lines show",
}


@pytest.mark.parametrize("options", PREDICT, ids=str)
def test_predict(shop: Shop, options: tuple[str, ...]) -> None:
    assert shop.pet("predict", "mood", *options) == PREDICT[options]


def test_predict_without_a_folder(shop: Shop) -> None:
    assert shop.pet("predict", "nowhere", "--text", "a") == (
        "nowhere: no such folder; name the classifier of a run"
    )


def test_predict_with_a_model_that_is_no_classifier(shop: Shop) -> None:
    assert shop.pet("predict", "model", "--text", "a") == (
        "model: a model without a classification head; name a classifier"
    )


def test_status_of_what_is_no_run(shop: Shop) -> None:
    assert shop.pet("status", "mood") == (
        "mood: no run (no config.toml); name the folder that --output named"
    )


def test_patterns_options(shop: Shop) -> None:
    assert shop.pet("patterns", "mood", "--prior") == (
        "--prior: needs --model and --table; it is the model's view of the rows"
    )
    table = ("patterns", "mood", "--table", "pool.parquet")
    assert shop.pet(*table, "--column", "text") == "--column text: write COLUMN=NAME"
    assert shop.pet(*table, "--column", "txt=a") == (
        "--column txt=a: 'txt' is no column here; did you mean 'text'?"
    )
