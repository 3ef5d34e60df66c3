"""Load pretrained models and their tokenizers, and say what is wrong with them."""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
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

from pet_pipeline.compute import Compute
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.errors import UserError, first_line
from pet_pipeline.inference import device_of
from pet_pipeline.models import HubModel, ModelFolder, Pretrained, has_safetensors

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# What the library raises for files that are cut off or damaged, or of another configuration
BAD_CONFIGURATION = (OSError, ValueError, KeyError, StrictDataclassError)
BAD_MODEL = (
    OSError, ValueError, EOFError, struct.error, SafetensorError, RuntimeError,
    StrictDataclassError,
)  # fmt: skip
# Model types that number positions from after the padding token's id
LATE_POSITIONS = (
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def load_tokenizer(model: Pretrained) -> Tokenizer:
    """The tokenizer of a model; raises `UserError` if there is none."""
    name, options = _where(model)
    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except (*BAD_CONFIGURATION, ImportError) as error:
        reason = first_line(error).rstrip(":. ")
        raise UserError(
            f"{name}: no tokenizer: {reason}; its files belong in the same folder"
        ) from None


def check_mlm(model: Pretrained) -> int:
    """The most tokens a masked LM reads, by its configuration; loads no weights.

    Raises `UserError` if it is not a masked LM.
    """
    name, config = _where(model)[0], _configuration(model)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise UserError(
            f"{name} is a {config.model_type} model, which has no masked-LM head; "
            "name one such as bert, roberta, deberta-v2 or modernbert"
        )
    return longest_input(config)


def longest_input(config: Any) -> int:
    """The most tokens that a model of a configuration reads."""
    positions = int(getattr(config, "max_position_embeddings", None) or sys.maxsize)
    if config.model_type in LATE_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1
    return positions


def input_limit(model: Pretrained) -> int:
    """The most tokens that a model reads, by its configuration; loads no weights."""
    return longest_input(_configuration(model))


def check_seq2seq(model: Pretrained) -> None:
    """Raise `UserError` if a model is not a sequence-to-sequence model; loads no weights."""
    config = _configuration(model)
    if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{_where(model)[0]} is a {config.model_type} model, which does not write text "
            "from text; name one such as t5"
        )


def load_mlm(model: Pretrained, compute: Compute | None = None) -> Any:
    """The masked LM in float32; raises `UserError` if its weights have no masked-LM head."""
    check_mlm(model)
    loaded, info = _load(AutoModelForMaskedLM, model, compute)
    missing = sorted(key for key in info["missing_keys"] if "position_ids" not in key)
    if missing:
        raise UserError(
            f"{_where(model)[0]} has no trained masked-LM head (missing: {missing[0]}); "
            "name the model that was pretrained, not one tuned for another task"
        )
    return loaded


def new_mlm(model: Pretrained, compute: Compute | None = None) -> tuple[Any, bool]:
    """A masked LM in float32 on any encoder, and whether its head is new, which starts at random.

    Raises `UserError` if weights of the encoder are missing, or there is no such head for it.
    """
    check_mlm(model)
    loaded, info = _load(AutoModelForMaskedLM, model, compute)
    encoder = f"{loaded.base_model_prefix}."
    missing = sorted(key for key in info["missing_keys"] if "position_ids" not in key)
    lost = [key for key in missing if key.startswith(encoder)]
    if lost:
        raise UserError(f"{_where(model)[0]} lacks weights of the encoder (missing: {lost[0]})")
    return loaded, bool(missing)


def new_classifier(
    model: Pretrained, labels: tuple[str, ...], compute: Compute | None = None
) -> Any:
    """A sequence classifier in float32 with a new head and label names on a pretrained encoder."""
    names = dict(enumerate(labels))
    loaded, _ = _load(
        AutoModelForSequenceClassification,
        model,
        compute,
        num_labels=len(labels),
        id2label=names,
        label2id={label: n for n, label in names.items()},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )
    return loaded


def load_encoder(model: Pretrained, compute: Compute | None = None) -> Any:
    """A pretrained encoder in float32, without a head, that turns texts into states."""
    loaded, _ = _load(AutoModel, model, compute)
    return loaded


def load_seq2seq(model: Pretrained, compute: Compute | None = None) -> Any:
    """A sequence-to-sequence model in float32, such as a T5."""
    loaded, info = _load(AutoModelForSeq2SeqLM, model, compute)
    if info["missing_keys"]:
        raise UserError(f"{_where(model)[0]} lacks weights ({sorted(info['missing_keys'])[0]})")
    return loaded


def load_classifier(folder: Path, compute: Compute | None = None) -> Any:
    """A finished classifier in float32; raises `UserError` if the folder has none."""
    loaded, info = _load(AutoModelForSequenceClassification, ModelFolder(folder), compute)
    if info["missing_keys"]:
        raise UserError(f"{folder}: a model without a classification head; name a classifier")
    return loaded


def _configuration(model: Pretrained) -> Any:
    name, options = _where(model)
    try:
        return AutoConfig.from_pretrained(name, **options)
    except BAD_CONFIGURATION as error:
        raise UserError(f"{name}: no configuration: {first_line(error)}") from None


def _where(model: Pretrained) -> tuple[str, dict[str, Any]]:
    """A model's name for the library, and the options that keep it to one version."""
    if isinstance(model, HubModel):
        return model.name, {"revision": model.commit, "trust_remote_code": False}
    return str(model), {"local_files_only": True, "trust_remote_code": False}


def _load(
    auto: Any, model: Pretrained, compute: Compute | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model in float32, and what the library says of its weights."""
    name = _where(model)[0]
    # On CPUs the plain attention is the faster one for texts of some hundred tokens; elsewhere
    # the library takes what the architecture has.
    if device_of(compute or Compute()).type == "cpu":
        options["attn_implementation"] = "eager"
    try:
        if isinstance(model, ModelFolder):
            return _load_weights(auto, model, safe=has_safetensors(model.path), **options)
        try:
            return _load_weights(auto, model, safe=True, **options)
        except OSError:  # models that were never converted, such as microsoft/deberta-v3-base
            return _load_weights(auto, model, safe=False, **options)
    except pickle.UnpicklingError:
        raise UserError(
            f"{name}: its pytorch_model.bin holds more than weights and is not loaded; convert it: "
            "load the model where you trust it and call model.save_pretrained(FOLDER)"
        ) from None
    except BAD_MODEL as error:
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from None


def _load_weights(
    auto: Any, model: Pretrained, *, safe: bool, **options: Any
) -> tuple[Any, dict[str, Any]]:
    name, where = _where(model)
    loaded, info = auto.from_pretrained(
        name,
        **where,
        **options,
        dtype=torch.float32,  # whatever is stored: transformers 5 would take the checkpoint's type
        use_safetensors=safe,
        weights_only=True,
        output_loading_info=True,
    )
    return loaded, info
