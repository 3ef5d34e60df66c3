"""Data sets of the `datasets` library: their rows, their versions, and the hub out of reach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from pet_pipeline.errors import UserError
from pet_pipeline.hub_datasets import dataset_version, load_dataset
from pet_pipeline.sources import check_source, find_source, read_batches


def rows(source: str, labels: Any = None) -> list[dict[str, Any]]:
    batches = read_batches(find_source(source), ("text",), {}, labels)
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_data_set_of_the_datasets_library(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["hello", "bye"]}), tmp_path / "train.parquet")
    source = f"datasets:{tmp_path}:train"
    assert [row["text"] for row in rows(source, labels=None)] == ["hello", "bye"]
    (problem,) = check_source(
        f"datasets:{tmp_path}", ("text",), {}, labelled=False, place="data.pool"
    )
    assert problem.endswith("write datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT")


NOT_CACHED = "the hub cannot be reached, and the data set is not in the cache"


def unreachable(kind: str) -> Callable[[str], Any]:
    """A stand-in for `dataset_info` where there is no network."""
    errors = {
        "offline": OfflineModeIsEnabled("offline mode is enabled"),
        "client": HTTPError("[Errno 111] Connection refused"),
        "timeout": TimeoutError("timed out"),
        "cache": LocalEntryNotFoundError("not found in the cache"),
    }

    def dataset_info(name: str) -> Any:
        raise errors[kind]

    return dataset_info


@pytest.mark.parametrize("kind", ["offline", "client", "timeout", "cache"])
def test_a_data_set_without_the_hub(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "dataset_info", unreachable(kind))
    with pytest.raises(UserError) as error:
        find_source("datasets:me/nowhere:train")
    assert error.value.problems == (f"datasets:me/nowhere:train: {NOT_CACHED}",)
    assert check_source(
        "datasets:me/nowhere:train", ("text",), {}, labelled=False, place="data.pool"
    ) == [f"data.pool: datasets:me/nowhere:train: {NOT_CACHED}"]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of `datasets` that holds the data set me/mood at the commit abc123."""
    pq.write_table(pa.table({"text": ["hello", "bye"]}), tmp_path / "train.parquet")
    datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=tmp_path)
    (made,) = tmp_path.rglob("dataset_info.json")
    copy = tmp_path / "cache" / "me___mood" / "default" / "0.0.0" / "abc123"
    shutil.copytree(made.parent, copy)
    (copy / "parquet-train.arrow").rename(copy / "mood-train.arrow")
    info = json.loads(made.read_text()) | {"dataset_name": "mood", "config_name": "default"}
    (copy / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return copy


def test_without_the_hub_the_cached_data_set_is_used(
    cached: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "datasets:me/mood:train"
    found = find_source(source)
    assert found == find_source(source)
    assert str(found) == source
    assert "abc123" in repr(found)
    assert [row["text"] for row in rows(source, labels=None)] == ["hello", "bye"]
    said = [line for line in capsys.readouterr().err.splitlines() if source in line]
    assert said == [f"  {source}: the hub cannot be reached; the cached copy is used"]
    cached.rename(cached.with_name("def456"))
    assert find_source(source) != found
    (problem,) = check_source(f"{source}s", ("text",), {}, labelled=False, place="p")
    assert problem.startswith(f"p: {source}s: Unknown split")


def test_numbered_labels_of_the_datasets_library(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["happy", "sad"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    source = f"datasets:{tmp_path / 'set'}:train"
    assert [row["label"] for row in rows(source, ("sad", "happy"))] == ["sad", "happy"]
    (problem,) = check_source(f"{source}s", ("text",), {}, labelled=True, place="p")
    assert problem.startswith(f"p: {source}s: Unknown split")
    before = find_source(source)
    assert before == find_source(source)
    made.select([0]).to_parquet(tmp_path / "set" / "train.parquet")
    assert before != find_source(source)


def test_the_version_of_a_local_data_set_is_that_of_its_visible_files(tmp_path: Path) -> None:
    source = f"datasets:{tmp_path}:train"
    (tmp_path / "train.csv").write_text("text\na\n")
    version = dataset_version(source)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    assert dataset_version(source) == version
    (tmp_path / "train.csv").write_text("text\nanother\n")
    assert dataset_version(source) != version


@pytest.mark.parametrize("name", ["", ":train", "a", "a:b:c:d"])
def test_a_data_set_is_named_by_its_name_and_a_split(name: str) -> None:
    for reads in (load_dataset, dataset_version):
        with pytest.raises(UserError) as error:
            reads(f"datasets:{name}")
        assert str(error.value) == (
            f"datasets:{name}: write datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT"
        )


def test_the_hub_says_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    info = type("Info", (), {"sha": "abc"})()
    monkeypatch.setattr(huggingface_hub, "dataset_info", lambda name: {"me/mood": info}[name])
    assert dataset_version("datasets:me/mood:train") == "abc"
    assert dataset_version("datasets:me/mood:en:train") == "abc"
