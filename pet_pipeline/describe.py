"""A task's patterns as a model reads them: what `pet patterns --model` shows."""

from __future__ import annotations

from typing import Any

from pet_pipeline.combining import Combination
from pet_pipeline.config import Settings
from pet_pipeline.encoding import PatternEncoder, check_encoders, describe_words
from pet_pipeline.errors import at_place, raise_all
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import resolve_model
from pet_pipeline.optimisation import Method, Prompt
from pet_pipeline.patterns import Task, all_patterns
from pet_pipeline.pretrained import check_mlm, load_tokenizer
from pet_pipeline.pvp import Pvp
from pet_pipeline.show import DescribedPattern
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.tuning import TrainedPart


def describe_patterns(
    task: Task, model: str, rows: list[dict[str, Any]], *, prior: bool
) -> dict[str, DescribedPattern]:
    """By pattern: its words' tokens, warnings, and the label prior of the untuned model.

    Raises `UserError` with all that makes the patterns unusable with the model.
    """
    with at_place("model"):
        base = resolve_model(model)
        check_mlm(base)
        tokenizer = load_tokenizer(base)
        max_tokens = Settings().finetune.max_tokens
        encoders = [
            PatternEncoder(
                pattern, tokenizer, max_tokens, SoftTokens() if pattern.has_soft else None
            )
            for pattern in all_patterns(task)
        ]
    raise_all(check_encoders(encoders))
    with at_place("model"):
        lm = MaskedLM.load(base) if prior else None
    return {
        encoder.pattern.name: _describe_pattern(
            encoder, _untuned(lm, encoder) if lm else None, rows
        )
        for encoder in encoders
    }


def _untuned(lm: MaskedLM, encoder: PatternEncoder) -> Pvp:
    """The model with a pattern, whose soft tokens have the vectors of the words they start at."""
    if not encoder.soft_starts:
        return Pvp(lm, encoder)
    method = Method("prompt_tuning", prompt=Prompt(SoftTokens()))
    trained = TrainedPart.of(lm.copy(), method, encoder)
    return Pvp(trained.lm, encoder, trained=trained)


def _describe_pattern(
    encoder: PatternEncoder, pvp: Pvp | None, rows: list[dict[str, Any]]
) -> DescribedPattern:
    warnings = []
    lengths = sorted({len(word) for word in encoder.words.words})
    if len(lengths) > 1:
        warnings.append(
            f"label words of {' and '.join(map(str, lengths))} tokens: "
            f"{encoder.words.n_masks} masks; "
            "a word's score is the mean over its tokens, yet words of one length compare best"
        )
    elif lengths != [1]:
        warnings.append(f"label words of {lengths[0]} tokens: {encoder.words.n_masks} masks")
    if cut := encoder.count_truncated(rows):
        warnings.append(f"{cut} of {len(rows)} rows are cut to {encoder.max_tokens} tokens")
    if soft := len(encoder.soft_starts):
        warnings.append(
            f"{soft} soft token{'s' * (soft > 1)}, trained by the soft prompts of finetune.method"
        )
    prior = None
    if pvp:
        scores = pvp.scores(rows, what=encoder.pattern.name)
        prior = Combination((1.0,)).soft_labels([scores]).mean(0).tolist()
    return DescribedPattern(describe_words(encoder), warnings, prior)
