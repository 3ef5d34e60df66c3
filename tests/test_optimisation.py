"""What a training is decided by: the values are complete, and their defaults the settings'."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from pet_pipeline.config import Finetune, Optimiser
from pet_pipeline.keys import fingerprint, key_of
from pet_pipeline.optimisation import Contrast, Distillation, MlmLoss, Optimisation, Tuning

OPTIMISATION = Optimisation(learning_rate=1e-4)
CONTRAST = Contrast(weight=1.0, temperature=0.1, view="dropout")
TUNING = Tuning(OPTIMISATION, steps=5, mlm=MlmLoss(weight=0.1), contrast=CONTRAST)
DISTILLATION = Distillation(OPTIMISATION, steps=5, temperature=2.0, gold_weight=0.3, max_tokens=9)


def defaults(kind: Any) -> dict[str, Any]:
    return {f.name: f.default for f in fields(kind) if f.default is not MISSING}


def test_the_optimiser_has_every_setting_with_its_default() -> None:
    assert {f.name for f in fields(Optimisation)} == set(Optimiser.model_fields)
    assert Optimisation(Optimiser().learning_rate) == Optimisation(**Optimiser().model_dump())


def test_the_mlm_loss_has_every_setting_with_its_default() -> None:
    settings = {
        name.removeprefix("mlm_"): value
        for name, value in Finetune().model_dump().items()
        if name.startswith("mlm_")
    }
    assert {f.name for f in fields(MlmLoss)} == set(settings)
    assert defaults(MlmLoss).items() <= settings.items()


@pytest.mark.parametrize("value", [OPTIMISATION, TUNING, DISTILLATION, TUNING.mlm, CONTRAST])
def test_every_value_counts_in_the_key_of_a_unit(value: Any) -> None:
    keys = {key_of({"value": fingerprint(value)})}
    for field in fields(value):
        old = getattr(value, field.name)
        new = old + 1 if isinstance(old, int | float) else None
        keys.add(key_of({"value": fingerprint(replace(value, **{field.name: new}))}))
    assert len(keys) == 1 + len(fields(value))
