"""The supervised contrastive loss, whole and in parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pet_pipeline.contrast import contrastive_losses, supervised_contrast
from pet_pipeline.optimisation import Contrast

CONTRAST = Contrast(weight=0.7, temperature=0.3, view="dropout")


def by_the_formula(states: Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of 2004.11362, anchor by anchor."""

    def similarity(one: int, other: int) -> float:
        return float(functional.cosine_similarity(states[one], states[other], dim=0)) / temperature

    total, count = 0.0, len(labels)
    for anchor in range(count):
        others = [n for n in range(count) if n != anchor]
        positives = [n for n in others if labels[n] == labels[anchor]]
        below = math.log(sum(math.exp(similarity(anchor, n)) for n in others))
        if positives:
            total -= sum(similarity(anchor, n) - below for n in positives) / len(positives)
    return total / count


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=9),
    st.integers(0, 2**31),
    st.sampled_from([0.07, 0.5, 1.0]),
)
def test_the_loss_is_that_of_the_formula(labels: list[int], seed: int, temperature: float) -> None:
    states = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed))
    found = supervised_contrast(states, torch.tensor(labels), temperature)
    assert float(found) == pytest.approx(by_the_formula(states, labels, temperature), abs=1e-3)


def test_states_of_a_label_that_are_alike_have_a_lower_loss() -> None:
    together = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    mixed = together[[0, 2, 1, 3]]
    assert supervised_contrast(together, labels, 0.1) < 0.01
    assert supervised_contrast(mixed, labels, 0.1) > 5


def test_a_state_without_another_of_its_label_counts_nothing() -> None:
    states = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert float(supervised_contrast(states, torch.tensor([0, 1, 2]), 0.1)) == 0


class Net(nn.Module):
    """States and a loss for each row, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 2)
        self.dropout = nn.Dropout(0.4)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        states = self.dropout(torch.tanh(self.inner(rows)))
        return self.outer(states).square().sum() / 9, states


def gradients(net: Net, parts: list[Tensor], labels: list[Tensor], **options: Any) -> list[Tensor]:
    """The loss and the parameters' gradients after one step's losses."""
    net.zero_grad()
    total = torch.zeros(())
    for loss in contrastive_losses(lambda n: net(parts[n]), labels, CONTRAST, seed=5, **options):
        loss.backward()
        total += loss.detach()
    return [total, *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("sizes", [[9], [4, 5], [2, 3, 4]])
def test_parts_have_the_loss_and_the_gradient_of_the_whole(sizes: list[int]) -> None:
    net = Net().eval()
    rows = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    whole = gradients(net, [rows], [labels], at_once=True)
    cut = [*rows.split(sizes)], [*labels.split(sizes)]
    for at_once in (True, False):
        torch.testing.assert_close(gradients(net, *cut, at_once=at_once), whole)


def test_both_passes_over_a_part_have_the_same_dropout() -> None:
    net, read = Net(), []
    rows = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    net.register_forward_hook(lambda _module, _inputs, output: read.append(output[1].detach()))
    net.train()
    parts = [*rows.split(3)], [*labels.split(3)]
    first = gradients(net, *parts, at_once=False)
    torch.testing.assert_close(read[:2], read[2:])
    assert (read[0] == 0).any()
    assert not torch.equal(read[0] == 0, read[1] == 0)
    torch.rand(3)
    torch.testing.assert_close(gradients(net, *parts, at_once=False), first)  # by the seed


def test_it_is_computed_in_float32_where_the_model_is_not() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    near = 1 + 0.01 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    expected = supervised_contrast(near, labels, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = supervised_contrast(near, labels, 0.1)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
