"""What a user can get wrong: each mistake's whole message, exit code 2, and nothing trained."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from testing import save_t5, wordpiece_tokenizer
from transformers import (
    BartConfig,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
)
from typer.testing import CliRunner

from pet_pipeline.classifier import Classifier
from pet_pipeline.cli import app
from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.models import ModelFolder

LABELS = ["sad", "sad", "happy", "happy"]
TEXTS = ["bad day", "awful food", "great day", "good food"]
UNLABELLED = [f"{text} again" for text in TEXTS]
NO_ROWS = pa.array([], pa.string())
TASK = 'columns = ["text"]\nlabels = ["sad", "happy"]\n'
WORDS = '[verbalizer]\nsad = ["bad"]\nhappy = ["good"]\n'
FORMATS = "'.parquet', '.csv', '.tsv', '.jsonl', '.ndjson', '.json'"
MODEL_KINDS = "name one such as bert, roberta, deberta-v2 or modernbert"


class Shop:
    """A folder with everything a run needs, to be broken in one place."""

    def __init__(self, folder: Path, mlm: Path, task: Path):
        self.folder, self.mlm = folder, folder / "model"
        shutil.copytree(mlm, self.mlm)
        shutil.copytree(task, folder / "mood")
        self.table("labelled", text=TEXTS, label=LABELS)
        self.table("test", text=TEXTS, label=LABELS)
        self.table("pool", text=UNLABELLED)

    def table(self, name: str, **columns: Any) -> None:
        pq.write_table(pa.table(columns), self.folder / f"{name}.parquet")

    def write(self, name: str, text: str | bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    def encoder(self) -> Path:
        """A copy of the model, for `distill.model=enc`."""
        return Path(shutil.copytree(self.mlm, self.folder / "enc"))

    def classifier(self, *columns: str) -> None:
        made = Classifier.new(ModelFolder(self.mlm), ("sad", "happy"), columns, 16, seed=0)
        made.save(self.folder / "clf")

    def pet(self, *words: str) -> str:
        """The message of a command that ends with exit code 2 and has trained nothing."""
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
        assert not list((self.folder / "run").rglob("finetune"))
        before, _, message = result.stderr.partition("error: ")  # what was done so far, and it
        assert "Traceback" not in before
        return message.rstrip("\n").replace(f"{self.folder}/", "")


@pytest.fixture
def shop(tmp_path: Path, tiny_mlm: Path, tiny_task: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path, tiny_mlm, tiny_task)


RUN = (
    *("run", "--task", "mood", "--model", "model", "--output", "run"),
    *("--labelled", "labelled.parquet", "--pool", "pool.parquet", "--test", "test.parquet"),
)
Break = Callable[[Shop], object]
Row = tuple[Break | None, tuple[str, ...], str]


def right(shop: Shop) -> None:
    """Nothing is broken but the command."""


def sets(*values: str) -> tuple[str, ...]:
    return (*RUN, *(word for value in values for word in ("--set", value)))


def on(name: str, file: str) -> tuple[str, ...]:
    return (*RUN, f"--{name}", file)


def table(name: str, **columns: Any) -> Break:
    return lambda shop: shop.table(name, **columns)


def written(name: str, text: str | bytes) -> Break:
    return lambda shop: shop.write(name, text)


def saved(name: str, made: Callable[[], Any]) -> Break:
    return lambda shop: made().save_pretrained(shop.folder / name)


def student(change: Callable[[Path], object]) -> Break:
    return lambda shop: change(shop.encoder())


def tiny_bert(kind: Any, **config: Any) -> Callable[[], Any]:
    def made() -> Any:
        size = {"vocab_size": len(wordpiece_tokenizer()), "hidden_size": 32, **config}
        more = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        return kind(BertConfig(max_position_embeddings=256, **size, **more))

    return made


def forget_mask(shop: Shop) -> None:
    file = shop.mlm / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("mask_token")
    file.write_text(json.dumps(config))


def pickled(shop: Shop) -> None:
    shop.remove("model/model.safetensors")
    torch.save({"weight": Path("of another class")}, shop.mlm / "pytorch_model.bin")


def forget_padding(folder: Path) -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)


def mixed_folder(shop: Shop) -> None:
    shop.write("mixed/a.csv", "text\na\n")
    shop.write("mixed/b.jsonl", '{"text": "b"}\n')


SETTINGS: dict[str, Row] = {
    "section": (
        right,
        sets("finetun.steps=1"),
        "settings: finetun: no such setting; did you mean 'finetune'?",
    ),
    "key": (
        right,
        sets("finetune.step=1"),
        "settings: finetune.step: no such setting; did you mean 'steps'?",
    ),
    "type": (
        right,
        sets("finetune.steps=many"),
        "settings: finetune.steps: should be a number of updates, 0 or more, or \"auto\"; found 'many'",
    ),
    "not a section": (
        right,
        sets("finetune=3"),
        "settings: finetune: a section is needed, [finetune]; found 3",
    ),
    "range": (
        right,
        sets("finetune.steps=-1"),
        'settings: finetune.steps: should be a number of updates, 0 or more, or "auto"; found -1',
    ),
    "jobs": (
        right,
        (*RUN, "--jobs", "-1"),
        "settings: machine.jobs: input should be greater than or equal to 0; found -1",
    ),
    "infinite": (
        right,
        sets("distill.clip=inf"),
        "settings: distill.clip: input should be a finite number; found inf",
    ),
    "seeds twice": (
        right,
        sets("finetune.seeds=[1, 1]"),
        "settings: finetune.seeds: duplicate value 1; found [1, 1]",
    ),
    "no seeds": (
        right,
        sets("finetune.seeds=[]"),
        "settings: finetune.seeds: value should have at least 1 item after validation, not 0; found []",
    ),
    "choice": (
        right,
        sets("ensemble.fit_on=best"),
        "settings: ensemble.fit_on: input should be 'folds' or 'development'; found 'best'",
    ),
    "weights": (
        right,
        sets("ensemble.weights=wman", "calibration.method=yes"),
        "2 problems:\n"
        "  - ensemble.weights: 'wman' is not one of 'uniform', 'wmean', 'fitted'; did you mean "
        "'wmean'?\n"
        "  - calibration.method: 'yes' is not one of 'none', 'contextual', 'pmi'",
    ),
    "several": (
        right,
        sets("finetune.step=1", "baseline.steps=0"),
        "2 problems:\n"
        "  - settings: finetune.step: no such setting; did you mean 'steps'?\n"
        "  - settings: baseline.steps: input should be greater than or equal to 1; found 0",
    ),
    "set without =": (
        right,
        sets("finetune.steps"),
        "--set finetune.steps: no '='; write section.key=value",
    ),
    "bad TOML": (
        written("my.toml", "task = 'a'\ntask = 'b'\n"),
        ("run", "my.toml"),
        "my.toml: Cannot overwrite a value (at line 2, column 11)",
    ),
    "no TOML": (
        written("my.toml", b"\xff\xfe"),
        ("run", "my.toml"),
        "my.toml: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "settings in a file": (
        written("my.toml", "[finetune]\nstep = 1\n"),
        ("config", "my.toml"),
        "my.toml: finetune.step: no such setting; did you mean 'steps'?",
    ),
    "no settings file": (
        written("my.toml", ""),
        ("run", "mine.toml"),
        "mine.toml: no such settings file; did you mean 'my.toml'?",
    ),
    "a folder for settings": (
        right,
        ("run", "mood"),
        "mood: a folder; a settings file is needed, such as my.toml",
    ),
    "nothing": (
        right,
        ("run",),
        "nothing to run: give a settings file, or --labelled, --pool, and --test and --task if "
        "you have them; the demo is data/support/demo.toml",
    ),
    "wmean without labels": (
        right,
        (*RUN, "--labelled", "", "--set", "ensemble.weights=wmean"),
        "ensemble.weights: 'wmean' needs labelled texts, data.labelled; 'uniform' does not",
    ),
    "fitted without labels": (
        right,
        (*RUN, "--labelled", "", "--set", "ensemble.weights=fitted"),
        "ensemble.weights: 'fitted' needs labelled texts, data.labelled; 'uniform' does not",
    ),
    "fitted without a development table": (
        right,
        sets("ensemble.weights=fitted", "ensemble.fit_on=development"),
        "ensemble.fit_on: 'development' needs data.development; 'folds' does not",
    ),
    "fitted on one row per label": (
        right,
        sets("ensemble.weights=fitted", "data.k=1"),
        "ensemble.weights: 'fitted' holds out some rows of a label to tune on the others, and no "
        "label has two; add rows, or take 'uniform'",
    ),
}

NO_MASK = "template has 0 {mask}; exactly one is needed, however long the words"
PATTERNS = {
    'template = "{text} fine"': NO_MASK,
    'template = "{mask} {text} {mask}"': NO_MASK.replace("0", "2"),
    'template = "{text} {sep} {mask} {sep}"': (
        "template has 2 {sep}; a model takes at most two segments"
    ),
    'template = "{txet} {mask}"': "{txet} is not a column of this task; did you mean 'text'?",
    'template = "{text:keeep} {mask}"': "{text:keeep}: no such spec; did you mean 'keep'?",
    'template = "{text} {mask"': "template: expected '}' before end of string",
    'template = "{text!r} {mask}"': (
        "template: {text...}: only {name} and {name:spec,spec} are read"
    ),
    'template = "{mask}"': "template has no text column; there are 'text'",
    "": 'no template; write template = "... {mask} ..."',
    f'{WORDS}template = "{{text}} {{mask}}"': (
        "template must come before [verbalizer]; after it, it counts as a label"
    ),
    'template = "{text} {mask}"\n[verbalizer]\nsad = ["bad"]': (
        "verbalizer: no word for label 'happy'"
    ),
    f'template = "{{text}} {{mask}}"\n{WORDS}hapy = ["great"]': (
        "verbalizer: 'hapy' is not a label of this task; did you mean 'happy'?"
    ),
    'template = "{text} {mask}"\n[verbalizer]\nsad = ["bad"]\nhappy = ["bad"]': (
        "verbalizer: 'bad' is used for both 'sad' and 'happy'"
    ),
    'template = "{text} {mask}"\n[verbalizer]\nsad = ["bad"]\nhappy = [" good"]': (
        "verbalizer: ' good' has spaces around it; the template says where they are"
    ),
}
TASKS = {
    f'{TASK}metric = "acuracy"\n{WORDS}': (
        "metric: 'acuracy' is not a metric; did you mean 'accuracy'?"
    ),
    'columns = ["text"]\nlabels = ["a", "b", "c"]\nmetric = "f1"': (
        "metric: 'f1' is for two labels, here are 3; 'f1_macro' is for any number"
    ),
    'columns = ["text"]\nlabels = ["sad", "sad"]': "labels: 'sad', 'sad' has a duplicate name",
    'columns = ["id"]\nlabels = ["sad", "happy"]': (
        "columns: 'id' has a meaning of its own; give the column another name"
    ),
    'labels = ["sad", "happy"]': (
        'columns: a list of strings is needed, such as ["a", "b"]; found None'
    ),
    f"{TASK}lables = []": "unknown key 'lables'; did you mean 'labels'?",
}
TASK_FOLDERS: dict[str, Row] = {
    "no such task": (
        right,
        (*RUN, "--task", "moood"),
        "moood/task.toml: no such task; did you mean 'mood'?",
    ),
    "a file for a task": (
        right,
        (*RUN, "--task", "mood/task.toml"),
        "mood/task.toml: a file; name the task's folder, mood",
    ),
    "a file for a task to look at": (
        right,
        ("patterns", "mood/task.toml"),
        "mood/task.toml: a file; name the task's folder, mood",
    ),
    "no patterns": (
        lambda shop: shop.remove("mood/it_was.toml", "mood/just.toml", "mood/mood.toml"),
        RUN,
        "mood: no pattern; add a file with template = '... {mask} ...'",
    ),
    "no such pattern": (
        right,
        sets('patterns=["it_was", "jist"]'),
        "patterns: 'jist' is not a pattern of the task mood; did you mean 'just'?",
    ),
    "no pattern that is default": (
        lambda shop: [
            shop.write(f"mood/{name}.toml", 'template = "{text} {mask}"\ndefault = false')
            for name in ("it_was", "just", "mood")
        ],
        RUN,
        "patterns: not set, and every pattern of the task mood has default = false; choose from "
        "'it_was', 'just', 'mood'",
    ),
    "two bad patterns": (
        lambda shop: (
            shop.write("mood/a.toml", 'tempalte = "{text} {mask}"'),
            shop.write("mood/b.toml", 'template = "{text}"'),
        ),
        RUN,
        "3 problems:\n"
        "  - mood/a.toml: unknown key 'tempalte'; did you mean 'template'?\n"
        '  - mood/a.toml: no template; write template = "... {mask} ..."\n'
        f"  - mood/b.toml: {NO_MASK}",
    ),
}

TABLES: dict[str, Row] = {
    "neither labels nor a pool": (
        right,
        (*on("pool", ""), "--labelled", ""),
        "data.labelled, data.pool: neither is set; give labelled texts, --labelled FILE, "
        "unlabelled ones, --pool FILE, or both",
    ),
    "neither a pool nor the baseline": (
        right,
        (*on("pool", ""), "--set", "baseline.enabled=false"),
        "data.pool: not set, and with baseline.enabled = false nothing would be trained; give "
        "unlabelled texts, --pool FILE, or enable the baseline",
    ),
    "no such table, and no such column": (
        table("test", txt=TEXTS, label=LABELS),
        on("pool", "pol.parquet"),
        "2 problems:\n"
        "  - data.test: test.parquet has no column 'text'; it has 'txt', 'label'; if it is 'txt', "
        'add --text-column txt (data.columns = {text = "txt"})\n'
        "  - data.pool: pol.parquet: no such file or folder; did you mean 'pool.parquet'?",
    ),
    "no label column": (
        right,
        on("labelled", "pool.parquet"),
        "data.labelled: pool.parquet has no column 'label'; it has 'text'",
    ),
    "another label column": (
        table("labelled", text=TEXTS, mood=LABELS, n=[1, 2, 3, 4]),
        RUN,
        "data.labelled: labelled.parquet has no column 'label'; it has 'text', 'mood', 'n'; name "
        'it: --label-column NAME (data.columns = {label = "NAME"})',
    ),
    "columns of a CSV with semicolons": (
        written("labelled.csv", "message;category\nbad, so bad;sad\ngood, so good;happy\n"),
        on("labelled", "labelled.csv"),
        "2 problems:\n"
        "  - data.labelled: labelled.csv has no column 'text'; with the delimiter ';' it has "
        "'message', 'category'; if it is 'message', add --text-column message "
        '(data.columns = {text = "message"})\n'
        "  - data.labelled: labelled.csv has no column 'label'; with the delimiter ';' it has "
        "'message', 'category'; if it is 'category', add --label-column category "
        '(data.columns = {label = "category"})',
    ),
    "a CSV with another delimiter": (
        written("pool.csv", "n^text\n1^bad day\n2^good day\n"),
        on("pool", "pool.csv"),
        "data.pool: pool.csv has no column 'text'; no delimiter (',', ';', '\\t', '|') was found, "
        "and it has 'n^text'; if it is 'n^text', add --text-column 'n^text' "
        '(data.columns = {text = "n^text"})',
    ),
    "a text column that a table lacks": (
        table("labelled", message=TEXTS, label=LABELS),
        (*RUN, "--test", "", "--text-column", "message"),
        "data.pool: pool.parquet has no column 'message'; it has 'text'; data.columns is for all "
        "tables: rename it in this one",
    ),
    "too many text columns": (
        right,
        (*RUN, "--text-column", "a", "--text-column", "b"),
        "--text-column: 2 given, 'a', 'b'; the task has 'text': give one for each, in this order",
    ),
    "no development table": (
        right,
        sets("data.development=dev.parquet"),
        "data.development: dev.parquet: no such file or folder; did you mean 'test.parquet'?",
    ),
    "mapping of a column that the task does not have": (
        right,
        sets("data.columns={txt='text'}"),
        "data.columns: 'txt' is not a column of the task; did you mean 'text'?",
    ),
    "mapping to a column that the tables do not have": (
        right,
        sets("data.columns={text='message'}", "data.test=''", "data.labelled=''"),
        "data.pool: pool.parquet has no column 'message'; it has 'text'; data.columns is for all "
        "tables: rename it in this one",
    ),
    "unknown label": (
        table("labelled", text=TEXTS, label=["sad", "sad", "hapy", "hapy"]),
        RUN,
        "labelled.parquet: 'hapy' (2 rows) is not a label of the task; did you mean 'happy'?",
    ),
    "three unknown labels": (
        table("labelled", text=TEXTS, label=["hapy", "sat", "hapy", "neutral"]),
        RUN,
        "3 problems:\n"
        "  - labelled.parquet: 'hapy' (2 rows) is not a label of the task; did you mean 'happy'?\n"
        "  - labelled.parquet: 'sat' (1 row) is not a label of the task; did you mean 'sad'?\n"
        "  - labelled.parquet: 'neutral' (1 row) is not a label of the task; there are 'sad', "
        "'happy'",
    ),
    "a label without rows": (
        table("labelled", text=["bad day", "awful food"], label=["sad", "sad"]),
        RUN,
        "labelled.parquet: no row is labelled 'happy', and a label without rows is never predicted "
        "after tuning; label one row, or leave the label out of task.toml",
    ),
    "numbered labels": (
        table("labelled", text=TEXTS, label=[0, 0, 0, 0]),
        RUN,
        "labelled.parquet: '0' (4 rows) is not a label of the task; there are 'sad', 'happy'",
    ),
    "no label": (
        table("test", text=TEXTS, label=["sad", None, "happy", "happy"]),
        RUN,
        "test.parquet: 1 row without a label; the pool is for those",
    ),
    "mistakes in two tables": (
        lambda shop: (
            shop.table("labelled", text=TEXTS, label=["sad", "sad", "hapy", "happy"]),
            shop.table("test", id=[1, 1, 2, 3], text=TEXTS, label=LABELS),
        ),
        RUN,
        "2 problems:\n"
        "  - labelled.parquet: 'hapy' (1 row) is not a label of the task; did you mean 'happy'?\n"
        "  - test.parquet: row 1 has a duplicate id (1 such row); ids must be "
        "unique; without the column, row numbers serve",
    ),
    "duplicate id": (
        table("pool", id=["a", "b", "a", "c"], text=UNLABELLED),
        RUN,
        "pool.parquet: row 2 has a duplicate id (1 such row); ids must be unique; "
        "without the column, row numbers serve",
    ),
    "texts with several labels": (
        lambda shop: (
            shop.table("labelled", text=["Bad  day", "b", "Bad day", "d"], label=LABELS),
            shop.table("test", text=["x", "x", "x", "y"], label=LABELS),
        ),
        RUN,
        "2 problems:\n"
        "  - labelled.parquet: 'Bad day' is labelled 'sad' (row 0) and 'happy' (row 2); "
        "keep one label\n"
        "  - test.parquet: 'x' is labelled 'sad' (rows 0, 1) and 'happy' (row 2); keep one label",
    ),
    "a pool of test texts alone": (
        table("pool", text=[" BAD day", *TEXTS]),
        RUN,
        "data.pool: all 5 texts of pool.parquet are in data.test too, and copies of test texts are "
        "left out of the pool; give other texts",
    ),
    "null id": (
        table("labelled", id=["a", None, "b", "c"], text=TEXTS, label=LABELS),
        RUN,
        "labelled.parquet: 1 row has no id; fill or drop the column",
    ),
    "rows without text": (
        table("labelled", text=["a", " ", "b", None], label=LABELS),
        RUN,
        "labelled.parquet: row 1 has no text in 'text' (2 such rows); drop them",
    ),
    "no labelled rows": (
        table("labelled", text=NO_ROWS, label=NO_ROWS),
        RUN,
        "data.labelled: labelled.parquet has no rows",
    ),
    "no rows in the pool": (
        table("pool", text=NO_ROWS),
        RUN,
        "data.pool: pool.parquet has no rows",
    ),
    "k": (
        right,
        sets("data.k=9"),
        "labelled.parquet: 'sad' has 2 rows, data.k = 9; lower data.k or add rows",
    ),
    "no Parquet": (
        written("pool.parquet", "PAR1 and no more"),
        RUN,
        "data.pool: pool.parquet: cannot be read: Parquet magic bytes not found in footer. Either "
        "the file is corrupted or this is not a parquet file.",
    ),
    "lines of other lengths": (
        written("pool.csv", "text,more\na\n"),
        on("pool", "pool.csv"),
        "data.pool: pool.csv: cannot be read: CSV parse error: Row #2: Expected 2 columns, got 1: a",
    ),
    "no UTF-8": (
        written("pool.csv", "text\né\n".encode("latin-1")),
        on("pool", "pool.csv"),
        "pool.csv: cannot be read: is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
    ),
    "bad JSON": (
        written("pool.jsonl", '{"text": "a"}\n{"text": \n'),
        on("pool", "pool.jsonl"),
        "data.pool: pool.jsonl: cannot be read: JSON parse error: Invalid value. in row 1",
    ),
    "unknown kind of file": (
        written("pool.xls", ""),
        on("pool", "pool.xls"),
        f"data.pool: pool.xls: no table found; one of {FORMATS} is needed",
    ),
    "files of two kinds": (
        mixed_folder,
        on("pool", "mixed"),
        f"data.pool: mixed: 'csv', 'json' found; one of {FORMATS} is needed",
    ),
    "unknown protocol": (
        right,
        on("pool", "s4://bucket/pool.csv"),
        "data.pool: s4://bucket/pool.csv: cannot be read: Protocol not known: s4",
    ),
}

FEW_WORDS = 'template = "{{text}} {{mask}}"\n[verbalizer]\nsad = ["{}"]\nhappy = ["{}"]\n'
WEIGHTS = "model cannot be loaded: Error while deserializing header"
MODELS: dict[str, Row] = {
    "no folder": (
        right,
        (*RUN, "--model", "./modell"),
        "model: ./modell: no such folder, and not a hub name; did you mean 'model'?",
    ),
    "no model in it": (
        right,
        (*RUN, "--model", "mood"),
        "model: mood has no config.json; name a folder that contains a model",
    ),
    "not in the cache": (
        right,
        (*RUN, "--model", "no-such-model"),
        "model: no-such-model is not a folder here, is not in the cache, and the hub cannot be reached",
    ),
    "no configuration": (
        written("model/config.json", '{"hidden_size": 8}'),
        RUN,
        "model: model: no configuration: Unrecognized model in model. Should have a `model_type` "
        "key in its config.json.",
    ),
    "causal": (
        saved("model", lambda: GPT2Config(n_layer=1)),
        RUN,
        f"model: model is a gpt2 model, which has no masked-LM head; {MODEL_KINDS}",
    ),
    "encoder and decoder": (
        saved("model", T5Config),
        RUN,
        f"model: model is a t5 model, which has no masked-LM head; {MODEL_KINDS}",
    ),
    "of another kind than its weights": (
        saved("model", BartConfig),
        RUN,
        "model: model has no trained masked-LM head (missing: lm_head.weight); "
        "name the model that was pretrained, not one tuned for another task",
    ),
    "a classifier": (
        saved("model", tiny_bert(BertForSequenceClassification)),
        RUN,
        "model: model has no trained masked-LM head (missing: cls.predictions.bias); "
        "name the model that was pretrained, not one tuned for another task",
    ),
    "broken weights": (
        written("model/model.safetensors", b"no weights"),
        RUN,
        f"model: {WEIGHTS}: header too large",
    ),
    "half of the weights": (
        lambda shop: shop.write(
            "model/model.safetensors", (shop.mlm / "model.safetensors").read_bytes()[:9000]
        ),
        RUN,
        f"model: {WEIGHTS}: incomplete metadata, file not fully covered",
    ),
    "no weights": (
        lambda shop: shop.remove("model/model.safetensors"),
        RUN,
        "model: model cannot be loaded: Error no file named model.safetensors, or pytorch_model.bin, found in directory model.",
    ),
    "a pickle of more than weights": (
        pickled,
        RUN,
        "model: model: its pytorch_model.bin holds more than weights and is not loaded; convert "
        "it: load the model where you trust it and call model.save_pretrained(FOLDER)",
    ),
    "no mask": (forget_mask, RUN, "model: model has no mask token; name a masked LM"),
    "no tokenizer": (
        lambda shop: shop.remove("model/tokenizer.json", "model/tokenizer_config.json"),
        RUN,
        "model: model has no tokenizer; it belongs in the same folder",
    ),
    "half a tokenizer": (
        lambda shop: shop.remove("model/tokenizer.json"),
        RUN,
        "model: model: no tokenizer: Couldn't instantiate the backend tokenizer from one of; "
        "its files belong in the same folder",
    ),
    "another model's tokenizer": (
        saved("model", tiny_bert(BertForMaskedLM, vocab_size=99)),
        RUN,
        f"model: model has 99 tokens, its tokenizer {len(wordpiece_tokenizer())}; "
        "they are not of the same model",
    ),
    "unknown word": (
        written("mood/bad.toml", FEW_WORDS.format("中", "great")),
        RUN,
        "pattern 'bad': label word '中' has tokens that the model does not know",
    ),
    "unknown word, looked at": (
        written("mood/bad.toml", FEW_WORDS.format("中", "great")),
        ("patterns", "mood", "--model", "model"),
        "pattern 'bad': label word '中' has tokens that the model does not know",
    ),
    "the same tokens": (
        written("mood/bad.toml", FEW_WORDS.format("Great", "great")),
        RUN,
        "pattern 'bad': label words 'Great' (sad) and 'great' (happy) are the same tokens for "
        "this model",
    ),
    "no room for the text": (
        written("mood/bad.toml", 'template = "{text} in summary it was {mask}."'),
        sets("finetune.max_tokens=8"),
        "pattern 'bad': its own words and masks take 8 of max_tokens = 8, which leaves none for "
        "the text",
    ),
    "max_tokens too few": (
        right,
        sets("finetune.max_tokens=4"),
        "finetune.max_tokens: 4 is too few; the minimum is 8",
    ),
    "max_tokens too many": (
        right,
        sets("baseline.max_tokens=300", "distill.max_tokens=400"),
        "2 problems:\n"
        "  - baseline.max_tokens: 300 is more than the model reads, 256\n"
        "  - distill.max_tokens: 400 is more than the model reads, 256",
    ),
}

ENC = "distill.model=enc"
STUDENTS: dict[str, Row] = {
    "no folder": (
        right,
        sets("distill.model=./modell"),
        "distill.model: ./modell: no such folder, and not a hub name; did you mean 'model'?",
    ),
    "no model in it": (
        right,
        sets("distill.model=mood"),
        "distill.model: mood has no config.json; name a folder that contains a model",
    ),
    "broken weights": (
        student(lambda folder: (folder / "model.safetensors").write_bytes(b"")),
        sets(ENC),
        "distill.model: enc cannot be loaded: Error while deserializing header: header too small",
    ),
    "no tokenizer": (
        student(lambda folder: [file.unlink() for file in folder.glob("tokenizer*")]),
        sets(ENC),
        "distill.model: enc has no tokenizer; it belongs in the same folder",
    ),
    "no padding": (
        student(forget_padding),
        sets(ENC),
        "distill.model: enc has no padding token; name one such as bert or roberta",
    ),
    "causal": (
        student(
            lambda folder: GPT2LMHeadModel(
                GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=300)
            ).save_pretrained(folder)
        ),
        sets(ENC),
        "distill.model: a gpt2 model without a padding token; name one such as bert or roberta",
    ),
    "max_tokens": (
        student(lambda folder: None),
        sets(ENC, "distill.max_tokens=300"),
        "distill.max_tokens: 300 is more than distill.model reads, 256",
    ),
}

TEMPLATES = "search.templates=true"
EXAMPLES = "demonstrations.enabled=true"
T5 = (TEMPLATES, 'search.generators=["mlm", "t5"]')
SEARCHES: dict[str, Row] = {
    "generator": (
        right,
        sets('search.generators=["nlm"]'),
        "search.generators: 'nlm' is not one of 'mlm', 't5', 'autoprompt', 'mine', 'connectors'; did you mean 'mlm'?",
    ),
    "generators": (
        right,
        sets("search.generators=mlm"),
        "settings: search.generators: a list is needed, [...]; found 'mlm'",
    ),
    "label words": (
        right,
        sets("search.label_words=yes"),
        "search.label_words: 'yes' is not one of 'none', 'assignment', 'amulap'",
    ),
    "without labels": (
        right,
        (*sets(TEMPLATES, EXAMPLES, "search.label_words=amulap"), "--labelled", ""),
        "3 problems:\n"
        "  - search.templates: needs labelled texts, data.labelled\n"
        "  - search.label_words: needs labelled texts, data.labelled\n"
        "  - demonstrations.enabled: needs labelled texts, data.labelled",
    ),
    "templates on one row per label": (
        right,
        sets(TEMPLATES, "data.k=1"),
        "search.templates: compares templates on some rows of a label after tuning on the others, "
        "and no label has two; add rows",
    ),
    "label words for a label without rows": (
        table("labelled", text=["bad day", "awful food"], label=["sad", "sad"]),
        sets("search.label_words=amulap"),
        "labelled.parquet: no row is labelled 'happy', and a label without rows is never predicted "
        "after tuning; label one row, or leave the label out of task.toml",
    ),
    "no t5": (
        right,
        sets(*T5),
        "search.t5: not set; the generator 't5' needs a model with sentinels, such as t5-base",
    ),
    "no folder of a t5": (
        right,
        sets(*T5, "search.t5=./modell"),
        "search.t5: ./modell: no such folder, and not a hub name; did you mean 'model'?",
    ),
    "no t5 in the folder": (
        right,
        sets(*T5, "search.t5=model"),
        "search.t5: model is a bert model, which does not write text from text; name one such as t5",
    ),
    "a t5 without sentinels": (
        lambda shop: (
            save_t5(shop.folder / "t5"),
            wordpiece_tokenizer().save_pretrained(shop.folder / "t5"),
        ),
        sets(*T5, "search.t5=t5"),
        "search.t5: t5 has no <extra_id_0>; name a T5 or another model that was trained with such sentinels",
    ),
    "no room for demonstrations": (
        right,
        sets(EXAMPLES, "demonstrations.max_tokens=128"),
        "demonstrations.max_tokens: 128 leaves no room beside an input of finetune.max_tokens = 128",
    ),
    "demonstrations are too long": (
        right,
        sets(EXAMPLES, "demonstrations.max_tokens=300"),
        "demonstrations.max_tokens: 300 is more than the model reads, 256",
    ),
    "no encoder": (
        right,
        sets(EXAMPLES, "demonstrations.encoder=./modell"),
        "demonstrations.encoder: ./modell: no such folder, and not a hub name; did you mean 'model'?",
    ),
    "a broken encoder": (
        student(lambda folder: (folder / "model.safetensors").write_bytes(b"")),
        sets(EXAMPLES, "demonstrations.encoder=enc"),
        "demonstrations.encoder: enc cannot be loaded: Error while deserializing header: header too small",
    ),
    "filter": (
        right,
        sets("demonstrations.filter=0.0"),
        "settings: demonstrations.filter: input should be greater than 0; found 0.0",
    ),
    "calibration": (
        right,
        sets("calibration.prior=yes"),
        "settings: calibration.prior: input should be 'content-free' or 'pool'; found 'yes'",
    ),
    "the former name of a generator": (
        right,
        sets('search.generators=["mlm", "seed"]'),
        "search.generators: 'seed' is not one of 'mlm', 't5', 'autoprompt', 'mine', 'connectors'; "
        "its name is now 'connectors'",
    ),
    "label words and weights by the same rows": (
        right,
        sets("search.label_words=assignment", "ensemble.weights=fitted"),
        "ensemble.weights: 'fitted' would weigh models on the labelled rows that "
        "search.label_words chose their words on; take 'uniform', or 'fitted' with "
        'ensemble.fit_on = "development"',
    ),
}

NEW_NAME = "this setting has a new name; write"
FORMER: dict[str, Row] = {
    "revision": (
        right,
        sets("revision=v1"),
        f'settings: revision: {NEW_NAME} model = "NAME@REVISION"',
    ),
    "section": (
        written("my.toml", "[pooling]\n"),
        ("config", "my.toml"),
        f"my.toml: pooling: {NEW_NAME} [calibration]",
    ),
    "two of a section": (
        written("my.toml", "[pooling]\ncalibrate = 'pmi'\nprior = 'pool'\n"),
        ("run", "my.toml"),
        "2 problems:\n"
        f"  - my.toml: pooling.calibrate: {NEW_NAME} calibration.method\n"
        f"  - my.toml: pooling.prior: {NEW_NAME} calibration.prior",
    ),
    "likely": (
        right,
        sets("search.likely=9"),
        f"settings: search.likely: {NEW_NAME} search.candidates_per_label",
    ),
    "in a run": (
        written("run/config.toml", 'task = "mood"\n[pooling]\ncalibrate = "none"'),
        ("status", "run"),
        f"run/config.toml: pooling.calibrate: {NEW_NAME} calibration.method",
    ),
}

NO_HUB = "is not a folder here, is not in the cache, and the hub cannot be reached"
NO_DATA_SET = "the hub cannot be reached, and the data set is not in the cache"
IN_A_RUN = 'task = "mood"\nmodel = "{}"\n[data]\npool = "{}"'
OFFLINE: dict[str, Row] = {
    "model": (
        right,
        (*RUN, "--model", "no/such-model"),
        f"model: no/such-model {NO_HUB}",
    ),
    "model, in a plan": (
        right,
        (*RUN, "--model", "no/such-model", "--plan"),
        f"model: no/such-model {NO_HUB}",
    ),
    "model of a run": (
        written("run/config.toml", IN_A_RUN.format("no/such-model", "pool.parquet")),
        ("status", "run"),
        f"model: no/such-model {NO_HUB}",
    ),
    "model to look at patterns": (
        right,
        ("patterns", "mood", "--model", "no/such-model"),
        f"model: no/such-model {NO_HUB}",
    ),
    "model at a revision": (
        right,
        (*RUN, "--model", "no/such-model@v1"),
        f"model: no/such-model {NO_HUB}",
    ),
    "model of a commit": (
        right,
        (*RUN, "--model", f"no/such-model@{'0' * 40}", "--set", "learning_rate=1e-4"),
        "model: no/such-model: no configuration: We couldn't connect to 'https://huggingface.co' "
        "to load the files, and couldn't find them in the cached files.",
    ),
    "model of a commit, whose size is not known": (
        right,
        (*RUN, "--model", f"no/such-model@{'0' * 40}"),
        "no/such-model: its configuration cannot be fetched: An error happened while trying to "
        "locate the file on the Hub and we cannot find the requested files in the local cache. "
        "Please check your connection and try again or make sure your Internet connection is on.",
    ),
    "student": (
        right,
        sets("distill.model=no/such-model"),
        f"distill.model: no/such-model {NO_HUB}",
    ),
    "data set": (
        right,
        on("pool", "datasets:no/such-set:train"),
        f"data.pool: datasets:no/such-set:train: {NO_DATA_SET}",
    ),
    "two data sets": (
        right,
        (*on("pool", "datasets:no/such-set:train"), "--test", "datasets:no/such-set:test"),
        "2 problems:\n"
        f"  - data.test: datasets:no/such-set:test: {NO_DATA_SET}\n"
        f"  - data.pool: datasets:no/such-set:train: {NO_DATA_SET}",
    ),
    "data set of a run": (
        written("run/config.toml", IN_A_RUN.format("model", "datasets:no/such-set:train")),
        ("status", "run"),
        f"data.pool: datasets:no/such-set:train: {NO_DATA_SET}",
    ),
    "data set to look at patterns": (
        right,
        ("patterns", "mood", "--table", "datasets:no/such-set:train"),
        f"--table: datasets:no/such-set:train: {NO_DATA_SET}",
    ),
    "data set without a split": (
        right,
        on("pool", "datasets:no/such-set"),
        "data.pool: datasets:no/such-set: write datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT",
    ),
}

PLACES: dict[str, Row] = {
    "output is a file": (written("run", ""), RUN, "output: run is a file; name a folder"),
    "output below a file": (
        written("file", ""),
        (*RUN, "--output", "file/run"),
        "output: file/run: Not a directory; name another folder",
    ),
    "output has something else in it": (
        written("run/thesis.txt", ""),
        RUN,
        "output: run has files in it and is not a run (no config.toml); name a new folder",
    ),
    "output of another task": (
        written("run/config.toml", 'task = "other"'),
        RUN,
        "output: run is the run of another task, other; name another folder",
    ),
    "status of another version": (
        written("run/config.toml", 'task = "mood"\n[finetune]\nlearn_rate = 1.0'),
        ("status", "run"),
        "run/config.toml: finetune.learn_rate: no such setting; did you mean 'learning_rate'?",
    ),
    "until": (
        right,
        (*RUN, "--until", "fintune"),
        "stage 'fintune': no such stage in this run; did you mean 'finetune'?",
    ),
    "force": (
        right,
        (*RUN, "--force", "gen-7/finetune"),
        "stage 'gen-7/finetune': no such stage in this run; did you mean 'finetune'?",
    ),
    "only": (
        right,
        (*RUN, "--only", "adapt"),
        "stage 'adapt': no such stage in this run; there are 'annotate', 'crossfit', "
        "'distill', 'encode', 'ensemble', 'evaluate', 'finetune', 'prepare', 'report'",
    ),
    "two stages": (
        right,
        (*RUN, "--force", "destill", "--until", "prepar", "--plan"),
        "2 problems:\n"
        "  - stage 'destill': no such stage in this run; did you mean 'distill'?\n"
        "  - stage 'prepar': no such stage in this run; did you mean 'prepare'?",
    ),
    "status of no run": (
        right,
        ("status", "mood"),
        "mood: not a run (no config.toml); name the folder that --output named",
    ),
    "status of nothing": (
        right,
        ("status", "nowhere"),
        "nowhere: not a run (no config.toml); name the folder that --output named",
    ),
}


def predict(*words: str) -> tuple[str, ...]:
    return ("predict", "clf", *words)


READY: Break = lambda shop: shop.classifier("text")  # noqa: E731
ONE_OF = 'predict: give --text "..." or --table FILE, one of them'
POOL = ("--table", "pool.parquet")
SUFFIXES = "'.parquet', '.csv', '.tsv', '.jsonl', '.ndjson', '.json'"
PREDICT: dict[str, Row] = {
    "neither": (READY, predict(), ONE_OF),
    "both": (READY, predict("--text", "a", *POOL), ONE_OF),
    "no suffix": (
        READY,
        predict(*POOL, "--output", "labels"),
        f"--output: labels: it has no suffix; name a file that ends in {SUFFIXES}",
    ),
    "another suffix": (
        READY,
        predict(*POOL, "--output", "labels.xlsx"),
        "--output: labels.xlsx: '.xlsx' is not a suffix of tables; name a file that ends in "
        f"{SUFFIXES}",
    ),
    "json for a file": (
        READY,
        predict(*POOL, "--output", "o.csv", "--json"),
        "--json: for standard output; the suffix of --output is the format of a file",
    ),
    "format of a file": (
        READY,
        predict(*POOL, "--output", "o.csv", "--format", "csv"),
        "--format: goes with --table -, standard input; the suffix is the format of a file",
    ),
    "another format": (
        READY,
        predict("--table", "-", "--format", "json"),
        "--format json: not a format; did you mean 'jsonl'?",
    ),
    "threshold in percent": (
        READY,
        predict("--text", "a", "--threshold", "80"),
        "--threshold 80: a confidence from 0 to 1 is needed, such as 0.8",
    ),
    "a column of an added name": (
        lambda shop: (shop.classifier("text"), shop.table("t", text=TEXTS, confidence=[1] * 4)),
        predict("--table", "t.parquet", "--output", "o.csv"),
        "--table: t.parquet has a column 'confidence', and one of this name is added; rename or "
        "drop it",
    ),
    "a column that text files cannot have": (
        lambda shop: (shop.classifier("text"), shop.table("t", text=TEXTS, image=[b"x"] * 4)),
        predict("--table", "t.parquet", "--output", "o.csv"),
        "--output: o.csv: binary data, in 'image', cannot be written as text; name a .parquet "
        "file, or leave it out of the table",
    ),
    "nothing on standard input": (
        READY,
        predict("--table", "-", "--format", "jsonl"),
        "--table: standard input has no rows",
    ),
    "lines of text for a pair": (
        lambda shop: shop.classifier("premise", "hypothesis"),
        predict("--table", "-"),
        "--table: standard input is one text per line, and this classifier reads 'premise', "
        "'hypothesis'; give --format csv or jsonl",
    ),
    "output for a text": (
        READY,
        predict("--text", "a", "--output", "o.parquet"),
        "predict: --output goes with --table; the labels of --text are shown here",
    ),
    "pair for a table": (
        READY,
        predict(*POOL, "--output", "o.parquet", "--pair", "b"),
        "predict: --pair goes with --text; a table has the second texts in a column",
    ),
    "output is a folder": (
        READY,
        predict(*POOL, "--output", "mood"),
        "--output: mood is a folder; name a file, such as mood/labels.csv",
    ),
    "output below a file": (
        READY,
        predict(*POOL, "--output", "pool.parquet/o/o.parquet"),
        "--output: pool.parquet/o/o.parquet: Not a directory; name another file",
    ),
    "output in a file": (
        READY,
        predict(*POOL, "--output", "pool.parquet/o.parquet"),
        "--output: pool.parquet is a file; name a file in a folder",
    ),
    "no folder": (
        right,
        ("predict", "nowhere", "--text", "a"),
        "nowhere: no such folder; name the folder of a classifier or of a run",
    ),
    "no classifier": (
        right,
        ("predict", "mood", "--text", "a"),
        "mood: no classifier; name the folder of a run, or the one that its last lines show",
    ),
    "a model without the head": (
        right,
        ("predict", "model", "--text", "a"),
        "model: a model without a classification head; name a classifier",
    ),
    "pair for one text": (
        READY,
        predict("--text", "a", "--pair", "b"),
        "--pair: this classifier reads one text, 'text'",
    ),
    "no column": (
        lambda shop: (shop.classifier("text"), shop.table("t", txt=TEXTS)),
        predict("--table", "t.parquet", "--output", "o.parquet"),
        "--table: t.parquet has no column 'text'; it has 'txt'; if it is 'txt', add "
        "--column text=txt",
    ),
    "no columns of a pair": (
        lambda shop: shop.classifier("premise", "text"),
        predict(*POOL, "--output", "o.parquet", "--column", "premise=premiss"),
        "--table: pool.parquet has no column 'premiss'; it has 'text'",
    ),
    "bad mapping": (
        READY,
        predict(*POOL, "--output", "o.parquet", "--column", "text"),
        "--column text: write COLUMN=NAME",
    ),
    "mapping of an unknown column": (
        READY,
        predict(*POOL, "--output", "o.parquet", "--column", "txt=text"),
        "--column txt=text: 'txt' is not a column here; did you mean 'text'?",
    ),
    "no table": (
        READY,
        predict("--table", "pol.parquet", "--output", "o.parquet"),
        "--table: pol.parquet: no such file or folder; did you mean 'pool.parquet'?",
    ),
    "no rows": (
        lambda shop: (shop.classifier("text"), shop.table("t", text=NO_ROWS)),
        predict("--table", "t.parquet", "--output", "o.parquet"),
        "--table: t.parquet has no rows",
    ),
    "a table that cannot be read": (
        lambda shop: (shop.classifier("text"), shop.table("t", text=[["a"], ["b"]])),
        predict("--table", "t.parquet", "--output", "o.parquet"),
        "--table: t.parquet: cannot be read: Unsupported cast from list<element: string> to utf8 using function cast_string",
    ),
    "prior alone": (
        right,
        ("patterns", "mood", "--prior"),
        "--prior: needs --model and --table; it is the model's view of the rows",
    ),
    "prior of a broken model": (
        written("model/model.safetensors", b"no weights"),
        ("patterns", "mood", *POOL, "--model", "model", "--prior"),
        f"model: {WEIGHTS}: header too large",
    ),
    "patterns without a mask token": (
        forget_mask,
        ("patterns", "mood", "--model", "model"),
        "model: model has no mask token; name a masked LM",
    ),
    "patterns of a table that cannot be read": (
        lambda shop: shop.table("t", text=[["a"], ["b"]]),
        ("patterns", "mood", "--table", "t.parquet"),
        "--table: t.parquet: cannot be read: Unsupported cast from list<element: string> to utf8 using function cast_string",
    ),
    "patterns with a mapping of an unknown column": (
        right,
        ("patterns", "mood", *POOL, "--column", "txt=a"),
        "--column txt=a: 'txt' is not a column here; did you mean 'text'?",
    ),
    "patterns of a table without the column": (
        table("t", txt=TEXTS),
        ("patterns", "mood", "--table", "t.parquet"),
        "--table: t.parquet has no column 'text'; it has 'txt'; if it is 'txt', add "
        "--column text=txt",
    ),
}

MISTAKES = {
    "settings": SETTINGS,
    "pattern": {
        text: (written("mood/bad.toml", text), RUN, f"mood/bad.toml: {message}")
        for text, message in PATTERNS.items()
    },
    "task": {
        text: (written("mood/task.toml", text), RUN, f"mood/task.toml: {message}")
        for text, message in TASKS.items()
    },
    "folder": TASK_FOLDERS,
    "table": TABLES,
    "model": MODELS,
    "student": STUDENTS,
    "search": SEARCHES,
    "former": FORMER,
    "offline": OFFLINE,
    "place": PLACES,
    "predict": PREDICT,
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{kind}: {name}")
        for kind, rows in MISTAKES.items()
        for name, row in rows.items()
    ],
)
def test_a_mistake_is_told_and_nothing_is_trained(shop: Shop, row: Row) -> None:
    break_it, words, message = row
    if break_it:
        break_it(shop)
    assert shop.pet(*words) == message


def test_there_are_many_mistakes() -> None:
    assert sum(len(rows) for rows in MISTAKES.values()) >= 100


def test_nothing_is_wrong_with_what_is_broken_here(shop: Shop) -> None:
    result = CliRunner().invoke(app, [*sets("machine.threads=1"), "--until", "encode"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("text", PATTERNS)
def test_patterns_can_be_checked_alone(shop: Shop, text: str) -> None:
    shop.write("mood/bad.toml", text)
    assert shop.pet("patterns", "mood") == f"mood/bad.toml: {PATTERNS[text]}"


@pytest.mark.parametrize("device", ["cuda:7", "cdua"])
@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="the eighth GPU is there")
def test_no_such_device(shop: Shop, device: str) -> None:
    with pytest.raises((RuntimeError, AssertionError)) as error:
        torch.empty(0, device=device)
    reason = str(error.value).splitlines()[0].partition(". ")[0]
    message = f"machine.device: {device!r} cannot be used: {reason}; 'auto' takes what is there"
    assert shop.pet(*sets(f"machine.device={device}")) == message
    shop.classifier("text")
    assert shop.pet(*predict("--text", "a", "--device", device)) == message


def test_the_embedded_model_outside_of_a_checkout(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pet_pipeline.models.__file__", str(shop.folder / "lib" / "pet" / "models.py")
    )
    assert shop.pet(*RUN, "--model", EMBEDDED_MODEL) == (
        f"model: {EMBEDDED_MODEL} comes with a checkout of pet_pipeline and is not here; give "
        "--model a folder with a masked language model, or a hub name such as roberta-base"
    )


def test_a_model_of_an_unknown_kind(shop: Shop) -> None:
    shop.write("model/config.json", '{"model_type": "foo"}')
    with pytest.raises(ValueError, match="foo") as error:
        transformers.AutoConfig.from_pretrained(shop.mlm)
    reason = str(error.value).splitlines()[0]
    assert shop.pet(*RUN) == f"model: model: no configuration: {reason}"


HOLDER = """
import sys
from pathlib import Path
from pet_pipeline.run import Run
with Run(Path("run"), config='task = "mood"'):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_is_at_work_on(shop: Shop) -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(
        command, cwd=shop.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert shop.pet(*RUN) == "run: another process is at work on this run"
        holder.communicate("")
    assert holder.returncode == 0


@pytest.mark.parametrize("name", ["list", "header"])
def test_tables_that_arrow_refuses(shop: Shop, name: str) -> None:
    shop.table("list", text=[["a"], ["b"]])
    shop.write("header.csv", "text,é\na,b\n".encode("latin-1"))
    file = "list.parquet" if name == "list" else "header.csv"
    assert file in shop.pet(*on("pool", file))
