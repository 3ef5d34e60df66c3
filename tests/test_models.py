"""Which model a name means: a folder and what counts in it, or one of the hub at a commit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.errors import UserError
from pet_pipeline.keys import changes, fingerprint
from pet_pipeline.models import (
    HubModel,
    ModelFolder,
    ModelName,
    default_rate,
    find_classifier,
    find_commit,
    has_safetensors,
    hidden_size,
    known_hidden_size,
    parse_model,
    resolve_model,
)

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def _hub_asked_anew() -> None:
    find_commit.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one model, of which main and v1 are known."""
    root = tmp_path / "cache"
    model = root / "models--org--some-model"
    for revision, commit in {"main": COMMIT, "v1": COMMIT[::-1]}.items():
        (model / "refs").mkdir(parents=True, exist_ok=True)
        (model / "refs" / revision).write_text(commit)
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text('{"hidden_size": 1024}')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return root


class Hub:
    """A hub with every model, or an error; counts what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None):
        self.asked: list[tuple[str, str | None]] = []
        self.error = error
        monkeypatch.setattr(huggingface_hub, "model_info", self.model_info)

    def model_info(self, name: str, *, revision: str | None, timeout: float) -> object:
        self.asked.append((name, revision))
        if self.error:
            raise self.error
        return type("Info", (), {"sha": f"commit of {revision or 'main'}"})()


def refusal(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response = type("Response", (), {"headers": {}, "request": None, "status_code": status})()
    return kind(f"{status}", response=response)


def model_folder(folder: Path, *names: str) -> ModelFolder:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", *names):
        (folder / name).write_text(f"{name} 1")
    return ModelFolder(folder)


# Names


def test_a_folder_is_itself(tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert resolve_model(str(tiny_mlm)) == ModelFolder(tiny_mlm)
    monkeypatch.chdir(tiny_mlm.parent)
    assert resolve_model(tiny_mlm.name) == ModelFolder(Path(tiny_mlm.name))
    assert hub.asked == []


def test_the_embedded_model_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embedded = resolve_model(EMBEDDED_MODEL)
    assert isinstance(embedded, ModelFolder)
    assert (embedded.path / "config.json").exists()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        resolve_model(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} has no config.json; name a folder that contains a model"
    )


@pytest.mark.parametrize(("name", "hint"), [("my-modle", True), ("no/where", False)])
def test_no_such_folder_names_the_nearest(tmp_path: Path, name: str, hint: bool) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(UserError) as error:
        resolve_model(f"{tmp_path}/{name}")
    end = f"; did you mean '{tmp_path}/my-model'?" if hint else ""
    assert str(error.value) == f"{tmp_path}/{name}: no such folder, and not a hub name{end}"


@pytest.mark.parametrize("name", ["~/models/x", "./x", "a b", "a/b/c", "@v1", "a b@v1"])
def test_what_cannot_be_a_hub_name_is_not_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        resolve_model(name)
    assert str(error.value).startswith(f"{name}: no such folder, and not a hub name")
    assert hub.asked == []


def test_a_model_needs_a_name(tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_mlm)  # a folder with a model, which nobody named
    with pytest.raises(UserError) as error:
        resolve_model("")
    assert str(error.value) == (
        "no model is named; name a folder, or one of the hub such as roberta-base"
    )


@pytest.mark.parametrize("name", ["a..b", "org/a--b", "x" * 97])
def test_what_the_hub_refuses_as_a_name_is_the_users_error(name: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_model(name)
    assert str(error.value) == f"{name}: no such folder, and not a hub name"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("roberta-base", ModelName("roberta-base")),
        ("org/some.model_2", ModelName("org/some.model_2")),
        ("org/some-model@v1.0", ModelName("org/some-model", "v1.0")),
        ("some-model@refs/pr/1", ModelName("some-model", "refs/pr/1")),
        (f"some-model@{COMMIT}", ModelName("some-model", COMMIT)),
    ],
)
def test_a_hub_name_may_have_a_revision(text: str, name: ModelName) -> None:
    assert parse_model(text) == name


def test_a_folder_may_have_an_at_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "model@v1")
    monkeypatch.chdir(tmp_path)
    assert parse_model("model@v1") == ModelName("model@v1", folder=Path("model@v1"))


def test_a_model_is_shown_by_its_name(tmp_path: Path) -> None:
    assert str(ModelFolder(tmp_path)) == str(tmp_path)
    assert str(HubModel("org/some-model", COMMIT)) == "org/some-model"


# Commits


def test_a_hub_model_is_its_commit_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    for _ in range(2):
        assert resolve_model("org/some-model") == HubModel("org/some-model", "commit of main")
        assert resolve_model("some.model_2@v1") == HubModel("some.model_2", "commit of v1")
    assert hub.asked == [("org/some-model", None), ("some.model_2", "v1")]


def test_a_whole_commit_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert resolve_model(f"org/some-model@{COMMIT}") == HubModel("org/some-model", COMMIT)
    assert hub.asked == []
    resolve_model(f"org/some-model@{COMMIT[:12]}")
    assert hub.asked == [("org/some-model", COMMIT[:12])]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            refusal(RepositoryNotFoundError, 401),
            "org/some-model is not a folder here and not a model of the hub",
        ),
        (
            refusal(GatedRepoError, 403),
            "org/some-model is a gated model; accept its terms on the hub and log in: "
            "hf auth login",
        ),
        (
            refusal(RevisionNotFoundError, 404),
            "org/some-model is not a model of the hub at revision 'v1'",
        ),
    ],
)
def test_a_model_that_the_hub_does_not_have(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    Hub(monkeypatch, error)  # the cache may have it nevertheless: the hub knows better
    with pytest.raises(UserError) as raised:
        resolve_model("org/some-model@v1")
    assert str(raised.value) == message


UNREACHABLE = {
    "no network": lambda: HTTPError("no network"),  # of the HTTP client: not an OSError
    "no socket": lambda: OSError("no network"),
    "down": lambda: refusal(HfHubHTTPError, 503),
    "too many requests": lambda: refusal(HfHubHTTPError, 429),
}


@pytest.mark.parametrize("kind", UNREACHABLE)
@pytest.mark.parametrize(("revision", "commit"), [("", COMMIT), ("@v1", COMMIT[::-1])])
def test_without_the_hub_the_cache_says_the_commit(
    kind: str,
    revision: str,
    commit: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub = Hub(monkeypatch, UNREACHABLE[kind]())
    for _ in range(2):
        assert resolve_model(f"org/some-model{revision}") == HubModel("org/some-model", commit)
    assert len(hub.asked) == 1
    assert capsys.readouterr().err == (
        f"  org/some-model: the hub cannot be reached; taking commit {commit[:12]} from the cache\n"
    )


def test_offline_the_cache_says_the_commit(cache: Path) -> None:
    assert constants.HF_HUB_OFFLINE  # as in every test: the hub's own client refuses to ask
    assert find_commit("org/some-model") == COMMIT


@pytest.mark.parametrize("kind", UNREACHABLE)
@pytest.mark.parametrize("name", ["other-model", "org/some-model@v2"])
def test_without_the_hub_and_without_the_cache(
    kind: str, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, UNREACHABLE[kind]())
    with pytest.raises(UserError) as error:
        resolve_model(name)
    assert error.value.problems == (
        f"{name.partition('@')[0]} is not a folder here, is not in the cache, "
        "and the hub cannot be reached",
    )


# Folders


WEIGHTS = ("model.safetensors", "pytorch_model.bin")
COUNTED = (
    "config.json", "model.safetensors", "model-00001-of-00002.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model",
)  # fmt: skip
IGNORED = (
    "README.md", "training_args.bin", "optimizer.pt", "flax_model.msgpack", "tf_model.h5",
    "pytorch_model.bin", "trainer_state.json", ".gitattributes",
)  # fmt: skip


def edited(model: ModelFolder, name: str) -> bool:
    """Whether another text in a file makes another model."""
    before = fingerprint(model)
    (model.path / name).write_text("another text")
    return bool(fingerprint(model) != before)


@pytest.mark.parametrize("name", COUNTED)
def test_a_file_that_is_loaded_counts(tmp_path: Path, name: str) -> None:
    assert edited(model_folder(tmp_path / "model", *COUNTED, *IGNORED), name)


@pytest.mark.parametrize("name", IGNORED)
def test_a_file_that_is_not_loaded_does_not_count(tmp_path: Path, name: str) -> None:
    assert not edited(model_folder(tmp_path / "model", *COUNTED, *IGNORED), name)


@pytest.mark.parametrize("name", ["README.md", "training_args.bin", "runs/", "tokenizer/"])
def test_what_is_added_to_a_folder_does_not_count(tmp_path: Path, name: str) -> None:
    model = model_folder(tmp_path / "model", *COUNTED)
    before = fingerprint(model)
    if name.endswith("/"):
        model_folder(tmp_path / "model" / name, "model.safetensors")
    else:
        (model.path / name).touch()
    assert fingerprint(model) == before


def test_pickled_weights_count_where_there_are_no_others(tmp_path: Path) -> None:
    pickled = ("pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin")
    model = model_folder(tmp_path / "model", *pickled)
    assert not has_safetensors(model.path)
    assert [edited(model, name) for name in pickled] == [True, True, False]
    before = fingerprint(model)
    (model.path / "model.safetensors").touch()
    assert has_safetensors(model.path)
    assert fingerprint(model) != before
    assert [edited(model, name) for name in pickled] == [False] * 3


def test_a_copy_of_a_folder_is_the_same_model_and_a_renamed_file_another(tmp_path: Path) -> None:
    first, second = (model_folder(tmp_path / n, "model.safetensors", "vocab.txt") for n in "12")
    assert fingerprint(first) == fingerprint(second)
    (second.path / "vocab.txt").rename(second.path / "vocab.json")
    assert fingerprint(first) != fingerprint(second)


def test_a_changed_file_is_a_changed_model(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "model.safetensors")
    before = {"params": {"model": fingerprint(model)}}
    (model.path / "model.safetensors").write_text("2")
    after = {"params": {"model": fingerprint(model)}}
    (change,) = changes(before, after)
    assert (change.path, change.kind) == (("params", "model"), "content")


def test_a_hub_model_counts_by_its_name_and_commit() -> None:
    assert fingerprint(HubModel("a", COMMIT)) == {"name": "a", "commit": COMMIT}


# Rates


@pytest.mark.parametrize("key", ["hidden_size", "dim", "d_model", "n_embd"])
@pytest.mark.parametrize(
    ("size", "rate"), [(32, 3e-4), (512, 3e-4), (513, 3e-5), (768, 3e-5), (1024, 1e-5)]
)
def test_larger_models_take_smaller_steps(tmp_path: Path, key: str, size: int, rate: float) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 9, key: size}))
    assert hidden_size(ModelFolder(tmp_path)) == size
    assert default_rate(ModelFolder(tmp_path)) == rate


def test_a_model_that_does_not_say_its_size_is_taken_for_a_base_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": null, "model_type": "x"}')
    assert hidden_size(ModelFolder(tmp_path)) == 768


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_the_size_is_the_one_that_the_library_knows(
    mlm_of: Callable[[str], Path], name: str
) -> None:
    assert hidden_size(ModelFolder(mlm_of(name))) == 32


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "config.json is not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "config.json is not JSON: 'utf-8' codec can't decode byte 0xff"),
        ("[]", "config.json has no settings of a model"),
    ],
)
def test_a_configuration_that_cannot_be_read(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=f"^{re.escape(f'{tmp_path}: {problem}')}"):
        hidden_size(ModelFolder(tmp_path))


def test_the_rate_of_a_hub_model_is_read_from_the_cache(cache: Path) -> None:
    assert default_rate(HubModel("org/some-model", COMMIT)) == 1e-5


def test_a_configuration_that_cannot_be_fetched(cache: Path) -> None:
    with pytest.raises(UserError, match=r"^other-model: its configuration cannot be fetched: "):
        hidden_size(HubModel("other-model", COMMIT))


@pytest.mark.usefixtures("cache")
def test_the_hidden_size_is_known_where_the_configuration_is_here(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 77}')
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for text, expected in (
        (str(tmp_path), 77),
        ("org/some-model", 1024),
        ("org/some-model@v1", 1024),
        ("org/some-model@v2", None),
        ("org/other-model", None),  # nothing is fetched
        ("a..b", None),
        ("", None),
        (str(tmp_path / "bad"), None),
        (str(tmp_path / "empty"), None),
        (str(tmp_path / "nothing"), None),
    ):
        assert known_hidden_size(text) == expected, text


def test_a_configuration_is_fetched_where_it_is_not_cached(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, file: str, *, revision: str) -> str:
        assert (name, file, revision) == ("other-model", "config.json", COMMIT)
        (tmp_path / file).write_text('{"d_model": 640}')
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hidden_size(HubModel("other-model", COMMIT)) == 640


def test_a_classifier_is_found_in_its_folder_and_in_its_run(tmp_path: Path) -> None:
    inner = model_folder(tmp_path / "run" / "distill" / "classifier").path
    assert find_classifier(inner) == inner
    assert find_classifier(str(tmp_path / "run")) == inner


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("nowhere", "no such folder; name the folder of a classifier or of a run"),
        (
            "run",
            "a run without a finished classifier (no distill/classifier); finish the run, with "
            "distill.enabled = true",
        ),
        ("", "no classifier; name the folder of a run, or the one that its last lines show"),
    ],
)
def test_folders_without_a_classifier(tmp_path: Path, folder: str, problem: str) -> None:
    (tmp_path / "run" / "distill").mkdir(parents=True)
    (tmp_path / "run" / "config.toml").write_text("")
    with pytest.raises(UserError) as error:
        find_classifier(tmp_path / folder)
    assert str(error.value) == f"{tmp_path / folder}: {problem}"


def test_a_run_with_a_baseline_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[data]\npool = "p.csv"\n')
    baseline = model_folder(tmp_path / "distill" / "baseline").path
    with pytest.raises(UserError) as error:
        find_classifier(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: a run without a finished classifier (no distill/classifier); finish the "
        f"run, with distill.enabled = true, or take its baseline, {baseline}"
    )
    (tmp_path / "config.toml").write_text('[data]\npool = ""\n')  # there will be no other
    assert find_classifier(tmp_path) == baseline
