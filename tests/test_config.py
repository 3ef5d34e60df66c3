"""Settings: read, overridden, checked, written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pet_pipeline.config import Settings, check_settings, read_settings, write_settings
from pet_pipeline.errors import UserError

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "task": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
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


def test_every_setting_is_explained() -> None:
    text = write_settings(Settings())
    lines = [line for line in text.splitlines() if " = " in line]
    assert len(lines) > 50
    assert all(" # " in line for line in lines)

    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)
            else:
                assert field.description, name

    check(Settings)


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


def test_a_mapping_of_columns_is_replaced_as_a_whole() -> None:
    settings = read_settings(
        None, ['data.columns={text = "b"}'], over={"data": {"columns": {"label": "a"}}}
    )
    assert settings.data.columns == {"text": "b"}


def test_all_mistakes_at_once() -> None:
    overrides = ["finetun.steps=1", "finetune.stps=1", "finetune.steps=many", "distill.clip=-1"]
    with pytest.raises(UserError) as error:
        read_settings(None, overrides)
    assert sorted(str(error.value).splitlines()[1:]) == [
        "  - settings: distill.clip: input should be greater than 0; found -1",
        "  - settings: finetun: no such setting; did you mean 'finetune'?",
        "  - settings: finetune.steps: input should be a valid integer; found 'many'",
        "  - settings: finetune.stps: no such setting; did you mean 'steps'?",
    ]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().task = "other"  # type: ignore[misc]
