"""Load every model of the settings once, so that a broken one is noticed at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError, at_place, raise_all
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import Method
from pet_pipeline.run import Run
from pet_pipeline.stages.check_settings import uses_t5
from pet_pipeline.stages.from_settings import base_model, pinned_model, tuning_method
from pet_pipeline.units import Info, Unit


def check_models(run: Run, settings: Settings) -> CheckModels:
    """The unit that loads the models; raises `UserError` about names that are not models."""
    distill, demonstrations = settings.distill, settings.demonstrations

    def named(setting: str, text: str, *, needed: bool) -> Pretrained | None:
        return pinned_model(run, text, setting) if needed and text else None

    needs_student = distill.enabled or settings.baseline.enabled
    student = named("distill.model", distill.model, needed=needs_student)
    encoder = named("demonstrations.encoder", demonstrations.encoder, needed=demonstrations.enabled)
    return CheckModels(
        base=(base := base_model(run, settings)),
        method=tuning_method(settings, base),
        student=student,
        student_longest=_longest_texts(settings) if student else {},
        demonstrations=encoder,
        demonstration_tokens=settings.finetune.max_tokens if encoder else 0,
        t5=named("search.t5", settings.search.t5, needed=uses_t5(settings)),
    )


@dataclass(frozen=True)
class CheckModels(Unit):
    """That every model can be loaded, and fits its tokenizer."""

    base: Pretrained
    student: Pretrained | None = None
    # By setting, the tokens that the student will be given at most.
    student_longest: Mapping[str, int] = field(default_factory=dict, hash=False)
    demonstrations: Pretrained | None = None
    demonstration_tokens: int = 0
    t5: Pretrained | None = None
    method: Method = field(default_factory=Method)  # of the fine-tunes

    def work(self, out: Path, compute: Compute) -> Info:
        """Load the models one after the other; nothing is written."""
        # Loading takes seconds; a broken model would be noticed after hours of other work.
        from pet_pipeline.inference import device_of
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.pretrained import (
            check_seq2seq,
            load_encoder,
            load_mlm,
            load_tokenizer,
            longest_input,
            new_classifier,
        )
        from pet_pipeline.search.seq2seq import sentinels_of
        from pet_pipeline.tuning import trainable_count

        device_of(compute)
        with at_place("model"):
            model = load_mlm(self.base, compute)
            _check_fit(self.base, model, load_tokenizer(self.base))
            lm = MaskedLM(model, load_tokenizer(self.base), compute)
        trained = trainable_count(lm, self.method)
        if self.student:
            with at_place("distill.model"):
                tokenizer = load_tokenizer(self.student)
                model = new_classifier(self.student, ("a", "b"), compute)
                _check_fit(self.student, model, tokenizer)
                _check_student(model)
            limit = min(longest_input(model.config), tokenizer.model_max_length)
            raise_all(_length_problems(limit, self.student_longest))
        if self.demonstrations:
            with at_place("demonstrations.encoder"):
                tokenizer = load_tokenizer(self.demonstrations)
                model = load_encoder(self.demonstrations, compute)
                _check_fit(self.demonstrations, model, tokenizer)
                limit = min(longest_input(model.config), tokenizer.model_max_length)
                if self.demonstration_tokens > limit:
                    raise UserError(
                        f"reads {limit} tokens, less than finetune.max_tokens = "
                        f"{self.demonstration_tokens}; name another encoder or lower that"
                    )
        if self.t5:
            with at_place("search.t5"):
                check_seq2seq(self.t5)
                tokenizer = load_tokenizer(self.t5)
            sentinels_of(tokenizer)  # names the setting itself
        others = (self.student, self.demonstrations, self.t5)
        info: Info = {"models": 1 + sum(model is not None for model in others)}
        return info | ({"trainable": trained} if trained else {})


def _check_student(model: Any) -> None:
    if model.config.pad_token_id is None:  # decoders find a text's end by it
        raise UserError(
            f"a {model.config.model_type} model without a padding token; "
            "name one such as bert or roberta"
        )


def _longest_texts(settings: Settings) -> dict[str, int]:
    longest = {}
    if settings.distill.enabled:
        longest["distill.max_tokens"] = settings.distill.max_tokens
    if settings.baseline.enabled and settings.data.labelled:
        longest["baseline.max_tokens"] = settings.baseline.max_tokens
    return longest


def _length_problems(limit: int, longest: Mapping[str, int]) -> Iterator[str]:
    for setting, tokens in longest.items():
        if tokens > limit:
            yield f"{setting}: {tokens} is more than distill.model reads, {limit}"


def _check_fit(base: Pretrained, model: Any, tokenizer: Any) -> None:
    """Raise `UserError` if a model and its tokenizer do not belong together."""
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(f"{base} has no tokenizer; it belongs in the same folder")
    if len(tokenizer) > known:
        raise UserError(
            f"{base} has {known} tokens, its tokenizer {len(tokenizer)}; "
            "they are not of the same model"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{base} has no padding token; name one such as bert or roberta")
