"""The stages on a tiny model: what each makes, and what reruns when something changes."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score
from transformers import pipeline

from pet_pipeline import Run, load_task, prepare, read_metrics
from pet_pipeline.batches import fold_rows
from pet_pipeline.config import Settings
from pet_pipeline.data import read_probs, read_scores
from pet_pipeline.errors import UserError

PET_FULL = runpy.run_path(str(Path(__file__).parents[2] / "pipelines" / "pet_full.py"))["pet_full"]
Make = Callable[..., Settings]


def run(settings: Settings, **options: Any) -> Run:
    """A whole run; its units tell what was executed."""
    with Run.open(settings, **options) as opened:
        PET_FULL(settings, opened)
    return opened


def todo(settings: Settings) -> list[str]:
    """The units that a run with these settings would execute, as stage/unit."""
    planned = Run.open(settings, plan=True)
    PET_FULL(settings, planned)
    root = Path(settings.output)
    return [unit.dir.relative_to(root).as_posix() for unit in planned.units if not unit.result()]


def rows(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


def soft(settings: Settings, generation: int = 0) -> list[dict[str, Any]]:
    folder = Path(settings.output) / f"gen-{generation}" / "ensemble" / "all"
    return [row for file in sorted(folder.glob("part-*")) for row in rows(file)]


def test_the_whole_way(tiny_settings: Make, tiny_tables: dict[str, str]) -> None:
    settings = tiny_settings(data={"shard_rows": 10})
    run(settings)
    root = Path(settings.output)
    pool = pq.read_table(tiny_tables["pool"])
    labels = soft(settings)
    assert [row["id"] for row in labels] == pool["id"].to_pylist()
    for row in labels:
        assert sum(row["probs"]) == pytest.approx(1, abs=1e-5)
        assert row["confidence"] == pytest.approx(max(row["probs"]))
        assert row["label"] == ("sad", "happy")[int(np.argmax(row["probs"]))]
    assert len(list((root / "gen-0/ensemble/all").glob("part-*"))) == 3
    metrics = json.loads((root / "evaluate/all/metrics.json").read_text())
    kinds = Counter(system["kind"] for system in metrics["systems"])
    assert kinds == {"pvp": 3, "mean": 1, "ensemble": 1, "classifier": 1, "baseline": 1}
    predictions = pq.read_table(root / "evaluate/all/predictions.parquet").to_pydict()
    for system in metrics["systems"]:
        if system["kind"] != "mean":
            accuracy = accuracy_score(predictions["label"], predictions[system["name"]])
            assert system["value"] == pytest.approx(accuracy)
    classify = pipeline("text-classification", model=str(root / "distill/classifier"))
    assert classify("a great day", truncation=True)[0]["label"] in ("sad", "happy")
    assert (root / "distill/classifier/README.md").exists()
    assert not [*root.rglob(".partial-*"), *root.rglob("checkpoint.safetensors")]
    assert todo(settings) == []


def test_only_what_depends_on_a_change_is_done_again(
    tiny_settings: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    run(tiny_settings())
    assert todo(tiny_settings(machine={"batch_tokens": 77, "jobs": 2})) == []
    assert (
        todo(tiny_settings(annotate={"decoding": "parallel"}))[0] == "gen-0/annotate/it_was-1-00000"
    )
    assert todo(tiny_settings(distill={"steps": 5})) == [
        "distill/classifier",
        "evaluate/all",
        "report",
    ]
    assert todo(tiny_settings(baseline={"steps": 5})) == [
        "baseline/classifier",
        "evaluate/all",
        "report",
    ]
    seeds = todo(tiny_settings(finetune={"seeds": [1, 2]}))
    assert [name for name in seeds if "finetune" in name] == [
        f"gen-0/finetune/{name}-2" for name in ("it_was", "just", "mood")
    ]
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(tiny_tables["test"]).slice(0, 7), other)
    changed = todo(tiny_settings(data={"test": str(other)}))
    assert not [name for name in changed if "finetune" in name or "distill" in name]
    assert "prepare/test" in changed


def test_a_new_pattern_adds_only_its_own_models(
    tiny_settings: Make, tmp_path: Path, tiny_task: Path
) -> None:
    folder = tmp_path / "mood"
    folder.mkdir()
    for file in tiny_task.iterdir():
        (folder / file.name).write_text(file.read_text())
    settings = tiny_settings(task=str(folder))
    run(settings)
    (folder / "new.toml").write_text('template = "{text} so {mask}"')
    names = [name for name in todo(settings) if "finetune" in name or "annotate" in name]
    assert names == [
        "gen-0/finetune/new-1",
        "gen-0/annotate/new-1-00000",
        "gen-0/annotate/new-1-test",
    ]


def test_serial_and_parallel_runs_give_the_same(tiny_settings: Make, tmp_path: Path) -> None:
    one = tiny_settings(data={"shard_rows": 10})
    two = tiny_settings(data={"shard_rows": 10}, output=str(tmp_path / "two"), machine={"jobs": 2})
    run(one)
    run(two)
    assert soft(one) == soft(two)
    metrics = [Path(s.output) / "evaluate/all/metrics.json" for s in (one, two)]
    assert metrics[0].read_text() == metrics[1].read_text()


def test_shards_do_not_change_scores(tiny_settings: Make, tmp_path: Path) -> None:
    settings = [
        tiny_settings(data={"shard_rows": size}, output=str(tmp_path / str(size)))
        for size in (7, 100)
    ]
    for one in settings:
        run(one, until="annotate")
    found = []
    for one in settings:
        parts = sorted((Path(one.output) / "gen-0/annotate").glob("just-1-0*"))
        found.append(np.concatenate([read_scores(part / "scores.parquet")[1] for part in parts]))
    assert len(found[0]) == 24
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("weights", ["uniform", "wmean", "fitted"])
def test_soft_labels_are_the_weighted_mean_of_the_models(tiny_settings: Make, weights: str) -> None:
    settings = tiny_settings(ensemble={"weights": weights, "folds": 2})
    run(settings, until="ensemble")
    root = Path(settings.output) / "gen-0"
    told = json.loads((root / "ensemble/all/ensemble.json").read_text())
    scores = [read_scores(root / f"annotate/{n}-00000/scores.parquet")[1] for n in told["models"]]
    mean = np.average(scores, axis=0, weights=told["weights"]) / told["temperature"]
    probs = read_probs(root / "ensemble/all/part-00000.parquet")
    np.testing.assert_allclose(probs, softmax(mean, axis=-1), atol=1e-6)
    assert sum(told["weights"]) == pytest.approx(1)
    if weights == "uniform":
        assert told["weights"] == pytest.approx([1 / 3] * 3)
    if weights == "wmean":
        untuned = [
            json.loads((root / f"finetune/{n}/unit.json").read_text())["info"]["untuned_accuracy"]
            for n in told["models"]
        ]
        np.testing.assert_allclose(told["weights"], np.array(untuned) / sum(untuned), atol=1e-6)
    if weights == "fitted":
        assert told["temperature"] != 1.0
    assert (
        told["rows"] == sum(told["label_counts"].values()) == sum(told["entropy"]["counts"]) == 24
    )
    assert np.diag(told["agreement"]).tolist() == [1, 1, 1]
    assert len(told["disputed"]) == 20


def test_weights_can_be_fitted_on_a_development_table(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    settings = tiny_settings(
        data={"development": tiny_tables["development"]},
        ensemble={"weights": "fitted", "fit_on": "development"},
    )
    run(settings, until="ensemble")
    assert not (Path(settings.output) / "crossfit").exists()


def test_a_development_table_changes_nothing_unless_a_setting_says_so(
    tiny_settings: Make, tiny_tables: dict[str, str]
) -> None:
    run(tiny_settings())
    names = todo(tiny_settings(data={"development": tiny_tables["development"]}))
    assert {name.split("/")[-1].split("-")[-1] for name in names} == {"development", "report"}


@pytest.mark.parametrize(("folds", "gold"), [(2, [0, 1, 1, 0, 1]), (4, [0, 0, 1])])
def test_every_row_is_held_out_once(folds: int, gold: list[int]) -> None:
    held = [fold_rows(gold, folds, fold) for fold in range(folds)]
    assert sorted(row for fold in held for row in fold) == list(range(len(gold)))


def test_k_rows_a_label_are_drawn_by_the_seed(tiny_settings: Make, tmp_path: Path) -> None:
    def drawn(seed: int) -> list[dict[str, Any]]:
        settings = tiny_settings(data={"k": 2, "seed": seed}, output=str(tmp_path / f"{seed}"))
        with Run.open(settings) as opened:
            tables = prepare(opened, load_task(settings.task), settings)
        assert tables.labelled is not None
        return rows(tables.labelled.dir / "table.parquet")

    assert Counter(row["label"] for row in drawn(1)) == {"sad": 2, "happy": 2}
    assert drawn(1) == drawn(1)
    assert any(drawn(1) != drawn(seed) for seed in (2, 3, 4))


def test_a_sample_of_the_pool(tiny_settings: Make, tiny_tables: dict[str, str]) -> None:
    settings = tiny_settings(data={"pool_rows": 5, "shard_rows": 2})
    run(settings, until="ensemble")
    ids = [row["id"] for row in soft(settings)]
    assert len(ids) == 5
    assert ids == sorted(ids)
    assert set(ids) <= set(pq.read_table(tiny_tables["pool"])["id"].to_pylist())


def test_zero_shot(tiny_settings: Make) -> None:
    settings = tiny_settings(data={"labelled": ""})
    run(settings)
    root = Path(settings.output)
    assert not list(root.rglob("finetune/*/model"))
    assert not (root / "baseline").exists()
    assert {f.name for f in (root / "gen-0/finetune").iterdir()} == {"it_was-0", "just-0", "mood-0"}
    assert read_metrics_of(settings)["systems"][-1]["kind"] == "classifier"


def read_metrics_of(settings: Settings) -> dict[str, Any]:
    from pet_pipeline.run import Result

    return read_metrics(Result(Path(settings.output) / "evaluate/all", "", {}))


def test_ipet_from_labels_and_from_none(tiny_settings: Make, tmp_path: Path) -> None:
    few = tiny_settings(ipet={"generations": 2, "scale": 1.5}, data={"k": 2})
    none = tiny_settings(
        ipet={"generations": 2, "first_rows": 4, "scale": 2.0},
        data={"labelled": ""},
        output=str(tmp_path / "zero"),
    )
    for settings in (few, none):
        run(settings)
        root = Path(settings.output)
        assert [
            g["generation"] for g in read_metrics_of(settings)["systems"] if g["kind"] == "ensemble"
        ] == [0, 1, 2]
        for grown in (root / "gen-1/grow").iterdir():
            info = json.loads((grown / "unit.json").read_text())["info"]
            table = rows(grown / "table.parquet")
            assert len({row["id"] for row in table}) == len(table) == info["rows"]
            counted = Counter(row["label"] for row in table)
            assert {label: n for label, n in info["added"].items() if n} == counted
            if settings is none:
                assert counted == {"sad": 2, "happy": 2}
        assert (root / "gen-1/finetune/just-1/model/model.safetensors").exists()
    assert "What iPET added" in (Path(few.output) / "report/index.html").read_text()


def test_without_distillation_test_table_or_baseline(tiny_settings: Make) -> None:
    settings = tiny_settings(
        data={"test": ""}, distill={"enabled": False}, baseline={"enabled": False}
    )
    run(settings)
    root = Path(settings.output)
    assert not [name for name in ("distill", "baseline", "evaluate") if (root / name).exists()]
    assert "No test table was given" in (root / "report/index.html").read_text()


@pytest.mark.parametrize("decoding", ["confident", "parallel"])
def test_words_of_several_tokens_and_the_mlm_loss(
    tiny_settings: Make, tmp_path: Path, decoding: str
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "task.toml").write_text('columns = ["text"]\nlabels = ["sad", "happy"]\n')
    (folder / "back.toml").write_text(
        'template = "{text} i will {mask}."\n'
        '[verbalizer]\nsad = ["never come back"]\nhappy = ["gladly come back", "come again"]\n'
    )
    run(
        tiny_settings(
            task=str(folder),
            annotate={"decoding": decoding},
            finetune={"mlm_weight": 0.1},
            distill={"enabled": False},
        )
    )


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
    table = pa.table(
        {
            "premise": ["a day", "a night"] * 4,
            "hypothesis": ["good.", "bad."] * 4,
            "label": ["yes", "no"] * 4,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    settings = tiny_settings(
        task=str(folder), data={"labelled": source, "pool": source, "test": source}
    )
    run(settings)
    classify = pipeline(
        "text-classification", model=str(Path(settings.output) / "distill/classifier")
    )
    found = classify({"text": "a day", "text_pair": "good."})
    assert found["label"] in ("yes", "no")


def test_a_label_without_rows_is_said_and_not_refused(
    tiny_settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["sad", "sad"]}), tmp_path / "l.parquet")
    settings = tiny_settings(data={"labelled": str(tmp_path / "l.parquet")})
    run(settings, until="prepare")
    assert "no row is labelled 'happy'; its words alone speak for it" in capsys.readouterr().err


def test_a_stopped_distillation_goes_on_from_its_checkpoint(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pet_pipeline import training

    slow = {"distill": {"steps": 8}, "machine": {"checkpoint_seconds": 0.0}}
    whole, stopped = tiny_settings(**slow, output=str(tmp_path / "whole")), tiny_settings(**slow)
    run(whole)
    run(stopped, until="ensemble")
    update, steps = training._update, []

    def stops(*args: Any) -> float:
        steps.append(args[3])
        if len(steps) == 6:
            raise KeyboardInterrupt
        return update(*args)

    monkeypatch.setattr(training, "_update", stops)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    run(stopped, until="distill")
    assert steps == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    run(stopped)
    files = [Path(s.output) / "distill/classifier/model.safetensors" for s in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_too_few_rows_for_k(tiny_settings: Make) -> None:
    with pytest.raises(
        UserError, match=r"'sad' has 4 rows, data\.k = 9; lower data\.k or add rows"
    ):
        run(tiny_settings(data={"k": 9}))
