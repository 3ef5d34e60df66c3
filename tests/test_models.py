"""Which model a name means: a folder, or one of the hub at a commit."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from pet_pipeline import models
from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.errors import UserError
from pet_pipeline.models import HubModel, resolve_model


@pytest.fixture(autouse=True)
def _hub_asked_anew() -> None:
    models._commit.cache_clear()


class Hub:
    """A hub with one model, to be asked and counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None):
        self.asked: list[tuple[str, str | None]] = []
        self.error = error
        self.cached: str | None = None
        monkeypatch.setattr(huggingface_hub, "model_info", self.model_info)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: self.cached)

    def model_info(self, name: str, *, revision: str | None, timeout: float) -> object:
        self.asked.append((name, revision))
        if self.error:
            raise self.error
        return type("Info", (), {"sha": f"commit of {revision or 'main'}"})()


def test_a_folder_is_itself(tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert resolve_model(str(tiny_mlm)) == tiny_mlm
    monkeypatch.chdir(tiny_mlm.parent)
    assert resolve_model(tiny_mlm.name) == Path(tiny_mlm.name)
    assert hub.asked == []


def test_the_embedded_model_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = resolve_model(EMBEDDED_MODEL)
    assert isinstance(found, Path)
    assert (found / "config.json").exists()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        resolve_model(str(tmp_path))
    assert str(error.value) == (
        f"model: {tmp_path} has no config.json; name a folder that a model is in"
    )


@pytest.mark.parametrize(("name", "hint"), [("my-modle", True), ("no/where", False)])
def test_no_such_folder_names_the_nearest(tmp_path: Path, name: str, hint: bool) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(UserError) as error:
        resolve_model(f"{tmp_path}/{name}")
    end = f"; did you mean '{tmp_path}/my-model'?" if hint else ""
    assert str(error.value) == f"model: {tmp_path}/{name}: no such folder, and no hub name{end}"


@pytest.mark.parametrize("name", ["~/models/x", "./x", "a b", "a/b/c"])
def test_what_cannot_be_a_hub_name_is_not_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch)
    with pytest.raises(UserError, match="no such folder, and no hub name"):
        resolve_model(name)
    assert hub.asked == []


def test_a_hub_model_is_its_commit_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    for _ in range(2):
        assert resolve_model("org/some-model") == HubModel("org/some-model", "commit of main")
        assert resolve_model("some.model_2", "v1") == HubModel("some.model_2", "commit of v1")
    assert hub.asked == [("org/some-model", None), ("some.model_2", "v1")]


def test_a_model_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
    Hub(monkeypatch, HfHubHTTPError("404", response=response))
    with pytest.raises(UserError) as error:
        resolve_model("bert-bsae")
    assert str(error.value) == "model: bert-bsae is no folder here and no model of the hub"


def test_without_the_hub_the_cache_says_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, OSError("no network"))
    with pytest.raises(UserError) as error:
        resolve_model("some-model")
    assert str(error.value) == (
        "model: some-model is no folder here, is not in the cache, and the hub cannot be reached"
    )
    hub.cached = "/cache/models--some-model/snapshots/abc123/config.json"
    assert resolve_model("some-model") == HubModel("some-model", "abc123")
