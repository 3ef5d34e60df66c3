"""Which pretrained model a name means; nothing is loaded here."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.errors import UserError, first_line, nearest
from pet_pipeline.progress import say

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")

CONFIG = "config.json"
RUN_SETTINGS = "config.toml"  # what a run's folder is known by
CLASSIFIER, BASELINE = "distill/classifier", "distill/baseline"  # where a run has them
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
TOKENIZER = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "*.model",
)  # fmt: skip

WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")  # as configurations call them
SMALL_RATE = 3e-4  # of small models
RATES = ((512, SMALL_RATE), (1023, 3e-5))  # up to a hidden size; above, SMALLEST_RATE
SMALLEST_RATE = 1e-5


@dataclass(frozen=True)
class ModelFolder:
    """A model in a folder; it counts by the contents of the files that are loaded."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def in_key(self) -> dict[str, Path]:
        """Configuration, weights and tokenizer files, by name."""
        return {file.name: file for file in _loaded_files(self.path)}


@dataclass(frozen=True)
class HubModel:
    """A model of the hub, at one commit."""

    name: str
    commit: str

    def __str__(self) -> str:
        return self.name


Pretrained = ModelFolder | HubModel


@dataclass(frozen=True)
class ModelName:
    """What the settings name a model by: a folder, or a name on the hub and a revision."""

    name: str
    revision: str = ""
    folder: Path | None = None


def parse_model(text: str) -> ModelName:
    """The model that a setting names. Raises `UserError` if it cannot be one."""
    if not text:
        raise UserError("no model is named; name a folder, or one of the hub such as roberta-base")
    folder = Path(text)
    if text == EMBEDDED_MODEL and not folder.exists():
        folder = Path(__file__).parents[1] / EMBEDDED_MODEL
        if not folder.exists():
            raise UserError(
                f"{EMBEDDED_MODEL} comes with a checkout of pet_pipeline and is not here; "
                "give --model a folder with a masked language model, or a hub name such as "
                "roberta-base"
            )
    if folder.is_dir():
        if not (folder / CONFIG).exists():
            raise UserError(f"{text} has no config.json; name a folder that contains a model")
        return ModelName(text, folder=folder)
    name, _, revision = text.partition("@")
    if text.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(name):
        near = [str(p) for p in folder.parent.glob("*")] if folder.parent.is_dir() else []
        raise UserError(f"{text}: no such folder, and not a hub name{nearest(text, near)}")
    return ModelName(name, revision)


def resolve_model(text: str) -> Pretrained:
    """The folder of a model, or the hub model and the commit that it has now.

    The hub is asked only if no folder has this name. Raises `UserError` if there is neither.
    """
    model = parse_model(text)
    if model.folder is not None:
        return ModelFolder(model.folder)
    return HubModel(model.name, find_commit(model.name, model.revision))


@functools.cache  # one answer per program, whatever happens on the hub meanwhile
def find_commit(name: str, revision: str = "") -> str:
    """The commit of a hub model; from the cache if the hub cannot be reached, which is said.

    Raises `UserError` if there is no such model, or neither hub nor cache have it.
    """
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import model_info
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        return str(model_info(name, revision=revision or None, timeout=10).sha)
    except GatedRepoError as error:
        raise UserError(
            f"{name} is a gated model; accept its terms on the hub and log in: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name} is not a folder here and not a model of the hub") from error
    except HFValidationError as error:  # "a..b" or 97 characters, for example
        raise UserError(f"{name}: no such folder, and not a hub name") from error
    except Exception as error:  # of the HTTP client, whichever the hub's is
        if isinstance(error, HfHubHTTPError) and _is_refusal(error.response.status_code):
            raise UserError(f"{name} is not a model of the hub{_at(revision)}") from error
        commit = _cached_commit(name, revision)
        if commit is None:
            raise UserError(
                f"{name} is not a folder here, is not in the cache, and the hub cannot be reached"
            ) from error
        say(f"  {name}: the hub cannot be reached; taking commit {commit[:12]} from the cache")
        return commit


def find_classifier(path: Path | str) -> Path:
    """The folder of a finished classifier: this one, or that inside a run's folder.

    Of a run without a pool it is the baseline.

    Raises `UserError` if neither is there.
    """
    folder = Path(path).expanduser()
    if (folder / CONFIG).exists():
        return folder
    if (folder / CLASSIFIER / CONFIG).exists():
        return folder / CLASSIFIER
    if (folder / RUN_SETTINGS).exists():
        has_baseline = (folder / BASELINE / CONFIG).exists()
        settings = tomllib.loads((folder / RUN_SETTINGS).read_text("utf-8"))
        if has_baseline and not settings.get("data", {}).get("pool"):
            return folder / BASELINE
        raise UserError(
            f"{folder}: a run without a finished classifier (no {CLASSIFIER}); finish the run, "
            "with distill.enabled = true"
            + (f", or take its baseline, {folder / BASELINE}" if has_baseline else "")
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of a classifier or of a run")
    raise UserError(
        f"{folder}: no classifier; name the folder of a run, or the one that its last lines show"
    )


def default_rate(model: Pretrained) -> float:
    """The learning rate for a model's hidden size: larger models take smaller steps."""
    width = hidden_size(model)
    return next((rate for limit, rate in RATES if width <= limit), SMALLEST_RATE)


def model_title(model: Pretrained) -> str:
    """A model's name on the hub, or the last part of its folder's path."""
    return model.name if isinstance(model, HubModel) else model.path.resolve().name


def hidden_size(model: Pretrained) -> int:
    """The width of a model's states, by its configuration; 768 if that does not say.

    Raises `UserError` if the configuration cannot be read.
    """
    try:
        config = json.loads(_configuration(model).read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{model}: {CONFIG} is not JSON: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise UserError(f"{model}: {CONFIG} has no settings of a model")
    return next((int(config[key]) for key in WIDTHS if isinstance(config.get(key), int)), 768)


def known_hidden_size(text: str) -> int | None:
    """The hidden size of the model that a setting names; None if its configuration is not here.

    Nothing is fetched, and nothing is said of models that do not exist.
    """
    try:
        model = parse_model(text)
        if model.folder is not None:
            return hidden_size(ModelFolder(model.folder))
        commit = _cached_commit(model.name, model.revision)
        return hidden_size(HubModel(model.name, commit)) if commit else None
    except (UserError, ValueError):  # a name that the hub's library refuses
        return None


def has_safetensors(folder: Path) -> bool:
    """Whether a folder has weights in the format that holds nothing but numbers."""
    return any(folder.glob("*.safetensors"))


def _loaded_files(folder: Path) -> Iterator[Path]:
    weights = WEIGHTS if has_safetensors(folder) else PICKLED_WEIGHTS
    patterns = (CONFIG, *weights, *TOKENIZER)
    for file in sorted(folder.iterdir()):
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in patterns):
            yield file


def _configuration(model: Pretrained) -> Path:
    """The file of a model's configuration; fetched from the hub unless it is cached."""
    if isinstance(model, ModelFolder):
        return model.path / CONFIG
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(model.name, CONFIG, revision=model.commit)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(model.name, CONFIG, revision=model.commit))
    except Exception as error:  # of the HTTP client, whichever the hub's is
        reason = first_line(error)
        raise UserError(f"{model.name}: its configuration cannot be fetched: {reason}") from error


def _is_refusal(status: int) -> bool:
    """Whether the hub has answered that there is no such model; else it may have one later."""
    return 400 <= status < 500 and status not in (408, 429)  # too slow, too many requests


def _cached_commit(name: str, revision: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, CONFIG, revision=revision or None)
    # .../snapshots/<commit>/config.json
    return Path(cached).parent.name if isinstance(cached, str) else None


def _at(revision: str) -> str:
    return f" at revision {revision!r}" if revision else ""
