"""The settings: each is explained, typed, and cannot be changed afterwards."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from pet_pipeline.config import RENAMED, Baseline, Distill, Finetune, Optimiser, Settings
from pet_pipeline.errors import UserError
from pet_pipeline.settings import check_settings


def test_every_setting_and_section_is_explained() -> None:
    explained = []

    def check(model: type[BaseModel]) -> None:
        assert model.__doc__, model
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)
            else:
                assert field.description, name
                assert "\n" not in field.description, name  # one line of a settings file
                explained.append(name)

    check(Settings)
    assert len(explained) > 50


def test_settings_cannot_be_changed() -> None:
    for section, name in ((Settings(), "task"), (Settings().finetune, "steps")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, name, "other")


def test_defaults_are_valid_settings() -> None:
    assert check_settings(Settings().model_dump()) == Settings()  # defaults alone are not checked


@pytest.mark.parametrize("section", [Finetune, Distill, Baseline])
def test_training_stages_have_the_same_optimiser(section: type[Optimiser]) -> None:
    own = {name: getattr(section(), name) for name in Optimiser.model_fields}
    assert own == Optimiser().model_dump()


def test_a_stage_takes_the_rate_above_unless_it_has_its_own() -> None:
    rates = [Settings().learning_rate, *(s().learning_rate for s in (Finetune, Distill, Baseline))]
    assert rates == [0.0] * 4
    settings = check_settings({"learning_rate": 1e-4, "distill": {"learning_rate": 2e-4}})
    assert settings.learning_rate == 1e-4
    assert (settings.finetune.learning_rate, settings.distill.learning_rate) == (0.0, 2e-4)


@pytest.mark.parametrize("former", RENAMED)
def test_former_names_are_not_names_of_settings_now(former: str) -> None:
    section, _, name = former.rpartition(".")
    with pytest.raises(UserError, match=rf"^settings: {former}: this setting has a new name"):
        check_settings({section: {name: "x"}} if section else {name: "x"})


@pytest.mark.parametrize("target", [new for new in RENAMED.values() if " = " not in new])
def test_the_new_names_are_settings(target: str) -> None:
    settings: object = Settings()
    for name in target.strip("[]").split("."):  # a section has brackets
        settings = getattr(settings, name)
