"""What is known of an adapted masked language model, and the model card that says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pet_pipeline.metrics import percent
from pet_pipeline.optimisation import Adaptation

FEW_POSITIONS = 50_000  # below, a difference of 0.4 points in accuracy may be chance


@dataclass(frozen=True)
class Figures:
    """What a masked LM is worth on held-out texts.

    loss: mean cross-entropy of the predicted tokens, in nats; accuracy: how many are right;
    cosine: mean of the texts' embeddings with those of the teacher, or of the model at the start
    """

    loss: float
    accuracy: float
    cosine: float


@dataclass(frozen=True)
class Adapted:
    """How an adaptation came out."""

    loss: float  # of the training, the mean of the last tenth of the updates
    tokens: int  # that were read
    sequences: int  # that they are of; some were read several times if there were too few
    positions: int  # that were predicted of the held-out texts
    before: Figures
    after: Figures

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """The figures as they are shown: their name, and what they were before and after."""
        one, other = self.before, self.after
        return [
            ("masked-LM loss", f"{one.loss:.3f}", f"{other.loss:.3f}"),
            ("masked accuracy", percent(one.accuracy), percent(other.accuracy)),
            ("cosine", f"{one.cosine:.3f}", f"{other.cosine:.3f}"),
        ]


@dataclass(frozen=True)
class AdaptedModel:
    """An adapted model: what it was made of, how, and what came out."""

    base: str
    on_hub: bool  # whether the base is a model of the hub
    texts: str
    teacher: str  # empty without one
    new_head: bool
    adaptation: Adaptation
    adapted: Adapted

    @property
    def few_positions(self) -> bool:
        """Whether its figures are of too few positions to tell two models apart."""
        return self.adapted.positions < FEW_POSITIONS

    @property
    def compared(self) -> str:
        """What its embeddings are compared with."""
        return f"the teacher, {self.teacher}" if self.teacher else "the model at the start"


def mlm_card(model: AdaptedModel) -> str:
    """README.md of an adapted model, with the front matter that the hub reads."""
    sections = (_front_matter, _summary, _figures, _making)
    return "\n".join("\n".join(section(model)) + "\n" for section in sections)


def _front_matter(model: AdaptedModel) -> Iterator[str]:
    yield "---"
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    if model.on_hub:
        yield f"base_model: {model.base}"
    yield "---"


def _summary(model: AdaptedModel) -> Iterator[str]:
    yield "# Adapted masked language model"
    yield ""
    head = ", with a new masked-LM head" if model.new_head else ""
    yield f"- starting model: {model.base}{head}"
    yield f"- texts: {model.texts}"
    if model.teacher:
        yield f"- teacher of the sentence embeddings: {model.teacher}"
    adapted = model.adapted
    yield (
        f"- tokens: {adapted.tokens:,} in {model.adaptation.steps:,} updates, of "
        f"{adapted.sequences:,} sequences"
    )


def _figures(model: AdaptedModel) -> Iterator[str]:
    adapted = model.adapted
    yield "## Figures"
    yield ""
    few = f", fewer than {FEW_POSITIONS:,}" if model.few_positions else ""
    yield (
        f"On {adapted.positions:,} masked positions of texts that it was not trained on{few}; the "
        f"cosine is that of sentence embeddings, mean-pooled states, with those of "
        f"{model.compared}."
    )
    yield ""
    yield "| | before | after |"
    yield "|---|---|---|"
    for name, before, after in adapted.rows:
        yield f"| {name} | {before} | {after} |"


def _making(model: AdaptedModel) -> Iterator[str]:
    how, optimisation = model.adaptation, model.adaptation.optimisation
    yield "## How it was made"
    yield ""
    units = "whole words" if how.whole_words else "tokens"
    form = "packed sequences" if how.packed else "one text per sequence"
    yield (
        "By masked-language-model training with pet_pipeline, after *Don't Stop Pretraining* "
        f"(2004.10964): {form} of at most {how.max_tokens} tokens, {how.masked:.0%} of the {units} "
        f"predicted, {how.update_tokens:,} tokens per update, AdamW at a learning rate of "
        f"{optimisation.learning_rate:g}."
    )
    if model.teacher:
        yield (
            "A second loss, one minus the cosine between its embedding of a masked text and the "
            f"teacher's of the clean one, had the weight {how.keep_weight:g}."
        )
