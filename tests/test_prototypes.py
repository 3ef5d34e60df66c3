"""Prototypes: what is learned, by which loss, and how their scores join those of label words."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pet_pipeline import prototypes
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import PrototypeSettings
from pet_pipeline.prototypes import Prototypes, contrastive_loss, spread_of

SETTINGS = PrototypeSettings(size=16)
GOLD = [0, 1, 2] * 8


def clusters(seed: int = 0, noise: float = 0.5) -> np.ndarray:
    """Features (24, 32) of the rows of GOLD, around a common centre and one of each label."""
    common, centres = np.random.default_rng(1).normal(size=(2, 3, 32))
    rows = np.random.default_rng(seed).normal(scale=noise, size=(len(GOLD), 32))
    return (3 * common[0] + centres[GOLD] + rows).astype(np.float32)


def words(seed: int = 0) -> np.ndarray:
    """Scores of label words (24, 3)."""
    return np.random.default_rng(seed).normal(5, 2, (len(GOLD), 3)).astype(np.float32)


def learned(seed: int = 1, settings: PrototypeSettings = SETTINGS) -> Prototypes:
    return Prototypes.learn(clusters(), GOLD, words(), settings=settings, seed=seed)


@pytest.mark.parametrize("size", [4, 128])
def test_labels_of_separable_states_are_recovered(size: int) -> None:
    made = learned(settings=replace(SETTINGS, size=size))
    assert made.projection.shape == (32, size)
    assert made.vectors.shape == (3, size)
    scores = made.scores(clusters(seed=7))
    assert scores.dtype == np.float32
    assert np.abs(scores).max() <= 1 + 1e-6
    assert scores.argmax(1).tolist() == GOLD


def test_the_same_seed_learns_the_same_whatever_was_drawn_before() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = learned()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again, other = learned(), learned(seed=2)
    for name in ("projection", "vectors"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_the_states_stay_as_they_are() -> None:
    states = clusters()
    Prototypes.learn(states, GOLD, words(), settings=SETTINGS, seed=1)
    assert np.array_equal(states, clusters())


def test_the_loss_and_its_gradient_are_those_of_the_formula() -> None:
    """2203.09770, section 4.2, term by term; the gradient by differences."""
    rng = np.random.default_rng(5)
    gold = [0, 1, 1, 0, 2]
    rows, vectors = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))

    def similarity(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    def loss(rows: np.ndarray, vectors: np.ndarray) -> float:
        pairs = [
            -np.log(
                np.exp(similarity(rows[i], rows[j]))
                / sum(np.exp(similarity(rows[i], other)) for other in rows)
            )
            for i in range(5)
            for j in range(5)
            if gold[i] == gold[j]
        ]
        own = [
            -np.log(
                np.exp(similarity(rows[i], vectors[gold[i]]))
                / sum(np.exp(similarity(rows[i], vector)) for vector in vectors)
            )
            for i in range(5)
        ]
        return float(np.mean(pairs) + np.mean(own))

    tensors = [torch.tensor(values, requires_grad=True) for values in (rows, vectors)]
    found = contrastive_loss(tensors[0], torch.tensor(gold), tensors[1])
    assert found.item() == pytest.approx(loss(rows, vectors))
    found.backward()
    for number, values in enumerate((rows, vectors)):
        gradient = tensors[number].grad
        assert gradient is not None
        for place in np.ndindex(values.shape):
            changed = [rows.copy(), vectors.copy()]
            changed[number][place] += 1e-5
            above = loss(*changed)
            changed[number][place] -= 2e-5
            slope = (above - loss(*changed)) / 2e-5
            assert gradient[place].item() == pytest.approx(slope, abs=1e-7)


def test_more_steps_lower_the_loss() -> None:
    losses = []
    for steps in (0, 10, 50):
        made = learned(settings=replace(SETTINGS, steps=steps))
        projected = torch.from_numpy(clusters() @ made.projection)
        loss = contrastive_loss(projected, torch.tensor(GOLD), torch.from_numpy(made.vectors))
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_labels_count_alike_however_many_rows_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(projected: torch.Tensor, gold: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.extend(gold.tolist())
        return contrastive_loss(projected, gold, *rest)

    monkeypatch.setattr(prototypes, "contrastive_loss", watched)
    few = [n for n, label in enumerate(GOLD) if label != 2 or n < 6]
    Prototypes.learn(
        clusters()[few], [GOLD[n] for n in few], words()[few], settings=SETTINGS, seed=1
    )
    assert len(set(Counter(seen).values())) == 1


def test_many_rows_are_compared_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(projected: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        sizes.append(len(projected))
        return contrastive_loss(projected, *rest)

    monkeypatch.setattr(prototypes, "contrastive_loss", watched)
    monkeypatch.setattr(prototypes, "BATCH", 10)
    made = learned()
    assert sizes == [10] * SETTINGS.steps
    assert made.scores(clusters(seed=7)).argmax(1).tolist() == GOLD


def test_a_label_without_rows_is_never_the_most_likely() -> None:
    rows = [n for n, label in enumerate(GOLD) if label < 2]
    made = Prototypes.learn(
        clusters()[rows], [GOLD[n] for n in rows], words()[rows], settings=SETTINGS, seed=1
    )
    assert made.vectors.shape == (3, 16)
    assert made.scores(clusters()[rows]).argmax(1).tolist() == [GOLD[n] for n in rows]


def test_what_is_saved_scores_the_same(tmp_path: Path) -> None:
    made, file = learned(), tmp_path / "prototypes.safetensors"
    made.save(file)
    again = Prototypes.load(file)
    assert np.array_equal(again.scores(clusters()), made.scores(clusters()))
    combined = again.combine(words(), clusters())
    assert np.array_equal(combined, made.combine(words(), clusters()))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=r"prototypes\.safetensors: not the prototypes of a PVP"):
        Prototypes.load(file)


def test_combined_scores_are_the_mean_of_both_on_the_label_words_scale() -> None:
    made, scores = learned(), words(3)
    own = made.scores(clusters(3))
    own = own - own.mean(1, keepdims=True)
    centred = scores - scores.mean(1, keepdims=True)
    expected = (centred / learned().word_spread + own / spread_of(made.scores(clusters()))) / 2
    combined = made.combine(scores, clusters(3))
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined.mean(1), scores.mean(1), rtol=1e-5)
    found = combined - combined.mean(1, keepdims=True)
    np.testing.assert_allclose(found, expected * learned().word_spread, atol=1e-5)


def test_label_words_on_another_scale_take_the_prototypes_along() -> None:
    one = learned().combine(words(3), clusters(3))
    scaled = Prototypes.learn(clusters(), GOLD, 10 * words(), settings=SETTINGS, seed=1)
    np.testing.assert_allclose(scaled.combine(10 * words(3), clusters(3)), 10 * one, rtol=1e-4)


def test_what_a_label_scores_whatever_the_text_is_no_part_of_the_scale() -> None:
    biased = words() + np.array([9, 0, -9], np.float32)
    made = Prototypes.learn(clusters(), GOLD, biased, settings=SETTINGS, seed=1)
    assert made.word_spread == pytest.approx(learned().word_spread, rel=1e-4)


def test_what_all_labels_score_changes_no_probability() -> None:
    made = learned()
    shifted = words(3) + np.arange(len(GOLD), dtype=np.float32)[:, None]
    apart = made.combine(shifted, clusters()) - made.combine(words(3), clusters())
    np.testing.assert_allclose(apart, shifted - words(3), atol=1e-4)


def test_rows_that_say_nothing_stay_less_certain_than_others() -> None:
    """Two labels standardised row by row would be +1 and -1 whatever the row says."""
    made = learned()
    two = Prototypes(made.projection, made.vectors[:2], made.spread, made.word_spread)
    states = np.repeat(clusters()[:1], 2, axis=0)
    unsure, sure = two.combine(np.array([[1.0, 1.1], [1.0, 9.0]], np.float32), states)
    assert abs(np.diff(sure)[0] - np.diff(unsure)[0]) == pytest.approx(7.9 / 2, abs=1e-3)


def test_scores_that_are_all_equal_are_not_divided_by_zero() -> None:
    flat = np.ones((len(GOLD), 3), np.float32)
    made = Prototypes.learn(clusters(), GOLD, flat, settings=SETTINGS, seed=1)
    assert np.isfinite(made.combine(flat, clusters())).all()
    same = np.ones_like(clusters())
    made = Prototypes.learn(same, GOLD, words(), settings=replace(SETTINGS, steps=0), seed=1)
    assert np.isfinite(made.combine(words(), same)).all()
