"""Load pretrained models, and set up the machine they run on."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from pet_pipeline.config import Machine
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.errors import UserError
from pet_pipeline.models import HubModel, Pretrained

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_tokenizer(model: Pretrained) -> Tokenizer:
    """The tokenizer of a model."""
    name, options = _where(model)
    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = _first_line(error).rstrip(":. ")
        raise UserError(
            f"model: {name}: no tokenizer: {reason}; its files belong in the same folder"
        ) from None


def check_mlm(model: Pretrained) -> int:
    """The most tokens a masked LM reads, by its configuration; loads no weights.

    Raises `UserError` if it is no masked LM.
    """
    name, config = _where(model)[0], _configuration(model)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise UserError(
            f"model: {name} is a {config.model_type} model, which has no masked-LM head; "
            "name one such as bert, roberta, deberta-v2 or modernbert"
        )
    return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)


def check_seq2seq(model: Pretrained) -> None:
    """Raise `UserError` if a model is no sequence-to-sequence model; loads no weights."""
    config = _configuration(model)
    if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        raise UserError(
            f"model: {_where(model)[0]} is a {config.model_type} model, which does not write text "
            "from text; name one such as t5"
        )


def load_mlm(model: Pretrained) -> Any:
    """The masked LM in float32; raises `UserError` if its weights have no masked-LM head."""
    check_mlm(model)
    loaded, info = _load(AutoModelForMaskedLM, model)
    missing = sorted(key for key in info["missing_keys"] if "position_ids" not in key)
    if missing:
        raise UserError(
            f"model: {_where(model)[0]} has no trained masked-LM head (missing: {missing[0]}); "
            "name the model that was pretrained, not one tuned for another task"
        )
    return loaded


def new_classifier(model: Pretrained, labels: tuple[str, ...]) -> Any:
    """A sequence classifier in float32 with a new head and label names on a pretrained encoder."""
    names = dict(enumerate(labels))
    loaded, _ = _load(
        AutoModelForSequenceClassification,
        model,
        num_labels=len(labels),
        id2label=names,
        label2id={label: n for n, label in names.items()},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )
    return loaded


def load_encoder(model: Pretrained) -> Any:
    """A pretrained encoder in float32, without a head, that turns texts into states."""
    loaded, _ = _load(AutoModel, model)
    return loaded


def load_seq2seq(model: Pretrained) -> Any:
    """A sequence-to-sequence model in float32, such as a T5."""
    loaded, info = _load(AutoModelForSeq2SeqLM, model)
    if info["missing_keys"]:
        raise UserError(
            f"model: {_where(model)[0]} lacks weights ({sorted(info['missing_keys'])[0]})"
        )
    return loaded


def load_classifier(folder: Path) -> Any:
    """A finished classifier; raises `UserError` if the folder has none."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no classifier; name the folder that a run's last lines show")
    loaded, info = _load(AutoModelForSequenceClassification, folder)
    if info["missing_keys"]:
        raise UserError(f"{folder}: a model without a classification head; name a classifier")
    return loaded


def device_of(machine: Machine) -> torch.device:
    """The device of the settings; also limits the threads. Raises `UserError` if there is none."""
    threads = machine.threads or max(1, (os.cpu_count() or 1) // machine.jobs)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if machine.device != "auto":
        try:
            device = torch.device(machine.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"machine.device: {machine.device!r} cannot be used: "
                f"{_first_line(error).partition('. ')[0]}; "
                "'auto' takes what is there"
            ) from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(machine: Machine, device: torch.device) -> AbstractContextManager[Any]:
    """The context that forward passes run in: bfloat16 where it is fast, or plain float32."""
    if machine.precision == "float32" or (
        machine.precision == "auto" and not _has_bfloat16(device)
    ):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "cpu":
        cpu: Any = torch.cpu
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(cpu, check, bool)() for check in checks)
    return False


def _configuration(model: Pretrained) -> Any:
    name, options = _where(model)
    try:
        return AutoConfig.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model: {name}: no configuration: {_first_line(error)}") from None


def _where(model: Pretrained) -> tuple[str, dict[str, Any]]:
    if isinstance(model, HubModel):
        return model.name, {"revision": model.commit, "trust_remote_code": False}
    return str(model), {"local_files_only": True, "trust_remote_code": False}


def _load(auto: Any, model: Pretrained, **options: Any) -> tuple[Any, dict[str, Any]]:
    name, where = _where(model)
    try:
        # float32 whatever is stored: transformers 5 would take the checkpoint's type.
        loaded, info = auto.from_pretrained(
            name,
            **where,
            **options,
            dtype=torch.float32,
            use_safetensors=True,
            # On CPUs the plain attention is the faster one for texts of some hundred tokens.
            attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"model: {name} cannot be loaded: {_first_line(error)}") from None
    return loaded, info


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
