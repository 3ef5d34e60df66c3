"""Prototypes: a vector per label that inputs are compared with, beside the label words.

After ProtoVerb (2203.09770): a linear map takes what a masked language model holds of the slot
into a small space, and map and prototypes are learned by contrast while the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from pet_pipeline.batches import balanced_rows, batch_rows
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import PrototypeSettings
from pet_pipeline.seeds import seed_from
from pet_pipeline.tables import Floats

TINY = 1e-9  # in place of 0 where something is divided by it
BATCH = 512  # rows per update, all of which are compared with each other


@dataclass(frozen=True, eq=False)
class Prototypes:
    """The labels' prototypes, and what puts their scores on the scale of the label words'.

    The paper standardises both kinds of scores row by row over the labels. With two labels that
    leaves nothing but +1 and -1, and with any number it makes a row that says nothing as certain
    as the others. So each kind is centred row by row, which changes no probability, and divided
    by one number, its spread over all labelled rows and labels. Even a few rows tell that number
    well, and a mean per label, which they do not tell, is not subtracted.
    """

    projection: Floats  # (width, size)
    vectors: Floats  # (labels, size)
    spread: float  # of the prototypes' scores
    word_spread: float  # of the label words' scores

    @classmethod
    def learn(
        cls,
        states: Floats,
        gold: Sequence[int],
        words: Floats,
        *,
        settings: PrototypeSettings,
        seed: int,
    ) -> Self:
        """Prototypes of the labels of some rows, each label with equally many.

        states: (rows, width) of the rows; words: (rows, labels) what the label words score
        """
        taken = balanced_rows(gold)
        states, words, gold = states[taken], words[taken], [gold[n] for n in taken]
        projection, vectors = learn_vectors(
            states, gold, n_labels=words.shape[1], settings=settings, seed=seed
        )
        own = similarities(states, projection, vectors)
        # What a label scores whatever the text is no part of it: a prior may be subtracted later.
        return cls(projection, vectors, spread_of(own), spread_of(words - words.mean(0)))

    @classmethod
    def load(cls, file: Path) -> Self:
        """What `save` wrote; raises `UserError` if the file is damaged."""
        try:
            tensors = load_file(file)
            own, words = tensors["spreads"].tolist()
            return cls(tensors["projection"], tensors["vectors"], own, words)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"{file}: not the prototypes of a PVP: {error}") from None

    def save(self, file: Path) -> None:
        """Write everything that `load` needs."""
        spreads = np.array([self.spread, self.word_spread])
        save_file(
            {"projection": self.projection, "vectors": self.vectors, "spreads": spreads}, file
        )

    def scores(self, states: Floats) -> Floats:
        """Cosine similarities (rows, labels) of projected states to the prototypes."""
        return similarities(states, self.projection, self.vectors)

    def combine(self, words: Floats, states: Floats) -> Floats:
        """The mean of both kinds of scores (rows, labels), on the scale of the label words'.

        words: (rows, labels) what the label words score; states: (rows, width) of the same rows
        """
        level = words.mean(1, keepdims=True)
        own = _centred(self.scores(states)) * (self.word_spread / self.spread)
        return np.asarray(level + (words - level + own) / 2, np.float32)


def learn_vectors(
    states: Floats,
    gold: Sequence[int],
    *,
    n_labels: int,
    settings: PrototypeSettings,
    seed: int,
) -> tuple[Floats, Floats]:
    """A projection (width, size) and prototypes (labels, size), on the CPU in float32."""
    inputs, targets = torch.from_numpy(states), torch.tensor(gold)
    generator = torch.Generator().manual_seed(seed_from("prototypes", seed))
    projection = _uniform(inputs.shape[1], settings.size, generator)
    vectors = _uniform(n_labels, settings.size, generator)
    adam = torch.optim.Adam([projection, vectors], lr=settings.learning_rate)
    size = min(BATCH, len(inputs))
    for step in range(settings.steps):
        batch = batch_rows(len(inputs), size, seed=seed, step=step)
        loss = contrastive_loss(inputs[batch] @ projection, targets[batch], vectors)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return projection.detach().numpy(), vectors.detach().numpy()


def contrastive_loss(projected: Tensor, gold: Tensor, vectors: Tensor) -> Tensor:
    """The sum of the instance-instance and the instance-prototype loss (2203.09770, section 4.2).

    For every pair of rows (i, j) of one label -log(exp S(i, j) / sum over all rows k of exp
    S(i, k)), and for every row -log(exp S(i, its prototype) / sum over prototypes c of exp
    S(i, c)), with cosine similarities S; the mean of each over its terms. The paper also divides
    by the number of labels, which only scales the loss.
    projected: (rows, size); gold: (rows,); vectors: (labels, size)
    """
    rows = functional.normalize(projected, dim=1)
    prototypes = functional.normalize(vectors, dim=1)
    pairs = -(rows @ rows.T).log_softmax(1)
    same = gold[:, None] == gold
    return pairs[same].mean() + functional.cross_entropy(rows @ prototypes.T, gold)


def similarities(states: Floats, projection: Floats, vectors: Floats) -> Floats:
    """Cosine similarities (rows, labels) of projected states to prototypes."""
    return np.asarray(_unit(states @ projection) @ _unit(vectors).T, np.float32)


def spread_of(scores: Floats) -> float:
    """The root mean square of scores (rows, labels) that are centred row by row.

    >>> spread_of(np.array([[1.0, 3.0], [8.0, 6.0]]))
    1.0
    """
    return max(float(np.sqrt(np.square(_centred(scores)).mean())), TINY)


def _centred(scores: Floats) -> Floats:
    return np.asarray(scores - scores.mean(1, keepdims=True))


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, TINY))


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A matrix of Glorot's uniform initialisation, to be trained."""
    limit = (6 / (rows + columns)) ** 0.5
    values = torch.rand(rows, columns, generator=generator) * 2 * limit - limit
    return nn.Parameter(values)
