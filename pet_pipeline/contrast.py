"""Supervised contrast between two views of each row of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.optimisation import Contrast
from pet_pipeline.seeds import seed_from


def supervised_contrast(states: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean supervised contrastive loss of some states (2004.11362, equation 2).

    Every state is an anchor; those of its label are to be nearer to it than the others, by the
    cosine. states: (n, width); labels: (n,), each at least twice, or the state counts 0
    """
    itself = torch.eye(len(states), dtype=torch.bool, device=states.device)
    positive = (labels[:, None] == labels) & ~itself
    with torch.autocast(states.device.type, enabled=False):  # near states differ by few digits
        states = functional.normalize(states.float(), dim=-1)
        similar = (states @ states.T / temperature).masked_fill(itself, -torch.inf)
        log_probs = similar.log_softmax(1).masked_fill(~positive, 0.0)
        return -(log_probs.sum(1) / positive.sum(1).clamp(min=1)).mean()


def contrastive_losses(
    forward: Callable[[int], tuple[Tensor, Tensor]],
    labels: Sequence[Tensor],
    contrast: Contrast,
    *,
    at_once: bool,
    seed: int,
) -> Iterator[Tensor]:
    """Losses whose sum is that of the parts and the contrast between all their rows.

    forward: from a part's number to its loss and its rows' states (rows, width); labels: (rows,)
    of each part; at_once: all parts may be held in memory together. Otherwise every part is
    computed twice: first for its states, and then, with the same dropout, for the gradient that
    the contrast has in them (2101.06983, section 3.2); seed: of that dropout
    """
    targets = torch.cat([*labels])
    if at_once:
        done = [forward(number) for number in range(len(labels))]
        every = torch.cat([states for _, states in done])
        contrasted = supervised_contrast(every, targets, contrast.temperature)
        yield torch.stack([loss for loss, _ in done]).sum() + contrast.weight * contrasted
        return

    def repeatable(number: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed_from("contrast", seed, number))
        return forward(number)

    # With gradients, though they are not used: autocast would keep weights without any.
    states = torch.cat([repeatable(n)[1].detach() for n in range(len(labels))]).requires_grad_()
    contrasted = contrast.weight * supervised_contrast(states, targets, contrast.temperature)
    (gradients,) = torch.autograd.grad(contrasted, states)
    for n, gradient in enumerate(torch.split(gradients, [len(part) for part in labels])):
        loss, own = repeatable(n)
        pull = (own.float() * gradient.float()).sum()
        # The gradient of the second term is the contrast's; its value is a part of the contrast's.
        yield loss + pull - pull.detach() + contrasted.detach() / len(labels)
