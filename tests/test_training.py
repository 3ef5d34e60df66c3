"""The one loop: exact steps, the same result wherever a run is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from testing import CPU
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pet_pipeline import training
from pet_pipeline.batches import batch_rows
from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError
from pet_pipeline.optimisation import Optimisation, Updates
from pet_pipeline.training import (
    CHECKPOINT,
    PARTIAL,
    _adamw,
    _restore,
    _slow,
    fit,
    grouped,
    remove_checkpoint,
)

OFTEN = replace(CPU, checkpoint_seconds=0)  # a checkpoint after every step
OPTIMISATION = Optimisation(learning_rate=0.05, batch_size=2)


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
    seed: int = 1,
    compute: Compute = OFTEN,
    **options: Any,
) -> list[int]:
    """Train; returns the steps that were taken."""
    taken: list[int] = []

    def losses(step: int) -> Iterator[Tensor]:
        if step == stop:
            raise Stopped
        taken.append(step)
        ids = torch.tensor(batch_rows(5, 2, seed=seed, step=step))
        yield nn.functional.cross_entropy(model(ids), ids % 3)

    fit(
        model,
        losses,
        updates=Updates(replace(OPTIMISATION, **options), steps, seed),
        compute=compute,
        what="test",
        checkpoints=checkpoints,
    )
    return taken


def adamw(model: Net) -> torch.optim.AdamW:
    """The optimiser of a model that is trained as a whole."""
    return _adamw(grouped(model.parameters(), OPTIMISATION.learning_rate, 0.01))


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
def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path: Path, stop: int) -> None:
    whole, stopped, resumed = net(), net(), net()
    train(whole, frozen_embeddings=False)
    with pytest.raises(Stopped):
        train(stopped, stop=stop, checkpoints=tmp_path, frozen_embeddings=False)
    assert (tmp_path / CHECKPOINT).exists()
    taken = train(resumed, checkpoints=tmp_path, frozen_embeddings=False)
    assert taken == list(range(stop, 12))
    assert same(whole, resumed)
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]  # until the model is saved


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
    optimisation = Optimisation(learning_rate=0.1, weight_decay=0.5)
    fit(model, losses, updates=Updates(optimisation, 3, 1), compute=CPU, what="decay")
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


def test_the_losses_of_a_step_add_up() -> None:
    ids, found = torch.tensor([0, 1, 2, 3]), []
    for parts in (1, 2, 4):
        model = net()
        model.dropout.p = 0.0

        def losses(step: int, model: Net = model, parts: int = parts) -> Iterator[Tensor]:
            for part in ids.chunk(parts):
                loss = nn.functional.cross_entropy(model(part), part % 3, reduction="sum")
                yield loss / len(ids)

        optimisation = Optimisation(learning_rate=0.01, clip=1e9)
        loss = fit(model, losses, updates=Updates(optimisation, 1, 1), compute=CPU, what="parts")
        found.append((loss, *weights(model)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_the_gradient_is_clipped(monkeypatch: pytest.MonkeyPatch, clip: float) -> None:
    norms: list[float] = []

    def watched(self: torch.optim.AdamW, closure: None = None) -> None:
        given = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in given if g is not None]).norm()))

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(net(), steps=1, clip=clip)
    assert norms == [pytest.approx(0.01, rel=1e-3)] if clip == 0.01 else norms[0] > 0.1


def test_it_returns_the_mean_loss_of_the_last_tenth(tmp_path: Path) -> None:
    def run(stop: int | None, checkpoints: Path | None = None) -> float:
        model = net()

        def losses(step: int) -> Iterator[Tensor]:
            if step == stop:
                raise Stopped
            yield 0.0 * model.layer.weight.sum() + float(step)

        return fit(
            model,
            losses,
            updates=Updates(OPTIMISATION, 30, 1),
            compute=OFTEN,
            what="mean",
            checkpoints=checkpoints,
        )

    assert run(None) == 28.0
    with pytest.raises(Stopped):
        run(29, tmp_path)
    assert run(None, tmp_path) == 28.0  # two of these steps were done before


def test_no_steps_change_nothing() -> None:
    model = net()
    assert train(model, steps=0) == []
    assert same(model, net())


def test_frozen_parameters_stay() -> None:
    model, start = net(), net()
    model.layer.weight.requires_grad_(False)
    train(model)
    assert torch.equal(model.layer.weight, start.layer.weight)
    assert not torch.equal(model.layer.bias, start.layer.bias)


def test_a_checkpoint_is_written_only_when_it_is_due(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(net(), stop=11, checkpoints=tmp_path, compute=replace(CPU, checkpoint_seconds=9))
    assert list(tmp_path.iterdir()) == []


def checkpoint(folder: Path) -> None:
    with pytest.raises(Stopped):
        train(net(), stop=3, checkpoints=folder, frozen_embeddings=False)


def test_the_state_of_the_optimiser_is_restored(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    model = net()
    adam = adamw(model)
    adam.param_groups[0]["lr"] = 0.123
    losses = _restore(tmp_path, model, adam)
    assert len(losses) == 3
    assert {float(state["step"]) for state in adam.state.values()} == {3.0}
    assert len(adam.state) == 3
    assert all(state["exp_avg_sq"].abs().max() > 0 for state in adam.state.values())
    assert adam.param_groups[0]["lr"] == 0.123  # of the settings, not of the checkpoint


def test_the_optimisers_steps_are_restored_to_the_device_of_their_parameters(
    tmp_path: Path,
) -> None:
    # A fused AdamW needs them there: on a GPU, one left on the CPU stops a resumed run.
    checkpoint(tmp_path)
    model = net().to("meta")
    adam = adamw(model)
    _restore(tmp_path, model, adam)
    devices = {name: value.device.type for s in adam.state.values() for name, value in s.items()}
    assert devices == {"step": "meta", "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_parameters_that_were_never_updated_have_no_state(tmp_path: Path) -> None:
    model = net()
    unused = nn.Parameter(torch.ones(2))
    model.register_parameter("unused", unused)
    with pytest.raises(Stopped):
        train(model, stop=2, checkpoints=tmp_path)
    again = net()
    again.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    adam = adamw(again)
    _restore(tmp_path, again, adam)
    assert again.get_parameter("unused") not in adam.state
    assert torch.equal(again.get_parameter("unused"), unused)


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    model = net()
    assert _restore(tmp_path, model, adamw(model)) == []
    assert same(model, net())


def test_each_weight_is_cast_once_in_a_step_however_many_parts_it_has() -> None:
    model = net()
    compute, ids = replace(CPU, precision="bfloat16"), torch.tensor([0, 1, 2, 3])
    casts: list[object] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "_to_copy" in str(func) and args[0] is model.layer.weight:
                casts.append(kwargs["dtype"])
            return func(*args, **(kwargs or {}))

    def losses(step: int) -> Iterator[Tensor]:
        for part in ids.chunk(4):
            yield nn.functional.cross_entropy(model(part), part % 3, reduction="sum") / len(ids)

    with Watched():
        fit(model, losses, updates=Updates(OPTIMISATION, 2, 1), compute=compute, what="casts")
    assert casts == [torch.bfloat16] * 2


def test_steps_that_become_slow_are_said_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = iter([1.0, *[0.5] * 20, *[4.0] * 400])
    monkeypatch.setattr(training.Pace, "step", lambda pace, now: 8.2 if next(waits) == 4 else None)
    train(net(), steps=22, compute=CPU)
    assert capsys.readouterr().err == (
        "  test: steps take 8 times as long as at first; if other programs use the same cores: "
        "fewer units at the same time leave more to each, so lower machine.jobs\n"
    )
    advice = ": a thread that waits for another suffers most, so set machine.threads = 1"
    assert _slow("test", 8.2, replace(CPU, threads=2)).endswith(advice)


def test_a_damaged_checkpoint_is_said_and_the_training_starts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, again = net(), net()
    train(whole)
    (tmp_path / CHECKPOINT).write_bytes(b"")  # as after a power cut
    train(again, checkpoints=tmp_path)
    assert "damaged" in capsys.readouterr().err
    assert same(whole, again)


@pytest.mark.parametrize(
    ("factor", "found"),
    [
        (lambda x: x * torch.nan, "the loss is nan"),
        (lambda x: x * torch.inf, "the loss is inf"),
        (lambda x: (x * 0).sqrt(), "the gradient is not finite"),
    ],
)
def test_a_training_that_diverges_stops_before_it_harms_the_weights(
    tmp_path: Path, factor: Callable[[Tensor], Tensor], found: str
) -> None:
    model = net()
    before: list[Tensor] = []

    def losses(step: int) -> Iterator[Tensor]:
        before[:] = weights(model)
        loss = nn.functional.cross_entropy(model(torch.tensor([1, 2])), torch.tensor([0, 1]))
        yield factor(loss) if step == 2 else loss

    with pytest.raises(UserError) as caught:
        fit(
            model,
            losses,
            updates=Updates(OPTIMISATION, 3, 1),
            compute=OFTEN,
            what="tune",
            checkpoints=tmp_path,
        )
    assert str(caught.value) == (
        f"tune: {found} at step 3 of 3, with a learning rate of 0.05; set a lower one"
    )
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))
    restored = net()
    assert len(_restore(tmp_path, restored, adamw(restored))) == 2


def test_what_a_killed_attempt_left_of_a_checkpoint_is_removed_too(tmp_path: Path) -> None:
    remove_checkpoint(tmp_path)
    for name in (CHECKPOINT, PARTIAL, "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    remove_checkpoint(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
