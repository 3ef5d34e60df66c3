"""A masked language model is trained further on unlabelled texts, and measured before and after.

Training goes on where pretraining ended: dynamic masking (1907.11692, section 4.1) on the task's
own texts (TAPT, 2004.10964, section 4). A second loss may keep the sentence embeddings of a
teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.adapted import Adapted, Figures
from pet_pipeline.batches import cut_batches, token_batches
from pet_pipeline.compute import Compute
from pet_pipeline.corpus import Corpus
from pet_pipeline.encoded import Encoded, EncodedRows
from pet_pipeline.encoding import Padding
from pet_pipeline.errors import UserError
from pet_pipeline.inference import collate, device_of, mean_pooled, read_rows
from pet_pipeline.masking import MaskedText
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import Pretrained, hidden_size
from pet_pipeline.optimisation import Adaptation, Updates
from pet_pipeline.pretrained import input_limit, load_encoder, load_tokenizer
from pet_pipeline.seeds import seed_from
from pet_pipeline.tables import Floats
from pet_pipeline.training import fit
from pet_pipeline.words import Joins

COMPARED = 2000  # held-out texts whose sentence embeddings are compared


class Teacher:
    """An encoder whose sentence embeddings are kept. It is not trained."""

    def __init__(self, model: Any, padding: Padding, compute: Compute):
        self.model, self.padding, self.compute = model, padding, compute
        model.requires_grad_(False).eval().to(device_of(compute))

    @classmethod
    def load(cls, name: Pretrained, compute: Compute) -> Self:
        """The encoder of a folder or of the hub."""
        padding = Padding.of(load_tokenizer(name))
        return cls(load_encoder(name, compute), padding, compute)

    @torch.no_grad()
    def embed(self, rows: Sequence[Encoded]) -> Tensor:
        """Sentence embeddings (rows, width)."""
        return _embed(self.model, collate(rows, self.padding, self.compute))

    def embed_all(self, rows: Sequence[Encoded]) -> Floats:
        """Sentence embeddings (rows, width) of any number of rows, each of length 1."""
        return _embed_all(self.model, rows, self.padding, self.compute)


def adapt_mlm(
    lm: MaskedLM,
    corpus: Corpus,
    adaptation: Adaptation,
    *,
    seed: int,
    teacher: Teacher | None = None,
    what: str = "adapt",
    checkpoints: Path | None = None,
) -> Adapted:
    """Train a masked LM in place on the texts of a corpus, and measure it on the held-out ones.

    The loss is MLM + w * (1 - cos), the cosine of a masked text's mean-pooled states with those
    that the teacher has of the clean text; w is 0 without a teacher.
    checkpoints: a folder to save to and to resume from
    """
    joins = Joins.of(lm.tokenizer) if adaptation.whole_words else None
    examination = Examination.of(lm, corpus.held_out, adaptation, joins, teacher)
    before = examination.measure(lm)
    lengths, optimisation = corpus.train.lengths, adaptation.optimisation
    batches = enumerate(token_batches(lengths, adaptation.update_tokens, seed=seed))

    def losses(step: int) -> Iterator[Tensor]:
        batch = next(rows for n, rows in batches if n == step)  # those before are a checkpoint's
        rng = np.random.default_rng(seed_from("masked", seed, step))
        rows = [corpus.train[n] for n in batch]
        texts = lm.masking(adaptation.masked, joins).texts(rows, rng)
        predicted = sum(len(text.positions) for text in texts)
        weight = adaptation.keep_weight / len(texts) if teacher else 0.0
        for part in cut_batches([len(text.row) for text in texts], optimisation.batch_tokens):
            yield _loss(lm, [texts[n] for n in part], teacher, 1 / predicted, weight)

    loss = fit(
        lm.model,
        losses,
        updates=Updates(optimisation, adaptation.steps, seed),
        compute=lm.compute,
        what=what,
        checkpoints=checkpoints,
    )
    trained = islice(token_batches(lengths, adaptation.update_tokens, seed=seed), adaptation.steps)
    return Adapted(
        loss=loss,
        tokens=sum(int(lengths[rows].sum()) for rows in trained),
        sequences=len(lengths),
        positions=examination.positions,
        before=before,
        after=examination.measure(lm),
    )


def check_teacher(teacher: Pretrained, base: Pretrained, max_tokens: int) -> None:
    """Raise `UserError` if an encoder cannot be the teacher of a model; loads no weights.

    max_tokens: of a sequence that it will read
    """
    tokenizer, own = load_tokenizer(teacher), load_tokenizer(base)
    if tokenizer.get_vocab() != own.get_vocab():
        raise UserError(
            f"{teacher} has another vocabulary than {base}; a teacher reads the same tokens, so "
            "name an encoder with the same tokenizer"
        )
    if tokenizer("a")["input_ids"] != own("a")["input_ids"]:
        raise UserError(f"{teacher} puts other special tokens around a text than {base}")
    sizes = hidden_size(teacher), hidden_size(base)
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{teacher} has the hidden size {sizes[0]}, {base} {sizes[1]}; name a teacher of the "
            "same size"
        )
    if max_tokens > (limit := input_limit(teacher)):
        raise UserError(f"{teacher} reads {limit} tokens, and sequences have up to {max_tokens}")


@dataclass(frozen=True)
class Examination:
    """Held-out texts with the tokens that are to be predicted, and what their embeddings were."""

    texts: list[MaskedText]
    reference: Floats  # (texts that are compared, width), each of length 1

    @classmethod
    def of(
        cls,
        lm: MaskedLM,
        rows: EncodedRows,
        adaptation: Adaptation,
        joins: Joins | None,
        teacher: Teacher | None,
    ) -> Self:
        """The same tokens of some rows, whenever it is asked."""
        rng = np.random.default_rng(seed_from("held out"))
        held = [rows[n] for n in range(len(rows))]
        texts = lm.masking(adaptation.masked, joins).texts(held, rng)
        clean = [text.clean for text in texts[:COMPARED]]
        return cls(texts, teacher.embed_all(clean) if teacher else _embed_rows(lm, clean))

    @property
    def positions(self) -> int:
        """How many tokens are to be predicted."""
        return sum(len(text.positions) for text in self.texts)

    def measure(self, lm: MaskedLM) -> Figures:
        """How a model does."""

        def forward(batch: list[int]) -> Tensor:
            return _marks(lm, [self.texts[n] for n in batch])

        marks = lm.read([text.row for text in self.texts], forward, "measure the masked LM")
        loss, right = (marks.sum(0, dtype=np.float64) / self.positions).tolist()
        vectors = _embed_rows(lm, [text.clean for text in self.texts[:COMPARED]])
        return Figures(loss, right, float((vectors * self.reference).sum(1).mean()))


def _loss(
    lm: MaskedLM, texts: Sequence[MaskedText], teacher: Teacher | None, share: float, weight: float
) -> Tensor:
    """The part of a step's loss that some of its texts have; share: of one predicted token."""
    if teacher is None:
        return share * lm.mlm_loss(texts)
    with _states_of(lm.model) as states:
        loss = lm.mlm_loss(texts)
    lengths = torch.tensor([len(text.row) for text in texts])
    attention = torch.arange(int(lengths.max())) < lengths[:, None]
    kept = teacher.embed([text.clean for text in texts])
    cosine = functional.cosine_similarity(mean_pooled(states[0], attention), kept)
    return share * loss + weight * (1 - cosine).sum()


def _marks(lm: MaskedLM, texts: Sequence[MaskedText]) -> Tensor:
    """For each text (texts, 2) the sum of its cross-entropies, and how many tokens are right."""
    rows, logits, targets = lm.predict(texts)
    losses = functional.cross_entropy(logits, targets, reduction="none").float()
    marks = torch.stack([losses, (logits.argmax(-1) == targets).float()], 1)
    return torch.zeros(len(texts), 2, device=lm.device).index_add_(0, rows, marks)


@contextmanager
def _states_of(model: Any) -> Iterator[list[Tensor]]:
    """The last states (rows, tokens, width) of each forward pass inside."""
    states: list[Tensor] = []

    def take(_module: Any, _args: Any, output: Any) -> None:
        states.append(output.last_hidden_state)

    # Before the hook that `mlm.token_logits` adds, which leaves few of them.
    hook = model.base_model.register_forward_hook(take)
    try:
        yield states
    finally:
        hook.remove()


def _embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    states = model.base_model(**inputs).last_hidden_state
    return mean_pooled(states, inputs["attention_mask"])


def _embed_all(model: Any, rows: Sequence[Encoded], padding: Padding, compute: Compute) -> Floats:
    def forward(batch: list[int]) -> Tensor:
        inputs = collate([rows[n] for n in batch], padding, compute)
        return functional.normalize(_embed(model, inputs), dim=1)

    return read_rows(model, [len(row) for row in rows], forward, compute=compute)


def _embed_rows(lm: MaskedLM, rows: Sequence[Encoded]) -> Floats:
    return _embed_all(lm.model, rows, lm.layout.padding, lm.compute)
