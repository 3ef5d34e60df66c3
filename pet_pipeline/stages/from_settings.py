"""The values that units take from a run's settings: models, precision, rates, loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pet_pipeline.config import AdamW, Finetune, Optimiser, Settings
from pet_pipeline.errors import at_place
from pet_pipeline.hub_datasets import DATASETS, dataset_version
from pet_pipeline.methods import METHODS, SOFT_METHODS
from pet_pipeline.models import (
    SMALL_RATE,
    HubModel,
    ModelFolder,
    Pretrained,
    default_rate,
    find_commit,
    parse_model,
)
from pet_pipeline.optimisation import (
    PART,
    Adaptation,
    Contrast,
    Method,
    MlmLoss,
    Optimisation,
    Prompt,
    PrototypeSettings,
    Tuning,
)
from pet_pipeline.patterns import Pattern, Task, all_patterns
from pet_pipeline.run import Run
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.sources import Source, find_source


def base_model(run: Run, settings: Settings) -> Pretrained:
    """The masked language model that the PVPs start from."""
    return pinned_model(run, settings.model, "model")


def student_model(run: Run, settings: Settings) -> Pretrained:
    """The encoder of the classifier, and of the baseline it is compared with."""
    if settings.distill.model:
        return pinned_model(run, settings.distill.model, "distill.model")
    return base_model(run, settings)


def demonstration_encoder(run: Run, settings: Settings) -> Pretrained:
    """The encoder that compares rows for demonstrations."""
    if settings.demonstrations.encoder:
        return pinned_model(run, settings.demonstrations.encoder, "demonstrations.encoder")
    return base_model(run, settings)


def pinned_model(run: Run, text: str, setting: str) -> Pretrained:
    """The model that a setting names; of the hub at the commit that the run was begun with.

    A named revision renews the commit. Raises `UserError` about the setting if there is none.
    """
    with at_place(setting):
        model = parse_model(text)
        if model.folder is not None:
            return ModelFolder(model.folder)
        commit = run.pin(
            f"{setting} {model.name}",
            lambda: find_commit(model.name, model.revision),
            renew=bool(model.revision),
        )
        return HubModel(model.name, commit)


def pinned_source(run: Run, text: str) -> Source:
    """The table that a setting names; a data set of the hub at the run's first commit of it."""
    if not text.startswith(DATASETS):
        return find_source(text)
    return find_source(text, run.pin(text, lambda: dataset_version(text)))


def precision(run: Run, settings: Settings) -> str:
    """float32 or bfloat16; "auto" is resolved by the first real run, and kept."""
    chosen = settings.machine.precision
    if chosen != "auto":
        return chosen
    return run.pin("precision", lambda: "auto" if run.dry else _resolve(run))


def optimisation(settings: Settings, section: AdamW, model: Pretrained) -> Optimisation:
    """How a section's models are trained; rates of 0 follow the model's hidden size."""
    return Optimisation(
        learning_rate=section.learning_rate or settings.learning_rate or default_rate(model),
        batch_size=section.batch_size,
        batch_tokens=section.batch_tokens,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        clip=section.clip,
        frozen_embeddings=section.frozen_embeddings,
        balanced=isinstance(section, Optimiser) and section.balanced,
    )


def tuning(settings: Settings, model: Pretrained) -> Tuning:
    """How a PVP is tuned."""
    chosen = settings.finetune
    rate = chosen.learning_rate or method_rate(settings, model)
    how = optimisation(settings, chosen.model_copy(update={"learning_rate": rate}), model)
    return Tuning(how, chosen.updates, _mlm_loss(chosen), _contrast(chosen))


def method_rate(settings: Settings, model: Pretrained) -> float:
    """The learning rate that the method of the fine-tunes needs by default."""
    method = settings.finetune.method
    whole = settings.learning_rate or default_rate(model)
    own = METHODS[method].learning_rate
    if own is None:
        return whole
    return own if method in SOFT_METHODS else own * whole / SMALL_RATE


def adaptation(settings: Settings, model: Pretrained) -> Adaptation:
    """How the masked language model is adapted; a prompted text is as long as a PVP's input."""
    chosen = settings.adapt
    prompted = chosen.text == "prompted"
    how = Adaptation(
        optimisation=optimisation(settings, chosen, model),
        steps=1,
        max_tokens=settings.finetune.max_tokens if prompted else chosen.max_tokens,
        packed=chosen.packed,
        masked=chosen.masked,
        whole_words=chosen.whole_words,
        keep_weight=chosen.keep_weight if chosen.keep else 0.0,
    )
    return replace(how, steps=max(1, chosen.tokens // how.update_tokens))


def soft_tokens(settings: Settings) -> SoftTokens | None:
    """The trainable tokens of every input, if the settings want a soft prompt."""
    chosen = settings.finetune
    if chosen.method not in SOFT_METHODS:
        return None
    if chosen.method == "soft":
        return SoftTokens(template=True)
    return SoftTokens(chosen.prompt_length, chosen.prompt_words)


def tuning_method(settings: Settings, model: Pretrained) -> Method:
    """What of the PVPs' model is trained."""
    chosen, tokens = settings.finetune, soft_tokens(settings)
    if tokens is None:
        return Method(chosen.method, lora_rank=chosen.lora_rank if chosen.method == "lora" else 0)
    rate = chosen.model_learning_rate or settings.learning_rate or default_rate(model)
    prompt = Prompt(
        tokens=tokens,
        deep=chosen.deep,
        encoder=chosen.prompt_encoder,
        start=chosen.prompt_start,
        source=Path(chosen.prompt_from) / PART if chosen.prompt_from else None,
        model_rate=0.0 if chosen.freeze else rate,
    )
    return Method(chosen.method, prompt=prompt)


def view_pattern(task: Task, settings: Settings) -> Pattern | None:
    """The pattern in which rows are read for contrast; None unless the settings want one."""
    chosen = settings.finetune
    if not chosen.contrast_weight or chosen.contrast_view != "pattern":
        return None
    return next(p for p in all_patterns(task) if p.name == chosen.contrast_pattern)


def prototype_settings(settings: Settings) -> PrototypeSettings | None:
    """How the PVPs' prototypes are learned; None if they have none."""
    chosen = settings.finetune
    return PrototypeSettings(chosen.prototype_size) if chosen.prototypes else None


def _mlm_loss(chosen: Finetune) -> MlmLoss | None:
    if not chosen.mlm_weight:
        return None
    return MlmLoss(chosen.mlm_weight, chosen.mlm_texts, chosen.mlm_masked)


def _contrast(chosen: Finetune) -> Contrast | None:
    if not chosen.contrast_weight:
        return None
    return Contrast(chosen.contrast_weight, chosen.contrast_temperature, chosen.contrast_view)


def _resolve(run: Run) -> str:
    from pet_pipeline.compute import Compute
    from pet_pipeline.inference import resolve_precision

    return resolve_precision(run.compute if isinstance(run.compute, Compute) else Compute())
