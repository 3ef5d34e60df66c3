"""Which pretrained model a name means; nothing is loaded here."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.config import EMBEDDED_MODEL
from pet_pipeline.errors import UserError, nearest

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub, at one commit."""

    name: str
    commit: str


Pretrained = Path | HubModel


def resolve_model(name: str, revision: str = "") -> Pretrained:
    """The folder a model is in, or the hub model and the commit it stands at now.

    The hub is asked only if no folder has this name. Raises `UserError` if there is neither.
    """
    folder = Path(name)
    if name == EMBEDDED_MODEL and not folder.exists():
        folder = Path(__file__).parents[1] / EMBEDDED_MODEL
        if not folder.exists():
            raise UserError(
                f"model: {EMBEDDED_MODEL} comes with a checkout of pet_pipeline and is not here; "
                "give --model a folder with a masked language model, or a hub name such as "
                "roberta-base"
            )
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"model: {name} has no config.json; name a folder that a model is in")
        return folder
    if name.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(name):
        near = [str(p) for p in folder.parent.glob("*")] if folder.parent.is_dir() else []
        raise UserError(f"model: {name}: no such folder, and no hub name{nearest(name, near)}")
    return HubModel(name, _commit(name, revision or None))


@functools.cache  # one answer a program, whatever happens on the hub meanwhile
def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    try:
        return str(model_info(name, revision=revision, timeout=10).sha)
    except HfHubHTTPError as error:
        raise UserError(f"model: {name} is no folder here and no model of the hub") from error
    except (OfflineModeIsEnabled, OSError) as error:
        if isinstance(cached, str):  # .../snapshots/<commit>/config.json
            return Path(cached).parent.name
        raise UserError(
            f"model: {name} is no folder here, is not in the cache, and the hub cannot be reached"
        ) from error
