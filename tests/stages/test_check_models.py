"""Models are loaded before anything long starts, and only those that a run needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planning import Make, planned
from testing import CPU, save_t5

from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder
from pet_pipeline.stages.check_models import CheckModels
from pet_pipeline.stages.check_patterns import CheckPatterns


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_t5(tmp_path_factory.mktemp("t5") / "t5")


def test_every_model_is_loaded(
    mlm_of: Callable[[str], Path], tiny_t5: Path, tmp_path: Path
) -> None:
    bert, distilbert = ModelFolder(mlm_of("bert")), ModelFolder(mlm_of("distilbert"))
    assert CheckModels(bert).work(tmp_path, CPU) == {"models": 1}
    unit = CheckModels(
        bert, distilbert, {"distill.max_tokens": 40}, demonstrations=bert, t5=ModelFolder(tiny_t5)
    )
    assert unit.work(tmp_path, CPU) == {"models": 4}
    assert list(tmp_path.iterdir()) == []


def test_texts_longer_than_the_encoder_of_demonstrations_reads(
    tiny_mlm: Path, tmp_path: Path
) -> None:
    bert = ModelFolder(tiny_mlm)
    CheckModels(bert, demonstrations=bert, demonstration_tokens=256).work(tmp_path, CPU)
    with pytest.raises(UserError) as error:
        CheckModels(bert, demonstrations=bert, demonstration_tokens=257).work(tmp_path, CPU)
    assert str(error.value) == (
        "demonstrations.encoder: reads 256 tokens, less than finetune.max_tokens = 257; "
        "name another encoder or lower that"
    )


@pytest.mark.parametrize("setting", ["distill.max_tokens", "baseline.max_tokens"])
def test_texts_longer_than_the_student_reads(
    mlm_of: Callable[[str], Path], tmp_path: Path, setting: str
) -> None:
    bert = ModelFolder(mlm_of("bert"))
    longest = {"distill.max_tokens": 256, "baseline.max_tokens": 256}
    CheckModels(bert, bert, longest).work(tmp_path, CPU)
    with pytest.raises(UserError) as error:
        CheckModels(bert, bert, longest | {setting: 257}).work(tmp_path, CPU)
    assert str(error.value) == f"{setting}: 257 is more than distill.model reads, 256"


def test_problems_name_the_setting(tiny_mlm: Path, tiny_t5: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_mlm, bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    good, bad, t5 = ModelFolder(tiny_mlm), ModelFolder(bare), ModelFolder(tiny_t5)
    for fields, setting in (
        ({"base": bad}, "model"),
        ({"base": good, "student": bad}, "distill.model"),
        ({"base": good, "demonstrations": bad}, "demonstrations.encoder"),
        ({"base": good, "t5": good}, "search.t5"),
        ({"base": t5}, "model"),
    ):
        with pytest.raises(UserError) as error:
            CheckModels(**fields).work(tmp_path, CPU)
        assert str(error.value).startswith(f"{setting}: ")


def test_only_models_that_are_needed_are_loaded(
    tiny_settings: Make, mlm_of: Callable[[str], Path], tiny_t5: Path
) -> None:
    other = str(mlm_of("distilbert"))

    def models(**sections: Any) -> CheckModels:
        settings = tiny_settings(**{**sections, "distill": {"model": other, **sections["distill"]}})
        unit = planned(settings)["prepare/models"].unit
        assert isinstance(unit, CheckModels)
        return unit

    both = models(distill={})
    assert both.student == ModelFolder(Path(other))
    assert both.student_longest == {"distill.max_tokens": 48, "baseline.max_tokens": 48}
    assert both.demonstrations is both.t5 is None
    only = models(distill={}, baseline={"enabled": False})
    assert only.student_longest == {"distill.max_tokens": 48}
    zero_shot = models(distill={}, data={"labelled": ""})
    assert zero_shot.student_longest == {"distill.max_tokens": 48}
    off: dict[str, Any] = {"enabled": False}
    assert models(distill=off).student_longest == {"baseline.max_tokens": 48}
    assert models(distill=off, baseline=off).student is None
    shown = models(distill={}, demonstrations={"enabled": True, "encoder": other})
    assert shown.demonstrations == ModelFolder(Path(other))
    assert shown.demonstration_tokens == 48
    search = {"templates": True, "generators": ["t5"], "t5": str(tiny_t5)}
    assert models(distill={}, search=search).t5 == ModelFolder(tiny_t5)


def test_the_models_own_limit_holds_for_what_it_reads_itself(
    tiny_settings: Make, mlm_of: Callable[[str], Path]
) -> None:
    def longest(**sections: Any) -> dict[str, int]:
        unit = planned(tiny_settings(**sections))["prepare/patterns"].unit
        assert isinstance(unit, CheckPatterns)
        return dict(unit.longest)

    alone = {f"{section}.max_tokens": 48 for section in ("finetune", "baseline", "distill")}
    assert longest() == alone
    assert longest(distill={"model": str(mlm_of("distilbert"))}) == {"finetune.max_tokens": 48}
    assert longest(demonstrations={"enabled": True, "max_tokens": 99}) == {
        **alone,
        "demonstrations.max_tokens": 99,
    }
