"""`pet export`: a tuned PVP as a plain model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_pipeline.commands.options import user_errors
from pet_pipeline.errors import UserError
from pet_pipeline.files import replace_file
from pet_pipeline.keys import content_key
from pet_pipeline.models import CONFIG, Pretrained, resolve_model
from pet_pipeline.optimisation import PART, PROTOTYPES
from pet_pipeline.progress import say
from pet_pipeline.stages.results import MODEL

if TYPE_CHECKING:
    from pet_pipeline.mlm import MaskedLM


def export(
    pvp: Annotated[Path, typer.Argument(help="A tuned PVP: RUN/gen-0/finetune/NAME.")],
    merge: Annotated[Path, typer.Option(help="Folder to write, which must not exist yet.")],
    base: Annotated[
        str | None, typer.Option(help="The model that the PVP was tuned from, if it moved.")
    ] = None,
) -> None:
    """Write a tuned PVP as a plain masked language model.

    This is possible where all that was trained is a part of the model: by the methods full,
    bitfit, layernorm, head, lora and ia3, not by soft prompts. Prototypes are left out.
    """
    with user_errors():
        export_pvp(pvp, merge, base)
        say(f"written: {merge}")


def export_pvp(pvp: Path, folder: Path, base: str | None = None) -> None:
    """Write a plain masked LM into a new folder; raises `UserError` if that cannot be done."""
    if folder.exists():
        raise UserError(f"--merge: {folder} exists; name a new folder")
    tuned = pvp / MODEL if (pvp / MODEL).is_dir() else pvp
    has_part = (tuned / PART).exists()
    if not has_part and not (tuned / CONFIG).exists() and (tuned / PROTOTYPES).exists():
        raise UserError(
            f"{pvp}: only prototypes were learned, which are not a part of a model; its model is "
            "the one that the run was started with"
        )
    if not has_part and not (tuned / CONFIG).exists():
        raise UserError(f"{pvp}: not a tuned PVP; name a folder such as RUN/gen-0/finetune/NAME")
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    if has_part:
        lm = _merged(tuned, base)
        lm.model.save_pretrained(beside)
        lm.tokenizer.save_pretrained(beside)
    else:
        shutil.copytree(tuned, beside, ignore=shutil.ignore_patterns(PROTOTYPES))
    if (tuned / PROTOTYPES).exists():
        say(f"{pvp}: its prototypes are left out; the plain model scores label words alone")
    replace_file(beside, folder)


def _merged(tuned: Path, base: str | None) -> MaskedLM:
    """The model that a part was trained of, with the part merged into it."""
    from pet_pipeline.mlm import MaskedLM
    from pet_pipeline.parts import read_part
    from pet_pipeline.tuning import TrainedPart

    about = read_part(tuned / PART)[1]
    lm = MaskedLM.load(_base_of(tuned, about, base))
    part = TrainedPart.load(lm, tuned / PART)
    part.merge()
    return part.lm


def _base_of(tuned: Path, about: dict[str, str], base: str | None) -> Pretrained:
    """The model that a PVP was tuned from; raises `UserError` if it moved or changed."""
    name = base or about["base"]
    try:
        found = resolve_model(name)
    except UserError:
        if base:
            raise
        raise UserError(
            f"{tuned}: the model that it was tuned from, {name}, is not there; name it with --base"
        ) from None
    if content_key(found) != about["base_key"]:
        raise UserError(
            f"{tuned}: {name} is not the model that it was tuned from, or has changed since; name "
            "that one with --base"
        )
    return found
