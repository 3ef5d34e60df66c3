"""Batches and the one loop: exact steps, the same result however a run is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pet_pipeline.batches import batch_rows, cut_batches, cut_rows
from pet_pipeline.config import Machine, Optimiser
from pet_pipeline.training import CHECKPOINT, fit

MACHINE = Machine(device="cpu", precision="float32", threads=1, checkpoint_seconds=0)


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 99))
def test_every_row_once_before_any_row_twice(n_rows: int, size: int, seed: int) -> None:
    steps = -(-3 * n_rows // size)
    drawn = [row for step in range(steps) for row in batch_rows(n_rows, size, seed=seed, step=step)]
    for start in range(0, 3 * n_rows, n_rows):
        assert sorted(drawn[start : start + n_rows]) == list(range(n_rows))


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = cut_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= budget


def test_short_rows_are_not_padded_to_long_ones() -> None:
    batches = cut_batches([100] * 5 + [10] * 50, 10_000)
    assert [len(batch) for batch in batches] == [5, 50]


def test_cut_rows_names_rows_of_the_table() -> None:
    assert cut_rows([4, 2], [9, 9, 3, 9, 7], 10) == [[4], [2]]


class Net(nn.Module):
    """A net with an embedding, as `fit` expects of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.layer = nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.5)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.layer(self.dropout(self.embedding(ids)))
        return scores


def net() -> Net:
    torch.manual_seed(3)
    return Net()


class Stopped(Exception):
    pass


def train(
    model: Net,
    *,
    steps: int = 12,
    stop: int | None = None,
    checkpoints: Path | None = None,
    **options: float,
) -> list[int]:
    """Train; returns the steps that were taken."""
    taken: list[int] = []
    seed = int(options.pop("seed", 1))

    def losses(step: int) -> Iterator[Tensor]:
        if step == stop:
            raise Stopped
        taken.append(step)
        ids = torch.tensor(batch_rows(5, 2, seed=seed, step=step))
        yield nn.functional.cross_entropy(model(ids), ids % 3)

    optimiser = Optimiser.model_validate({"learning_rate": 0.05, "batch_size": 2, **options})
    fit(
        model,
        losses,
        steps=steps,
        optimiser=optimiser,
        seed=seed,
        machine=MACHINE,
        what="test",
        checkpoints=checkpoints,
    )
    return taken


def weights(model: Net) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(one: Net, other: Net) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_exactly_as_many_updates_as_asked_for() -> None:
    assert train(net(), steps=7) == list(range(7))


def test_the_seed_decides() -> None:
    one, again, other = net(), net(), net()
    train(one)
    torch.rand(9)  # what happened before must not matter
    train(again)
    train(other, seed=2)
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, stop: int) -> None:
    whole, stopped, resumed = net(), net(), net()
    train(whole, frozen_embeddings=False)
    with pytest.raises(Stopped):
        train(stopped, stop=stop, checkpoints=tmp_path, frozen_embeddings=False)
    assert (tmp_path / CHECKPOINT).exists()
    taken = train(resumed, checkpoints=tmp_path, frozen_embeddings=False)
    assert taken == list(range(stop, 12))
    assert same(whole, resumed)
    assert list(tmp_path.iterdir()) == []


def test_embeddings_stay_if_frozen() -> None:
    frozen, free, start = net(), net(), net()
    train(frozen)
    train(free, frozen_embeddings=False)
    assert torch.equal(frozen.embedding.weight, start.embedding.weight)
    assert not torch.equal(free.embedding.weight, start.embedding.weight)
    assert not torch.equal(frozen.layer.weight, start.layer.weight)


def test_vectors_do_not_decay() -> None:
    model = net()

    def losses(step: int) -> Iterator[Tensor]:
        yield 0.0 * sum((p.sum() for p in model.layer.parameters()), torch.zeros(()))

    before = weights(model)
    optimiser = Optimiser(learning_rate=0.1, weight_decay=0.5)
    fit(model, losses, steps=3, optimiser=optimiser, seed=1, machine=MACHINE, what="decay")
    assert torch.equal(model.layer.bias, before[2])
    assert (model.layer.weight.abs() < before[1].abs()).all()


def test_the_rate_rises_and_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(net(), steps=10, warmup=0.3)
    assert rates[3] == max(rates) == pytest.approx(0.05)
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[0] < 0.02
    assert 0 < rates[-1] < 0.01


def test_parts_of_a_batch_add_up_to_it() -> None:
    ids, gradients = torch.tensor([0, 1, 2, 3]), []
    for parts in (1, 2, 4):
        model = net().eval()
        for part in ids.chunk(parts):
            loss = nn.functional.cross_entropy(model(part), part % 3, reduction="sum") / len(ids)
            loss.backward()
        gradients.append(model.layer.weight.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-6, rtol=0)
