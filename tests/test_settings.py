"""Settings: read, overridden, checked, written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.settings import check_settings, read_settings, write_settings

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "task": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
        "patterns": st.lists(st.text("ab_ é", min_size=1), max_size=3, unique=True),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "k": st.integers(0, 99),
                "columns": st.dictionaries(
                    st.text('abc é"', min_size=1), st.text("xyz$ü", min_size=1), max_size=3
                ),
            },
        ),
        "finetune": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(1e-9, 1.0),
                "seeds": st.lists(st.integers(0, 999), min_size=1, max_size=4, unique=True),
                "frozen_embeddings": st.booleans(),
            },
        ),
        "ensemble": st.fixed_dictionaries(
            {}, optional={"weights": st.sampled_from(["uniform", "fitted"])}
        ),
    },
)


@given(CHANGES)
def test_written_settings_read_back_the_same(raw: dict[str, Any]) -> None:
    settings = check_settings(raw)
    assert check_settings(tomllib.loads(write_settings(settings))) == settings


def test_every_setting_is_written_with_its_explanation() -> None:
    lines = [line for line in write_settings(Settings()).splitlines() if " = " in line]
    assert len(lines) > 50
    assert all(" # " in line for line in lines)


def test_a_file_then_values_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('task = "a"\n[finetune]\nsteps = 1\nseeds = [1, 2]\n')
    settings = read_settings(file, ["finetune.steps=3"], over={"task": "b"})
    assert (settings.task, settings.finetune.steps, settings.finetune.seeds) == ("b", 3, (1, 2))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model=roberta-base", "roberta-base"),
        ('model="a b"', "a b"),
        ("model=a=b", "a=b"),
    ],
)
def test_an_override_is_toml_or_else_text(override: str, value: str) -> None:
    assert read_settings(None, [override]).model == value


def test_patterns_are_named_in_a_list(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('patterns = ["a", "b"]')
    assert Settings().patterns == ()
    assert read_settings(file).patterns == ("a", "b")
    assert read_settings(file, ['patterns=["c","a"]']).patterns == ("c", "a")
    assert read_settings(file, ["patterns=[]"]).patterns == ()


def test_overrides_are_merged() -> None:
    given: dict[str, Any] = {"data": {"columns": {"text": "a", "label": "b"}}}
    overrides = ["data.columns.text=c", "data.k = 5", "data={pool='p'}", "finetune.seeds=[3, 1]"]
    settings = read_settings(None, overrides, over=given)
    assert settings.data.columns == {"text": "c", "label": "b"}
    assert (settings.data.k, settings.data.pool, settings.finetune.seeds) == (5, "p", (3, 1))
    assert given == {"data": {"columns": {"text": "a", "label": "b"}}}


def test_a_mapping_of_columns_is_replaced_as_a_whole() -> None:
    settings = read_settings(
        None, ['data.columns={text = "b"}'], over={"data": {"columns": {"label": "a"}}}
    )
    assert settings.data.columns == {"text": "b"}


def test_all_problems_at_once() -> None:
    overrides = ["finetun.steps=1", "finetune.stps=1", "finetune.steps=many", "distill.clip=-1"]
    with pytest.raises(UserError) as error:
        read_settings(None, overrides)
    assert sorted(str(error.value).splitlines()[1:]) == [
        "  - settings: distill.clip: input should be greater than 0; found -1",
        "  - settings: finetun: no such setting; did you mean 'finetune'?",
        "  - settings: finetune.steps: should be a number of updates, 0 or more, or \"auto\"; found 'many'",
        "  - settings: finetune.stps: no such setting; did you mean 'steps'?",
    ]


BAD_FILES: dict[str | bytes, str] = {
    "a =": "Invalid value (at end of document)",
    b"\xff": "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    "patterns = 'a'": "patterns: a list is needed, [...]; found 'a'",
    "patterns = [1]": "patterns.0: input should be a valid string; found 1",
    'patterns = ["a", "a"]': "patterns: duplicate value 'a'; found ['a', 'a']",
    "finetune = 3": "finetune: a section is needed, [finetune]; found 3",
    "[finetune]\nsteps = 1.0": 'finetune.steps: should be a number of updates, 0 or more, or "auto"; found 1.0',
    "[finetune]\nsteps = true": 'finetune.steps: should be a number of updates, 0 or more, or "auto"; found True',
    "[finetune]\nsteps = -1": 'finetune.steps: should be a number of updates, 0 or more, or "auto"; found -1',
    "[finetune]\nseeds = [1, 1]": "finetune.seeds: duplicate value 1; found [1, 1]",
    "[finetune]\nlearning_rate = inf": (
        "finetune.learning_rate: input should be a finite number; found inf"
    ),
    "[distill]\ngold_weight = 1.5": (
        "distill.gold_weight: input should be less than or equal to 1; found 1.5"
    ),
    '[ensemble]\nfit_on = "mean"': (
        "ensemble.fit_on: input should be 'folds' or 'development'; found 'mean'"
    ),
    "[data.columns]\ntext = 3": "data.columns.text: input should be a valid string; found 3",
    "[machine]\nDevice = 'cpu'": "machine.Device: no such setting; did you mean 'device'?",
    "[finetuning]\nsteps = 1": "finetuning: no such setting; did you mean 'finetune'?",
    "[annotate]\nx = 1": "annotate.x: no such setting; there are 'decoding'",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_problem_in_a_file_is_shown_with_its_place(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        read_settings(file)
    assert str(error.value) == f"{file}: {BAD_FILES[text]}"


@pytest.mark.parametrize("override", ["finetune.steps", "=3", " = 3"])
def test_overrides_need_a_name_and_a_value(override: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(None, [override])
    assert str(error.value) == f"--set {override}: no '='; write section.key=value"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    for missing, message in {
        tmp_path / "mine.tml": f"no such settings file; did you mean '{file}'?",
        tmp_path / "no" / "x.toml": "no such settings file",
        tmp_path: "a folder; a settings file is needed, such as my.toml",
    }.items():
        with pytest.raises(UserError) as error:
            read_settings(missing)
        assert str(error.value) == f"{missing}: {message}"


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(b'\xef\xbb\xbftask = "a"\n')
    assert read_settings(file).task == "a"


FORMER = {
    "revision = 'v1'": ['revision: this setting has a new name; write model = "NAME@REVISION"'],
    "[pooling]": ["pooling: this setting has a new name; write [calibration]"],
    "[pooling]\nx = 1": ["pooling: this setting has a new name; write [calibration]"],
    "pooling = 'pmi'": ["pooling: this setting has a new name; write [calibration]"],
    "[pooling]\ncalibrate = 'pmi'": [
        "pooling.calibrate: this setting has a new name; write calibration.method"
    ],
    "[pooling]\ncalibrate = 'pmi'\nprior = 'pool'": [
        "pooling.calibrate: this setting has a new name; write calibration.method",
        "pooling.prior: this setting has a new name; write calibration.prior",
    ],
    "[search]\nlikely = 9": [
        "search.likely: this setting has a new name; write search.candidates_per_label"
    ],
}


@pytest.mark.parametrize("text", FORMER)
def test_a_former_name_is_refused_with_the_new_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as error:
        check_settings(tomllib.loads(text))
    assert list(error.value.problems) == [f"settings: {problem}" for problem in FORMER[text]]
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_settings(file)
    assert list(error.value.problems) == [f"{file}: {problem}" for problem in FORMER[text]]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("revision=v1", 'revision: this setting has a new name; write model = "NAME@REVISION"'),
        ("pooling={}", "pooling: this setting has a new name; write [calibration]"),
        (
            "pooling.calibrate=pmi",
            "pooling.calibrate: this setting has a new name; write calibration.method",
        ),
        (
            "pooling.prior=pool",
            "pooling.prior: this setting has a new name; write calibration.prior",
        ),
        (
            "search.likely=9",
            "search.likely: this setting has a new name; write search.candidates_per_label",
        ),
    ],
)
def test_a_former_name_in_an_override_is_refused_too(override: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(None, [override])
    assert error.value.problems == (f"settings: {problem}",)


def test_former_names_are_shown_among_all_other_problems() -> None:
    with pytest.raises(UserError) as error:
        read_settings(None, ["finetune.steps=-1", "search.likely=9", "search.beams=9"])
    assert sorted(error.value.problems) == [
        'settings: finetune.steps: should be a number of updates, 0 or more, or "auto"; found -1',
        "settings: search.beams: no such setting; did you mean 'beam'?",
        "settings: search.likely: this setting has a new name; write search.candidates_per_label",
    ]
