"""Whole runs on a tiny model: what they leave, what reruns, and what all units have in common."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning import QUICK, Make, inputs_of, planned, result
from pydantic import BaseModel
from testing import rows, run, todo
from transformers import pipeline

from pet_pipeline import (
    Run,
    annotate,
    distill,
    ensemble,
    evaluate,
    finetune,
    grow,
    prepare,
    stages,
)
from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError
from pet_pipeline.settings import write_settings
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.stages.evaluate import read_metrics
from pet_pipeline.stages.results import Generation
from pet_pipeline.tables import read_scores
from pet_pipeline.units import Result, Unit

PET_FULL = Path(__file__).parents[2] / "pipelines" / "pet_full.py"


def test_the_whole_way(tiny_settings: Make) -> None:
    settings = tiny_settings(data={"shard_rows": 10})
    run(settings)
    root = Path(settings.output)
    metrics = read_metrics(result(settings, "evaluate/all"))
    kinds = Counter(system.kind for system in metrics.systems)
    assert kinds == {"pvp": 3, "mean": 1, "ensemble": 1, "classifier": 1, "baseline": 1}
    classify = pipeline("text-classification", model=str(root / "distill/classifier"))
    assert classify("a great day", truncation=True)[0]["label"] in ("sad", "happy")
    assert (root / "distill/classifier/README.md").exists()
    assert (root / "report/index.html").exists()
    assert not [*root.rglob(".partial-*"), *root.rglob("checkpoint.safetensors")]
    assert todo(settings) == []


def test_another_test_table_reruns_all_but_what_the_labelled_rows_train(
    finished: Make, tiny_settings: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(tiny_tables["test"]).slice(0, 7), other)
    changed = todo(tiny_settings(output=finished().output, data={"test": str(other)}))
    parts = [
        (pattern, part) for pattern in ("it_was", "just", "mood") for part in ("00000", "test")
    ]
    assert changed == [
        "prepare/test",
        "prepare/pool",  # whose copies of test texts are left out
        "prepare/patterns",
        "prepare/data",
        *(f"encode/{pattern}-{part}" for pattern, part in parts),
        *(f"gen-0/annotate/{pattern}-1-{part}" for pattern, part in parts),
        "gen-0/ensemble/all",
        "distill/classifier",
        "evaluate/all",
        "report",
    ]


def test_a_new_pattern_adds_only_its_own_models(
    tiny_settings: Make, tmp_path: Path, tiny_task: Path
) -> None:
    folder = tmp_path / "mood"
    folder.mkdir()
    for file in tiny_task.iterdir():
        (folder / file.name).write_text(file.read_text())
    settings = tiny_settings(task=str(folder))
    run(settings, until="evaluate")
    (folder / "new.toml").write_text('template = "{text} so {mask}"')
    names = [name for name in todo(settings) if "finetune" in name or "annotate" in name]
    assert names == [
        "gen-0/finetune/new-1",
        "gen-0/annotate/new-1-00000",
        "gen-0/annotate/new-1-test",
    ]


EVERYTHING: dict[str, Any] = {
    "data": {"shard_rows": 10},
    "search": {
        "templates": True,
        "generators": ["connectors"],
        "candidates": 4,
        "keep": 1,
        "folds": 2,
        "steps": 2,
    },
    "demonstrations": {"enabled": True, "draws": 2, "max_tokens": 120, "filter": 1.0},
    "ensemble": {"weights": "fitted", "folds": 2},
}


def test_serial_and_parallel_runs_give_the_same(finished: Make) -> None:
    one, two = finished(**EVERYTHING), finished(**EVERYTHING, machine={"jobs": 2})
    names = list(planned(one))
    assert names == list(planned(two))
    assert not [name for name in names if name.startswith("embed/")]  # all rows are alike
    for name in names:
        if name != "report":
            assert result(one, name).key == result(two, name).key
    for file in ("search/templates/templates.json", "evaluate/all/metrics.json"):
        found = [(Path(settings.output) / file).read_text() for settings in (one, two)]
        assert found[0] == found[1]
    for n in range(3):
        file = f"gen-0/ensemble/all/part-0000{n}.parquet"
        assert rows(Path(one.output) / file) == rows(Path(two.output) / file)


def test_a_sample_of_the_pool(finished: Make, tiny_tables: dict[str, str]) -> None:
    settings = finished(until="ensemble", data={"pool_rows": 5, "shard_rows": 2})
    parts = sorted((Path(settings.output) / "gen-0/ensemble/all").glob("part-*"))
    ids = [row["id"] for part in parts for row in rows(part)]
    assert len(ids) == 5
    assert ids == sorted(ids)
    assert set(ids) <= set(pq.read_table(tiny_tables["pool"])["id"].to_pylist())


def test_zero_shot(tiny_settings: Make) -> None:
    settings = tiny_settings(data={"labelled": ""})
    run(settings)
    root = Path(settings.output)
    assert not list(root.rglob("finetune/*/model"))
    assert not (root / "distill/baseline").exists()
    assert {f.name for f in (root / "gen-0/finetune").iterdir()} == {"it_was-0", "just-0", "mood-0"}
    assert read_metrics(result(settings, "evaluate/all")).systems[-1].kind == "classifier"
    assert todo(settings) == []


def check_generations(settings: Any, *, from_nothing: bool) -> None:
    root = Path(settings.output)
    systems = read_metrics(result(settings, "evaluate/all")).systems
    assert [s.generation for s in systems if s.kind == "ensemble"] == [0, 1, 2]
    for folder in (root / "gen-1/grow").iterdir():
        info = result(settings, f"gen-1/grow/{folder.name}").info
        table = rows(folder / "table.parquet")
        assert len({row["id"] for row in table}) == len(table) == info["rows"]
        counted = Counter(row["label"] for row in table)
        assert {label: n for label, n in info["added"].items() if n} == counted
        if from_nothing:
            assert counted == {"sad": 2, "happy": 2}
    assert (root / "gen-1/finetune/just-1/model/model.safetensors").exists()


def test_ipet_from_labels(tiny_settings: Make) -> None:
    settings = tiny_settings(ipet={"generations": 2, "scale": 1.5}, data={"k": 2}, **QUICK)
    run(settings)
    check_generations(settings, from_nothing=False)
    assert "What iPET added" in (Path(settings.output) / "report/index.html").read_text()


def test_ipet_from_no_labels(finished: Make) -> None:
    ipet = {"generations": 2, "first_rows": 4, "scale": 2.0}
    settings = finished(ipet=ipet, data={"labelled": ""}, distill={"steps": 2})
    check_generations(settings, from_nothing=True)


def test_without_distillation_test_table_or_baseline(tiny_settings: Make) -> None:
    settings = tiny_settings(data={"test": ""}, **QUICK)
    run(settings)
    root = Path(settings.output)
    assert not [name for name in ("distill", "evaluate") if (root / name).exists()]
    assert "there was no test table" in (root / "report/index.html").read_text()


def test_words_of_several_tokens_and_the_mlm_loss(finished: Make, long_words: str) -> None:
    runs = [
        finished(
            task=long_words,
            annotate={"decoding": decoding},
            finetune={"mlm_weight": 0.1},
            **QUICK,
        )
        for decoding in ("confident", "parallel")
    ]
    one, other = (
        read_scores(Path(s.output) / "gen-0/annotate/back-1-test/scores.parquet")[1] for s in runs
    )
    assert one.shape == other.shape == (8, 2)
    assert abs(one - other).max() > 1e-6


def test_pairs_of_texts(tiny_settings: Make, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "task.toml").write_text(
        'columns = ["premise", "hypothesis"]\nlabels = ["yes", "no"]\nmetric = "f1"\n'
        '[verbalizer]\nyes = ["yes"]\nno = ["no"]\n'
    )
    (folder / "question.toml").write_text(
        'template = "{hypothesis:strip_punct}? {sep} {mask}, {premise}"'
    )

    def saved(name: str, hypotheses: list[str]) -> str:
        table = {
            "premise": ["a day", "a night"] * 2,
            "hypothesis": hypotheses,
            "label": ["yes", "no"] * 2,
        }
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    source = saved("labelled", ["good.", "bad.", "great.", "awful."])
    pool = saved("pool", ["good.", "good.", "bad.", "sad."])
    settings = tiny_settings(
        task=str(folder), data={"labelled": source, "pool": pool, "test": source}
    )
    run(settings)
    classify = pipeline(
        "text-classification", model=str(Path(settings.output) / "distill/classifier")
    )
    found = classify({"text": "a day", "text_pair": "good."})
    assert found["label"] in ("yes", "no")
    # A pair is the same if both of its texts are.
    assert result(settings, "prepare/pool").info == {"rows": 3, "left_out": 1}


# What every verb and every unit keeps.


def test_tables_that_were_not_encoded_are_refused_by_every_verb(finished: Make) -> None:
    settings = finished()
    with Run.open(settings) as opened:
        task, inputs = inputs_of(settings, opened)
        tables: Any = prepare(opened, task, settings)
        models = finetune(opened, task, inputs, settings)
        scores = annotate(opened, task, models, inputs, settings)
        soft = ensemble(opened, task, scores, inputs, settings)
        generations = [Generation(0, scores, soft, {})]
        verbs: dict[str, Callable[[], object]] = {
            "finetune": lambda: finetune(opened, task, tables, settings),
            "annotate": lambda: annotate(opened, task, models, tables, settings),
            "ensemble": lambda: ensemble(opened, task, scores, tables, settings),
            "grow": lambda: grow(opened, task, scores, tables, settings, generation=1),
            "distill": lambda: distill(opened, task, soft, tables, settings),
            "evaluate": lambda: evaluate(opened, task, generations, tables, settings),
        }
        for name, call in verbs.items():
            with pytest.raises(UserError) as error:
                call()
            assert str(error.value) == (
                f"{name}: needs what encode returns, got Tables; "
                "call encode(run, task, tables, settings) first"
            )


def units_of(kind: type[Unit] = Unit) -> Iterator[type[Unit]]:
    """Every kind of unit of the package."""
    for module in pkgutil.iter_modules(stages.__path__, "pet_pipeline.stages."):
        importlib.import_module(module.name)
    importlib.import_module("pet_pipeline.report.stage")
    for child in kind.__subclasses__():
        if child.__module__.startswith("pet_pipeline."):
            yield child
        yield from units_of(child)


UNITS = sorted(set(units_of()), key=lambda kind: kind.__name__)
ids = pytest.mark.parametrize("kind", UNITS, ids=lambda kind: kind.__name__)


def test_there_are_units() -> None:
    assert len(UNITS) > 20


def mentioned(hint: Any, seen: frozenset[type] = frozenset()) -> Iterator[type]:
    """The types that a field may hold, those in dataclasses included."""
    for argument in get_args(hint):
        yield from mentioned(argument, seen)
    if isinstance(hint, type) and hint not in seen:
        yield hint
        if dataclasses.is_dataclass(hint):
            for inner in get_type_hints(hint).values():
                yield from mentioned(inner, seen | {hint})


@ids
def test_a_unit_takes_values_and_no_settings(kind: type[Unit]) -> None:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        types = set(mentioned(hints[field.name]))
        assert types
        for found in types:
            # Of settings a unit takes the few values that it needs; where and how fast it is
            # computed is no value of a unit at all.
            assert not issubclass(found, BaseModel | Compute | Run), (field.name, found)


@ids
def test_a_unit_is_a_frozen_dataclass_that_says_what_it_makes(kind: type[Unit]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # as dataclasses write it
    assert (kind.work.__doc__ or "").startswith(("Write ", "Load ", "Warn "))


@ids
def test_a_misspelt_field_is_an_error(kind: type[Unit]) -> None:
    fields: dict[str, Any] = {field.name: None for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    name = next(iter(fields))
    misspelt = {f"{name}_": fields.pop(name), **fields}
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}_'"):
        kind(**misspelt)


def test_units_are_values(finished: Make, tiny_settings: Make) -> None:
    sections: dict[str, Any] = {**EVERYTHING, "calibration": {"method": "pmi", "prior": "pool"}}
    one, two = (planned(tiny_settings(**sections, ipet={"generations": 1})) for _ in range(2))
    assert len(one) > 60
    for name, unit in one.items():
        if name == "report":
            continue
        assert unit.unit == two[name].unit
        assert hash(unit.unit) == hash(two[name].unit)
        first = dataclasses.fields(unit.unit)[0].name  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(unit.unit, first, None)


PLAN = """
import runpy, sys
from pathlib import Path
from pet_pipeline import Run, read_settings
pet_full = runpy.run_path(sys.argv[1])["pet_full"]
settings = read_settings(Path(sys.argv[2]))
with Run.open(settings, plan=True) as run:
    pet_full(settings, run)
print(len(run.units), *(m for m in ("torch", "transformers") if m in sys.modules))
"""


def test_a_plan_needs_no_torch(tiny_settings: Make, tmp_path: Path) -> None:
    settings = tiny_settings(**EVERYTHING, machine={"precision": "auto"}, learning_rate=0.0)
    (tmp_path / "my.toml").write_text(write_settings(settings))
    command = [sys.executable, "-c", PLAN, str(PET_FULL), str(tmp_path / "my.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(planned(settings)))]
    assert not Path(settings.output).exists()


def test_results_say_where_they_were_made(finished: Make) -> None:
    settings = finished()
    record = json.loads((Path(settings.output) / "distill/classifier/unit.json").read_text())
    assert record["made_by"]["machine"]["threads"] == 1
    assert {"torch", "transformers", "pet_pipeline"} <= set(record["made_by"])
    assert set(record["identity"]) == {"stage", "version", "params"}
    soft = Result(Path(settings.output) / "gen-0/ensemble/all", "", {})
    assert read_ensemble(soft).models == ["it_was-1", "just-1", "mood-1"]
