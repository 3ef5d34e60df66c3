"""Runs whose PVPs are tuned in other ways than as a whole: what is kept, read, and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import QUICK, Make, planned, result
from safetensors.numpy import load_file
from testing import CPU, run, todo

from pet_pipeline.errors import UserError
from pet_pipeline.methods import METHODS, SOFT_METHODS
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import SMALL_RATE, ModelFolder
from pet_pipeline.patterns import load_task
from pet_pipeline.pvp import Pvp
from pet_pipeline.show import unit_states
from pet_pipeline.stages.annotate import Annotate
from pet_pipeline.stages.finetune import FineTune
from pet_pipeline.stages.from_settings import soft_tokens
from pet_pipeline.stages.readers import release
from pet_pipeline.tables import read_rows, read_scores

PART = "trained.safetensors"
SHORT = {"prompt_length": 2, "steps": 3}


def settings_of(make: Make, method: str, **sections: Any) -> Any:
    """Settings of a run without a classifier whose PVPs are tuned by a method."""
    return make(finetune={"method": method, **SHORT, **sections}, **QUICK)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "full"])
def test_what_was_trained_is_kept_and_read(
    tiny_settings: Make, tiny_mlm: Path, method: str
) -> None:
    settings = settings_of(tiny_settings, method, learning_rate=0.05)
    run(settings)
    tuned = result(settings, "gen-0/finetune/just-1")
    assert {file.name for file in (tuned.dir / "model").iterdir()} == {PART}
    assert tuned.info["trainable"] > 0
    pattern = next(p for p in load_task(settings.task).patterns if p.name == "just")
    lm = Pvp.load(ModelFolder(tiny_mlm), pattern, compute=CPU).lm
    rows = read_rows(Path(settings.output) / "prepare/test/table.parquet")
    part = tuned.dir / "model" / PART
    expected = Pvp.of(lm, pattern, 48, soft=soft_tokens(settings), part=part).scores(rows)
    _, scores = read_scores(result(settings, "gen-0/annotate/just-1-test").dir / "scores.parquet")
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.abs(scores - Pvp.of(lm, pattern, 48).scores(rows)).max() > 1e-4
    assert todo(settings) == []
    page = (Path(settings.output) / "report/index.html").read_text("utf-8")
    assert ("The soft prompts" in page) == (method in SOFT_METHODS)


def test_parallel_and_serial_runs_train_the_same(tiny_settings: Make, tmp_path: Path) -> None:
    parts = []
    for jobs in (1, 2):
        settings = settings_of(tiny_settings, "p_tuning", prompt_start="vocabulary").model_copy(
            update={"output": str(tmp_path / str(jobs))}
        )
        machine = settings.machine.model_copy(update={"jobs": jobs})
        run(settings.model_copy(update={"machine": machine}), until="finetune")
        folder = tmp_path / str(jobs) / "gen-0/finetune"
        parts.append([(folder / f"{n}-1" / "model" / PART).read_bytes() for n in ("just", "mood")])
    assert parts[0] == parts[1]


def test_a_model_that_is_tuned_along_is_kept_whole(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, "prompt_tuning", freeze=False)
    run(settings)
    folder = result(settings, "gen-0/finetune/just-1").dir / "model"
    assert {PART, "model.safetensors", "config.json"} <= {file.name for file in folder.iterdir()}
    assert todo(settings) == []


def test_a_prompt_that_nothing_tunes_scores_as_its_words_do(tiny_settings: Make) -> None:
    untuned = {"steps": 0, "prompt_words": "it was", "method": "prompt_tuning"}
    settings = tiny_settings(finetune=untuned, data={"labelled": ""}, **QUICK)
    run(settings)
    assert (result(settings, "gen-0/finetune/just-0").dir / "model" / PART).exists()


def test_rates_and_steps_follow_the_method(tiny_settings: Make) -> None:
    for method, doubled in (("lora", 2), ("prompt_tuning", 1)):  # where the model's rate is
        finetune = {"method": method, "steps": "auto"}
        rates = []
        for rate in (0.0, 2 * SMALL_RATE):
            units = planned(tiny_settings(finetune=finetune, learning_rate=rate))
            tuned = units["gen-0/finetune/just-1"].unit
            assert isinstance(tuned, FineTune)
            assert tuned.tuning
            assert tuned.tuning.steps == METHODS[method].steps
            assert tuned.size() == f"{method}, {METHODS[method].steps} steps"
            rates.append(tuned.tuning.optimisation.learning_rate)
        own = METHODS[method].learning_rate
        assert own
        assert rates == pytest.approx([own, doubled * own])


def test_only_what_a_method_uses_is_in_the_key(tiny_settings: Make) -> None:
    full = planned(tiny_settings())
    other = planned(tiny_settings(finetune={"prompt_length": 5, "lora_rank": 3, "deep": False}))
    assert {name: unit.key for name, unit in full.items() if "finetune" in name} == {
        name: unit.key for name, unit in other.items() if "finetune" in name
    }
    soft = planned(settings_of(tiny_settings, "p_tuning_v2"))
    assert soft["encode/just-test"].key != full["encode/just-test"].key


def test_soft_fields_without_a_soft_prompt_are_refused(
    tiny_settings: Make, tiny_task: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    for file in tiny_task.glob("*.toml"):
        (folder / file.name).write_text(file.read_text())
    (folder / "soft.toml").write_text('template = "{text} {soft:it was} {mask}."\n')
    with pytest.raises(UserError) as error:
        run(tiny_settings(task=str(folder)), until="prepare")
    assert str(error.value) == (
        "pattern 'soft': {soft} is trained by soft prompts only; set finetune.method to one of "
        "them, such as p_tuning_v2, or write words instead"
    )
    settings = settings_of(tiny_settings, "p_tuning_v2").model_copy(update={"task": str(folder)})
    run(settings, until="finetune")
    prompts = {
        name: json.loads(
            (result(settings, f"gen-0/finetune/{name}-1").dir / "prompt.json").read_text()
        )
        for name in ("just", "soft")
    }
    assert [token["start"] for token in prompts["soft"]] == ["it", "was"]
    assert len(prompts["just"]) == 2
    assert all(len(token["nearest"]) == 3 for token in prompts["just"])


def test_a_prompt_of_another_run_is_the_start(tiny_settings: Make, tmp_path: Path) -> None:
    settings = settings_of(tiny_settings, "prompt_tuning")
    run(settings, until="finetune")
    source = result(settings, "gen-0/finetune/just-1").dir / "model"
    other = settings_of(tiny_settings, "prompt_tuning", prompt_from=str(source), steps=0)
    other = other.model_copy(update={"output": str(tmp_path / "other")})
    run(other, until="finetune")
    again = result(other, "gen-0/finetune/mood-0").dir
    tokens = [vectors_of(folder) for folder in (source, again / "model")]
    np.testing.assert_array_equal(*tokens)
    assert [token["start"] for token in json.loads((again / "prompt.json").read_text())] == ["", ""]
    longer = settings_of(tiny_settings, "prompt_tuning", prompt_from=str(source), prompt_length=3)
    with pytest.raises(UserError, match=r"has 2 soft tokens, pattern 'it_was' has 3"):
        run(longer.model_copy(update={"output": str(tmp_path / "longer")}), until="finetune")


def vectors_of(folder: Path) -> Any:
    """The vectors of a prompt at the input."""
    return load_file(folder / PART)["tokens"]


def test_a_plan_says_how_much_is_trained(tiny_settings: Make) -> None:
    for method, wanted in (("bitfit", "trainable parameters"), ("p_tuning_v2", "2 soft tokens")):
        settings = settings_of(tiny_settings, method)
        run(settings, until="prepare")
        states = {unit.dir.name: more for unit, _, more in unit_states(run(settings, plan=True))}
        name = "models" if method == "bitfit" else "patterns"
        assert re.fullmatch(rf"[\d.]+ s, .*{wanted}", states[name])
        assert states["just-1"].endswith(f"{method}, 3 steps")


def test_adapters_are_merged_before_a_model_reads_the_pool(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, "lora")
    run(settings, until="finetune")
    model = planned(settings)["gen-0/annotate/just-1-00000"].unit
    assert isinstance(model, Annotate)
    base = MaskedLM.load(ModelFolder(Path(settings.model)), CPU)
    modules = {type(module) for module in base.model.modules()}
    assert {type(module) for module in model.reader.load(CPU).lm.model.modules()} == modules
    release()
