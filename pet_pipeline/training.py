"""The one training loop.

What a step does is a function of the seed and the step's number alone, so a run that resumes
from a checkpoint ends where an uninterrupted one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_pipeline.compute import Compute
from pet_pipeline.errors import UserError
from pet_pipeline.files import replace_file
from pet_pipeline.inference import autocast, device_of
from pet_pipeline.optimisation import Updates
from pet_pipeline.pace import Pace
from pet_pipeline.progress import progress, warn
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_prompt import PROMPT

CHECKPOINT = "checkpoint.safetensors"
PARTIAL = f".{CHECKPOINT}.partial"  # a checkpoint that is being written
WATCHED = 2  # first steps in which every trained parameter must get a gradient

# step -> the step's losses, each scaled so that their sum is the loss; consumed one by one, so
# that only one part's activations are held
Losses = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained at one rate, with the same weight decay."""

    parameters: list[nn.Parameter]
    learning_rate: float  # the highest
    weight_decay: float


def fit(
    model: Any,
    losses: Losses,
    *,
    updates: Updates,
    compute: Compute,
    what: str,
    groups: Sequence[ParameterGroup] | None = None,
    checkpoints: Path | None = None,
) -> float:
    """Train a model in place by exactly so many updates; returns the mean loss of the last tenth.

    groups: what is trained; None is all but, if they are frozen, the word embeddings
    checkpoints: a folder to save to and to resume from
    Raises `UserError` at the first step if one of the groups' parameters gets no gradient, and at
    any step whose loss or gradient is not finite.
    """
    optimisation, steps, seed = updates.optimisation, updates.steps, updates.seed
    model.to(device_of(compute)).train()
    if groups is None:
        model.get_input_embeddings().requires_grad_(not optimisation.frozen_embeddings)
        rate, decay = optimisation.learning_rate, optimisation.weight_decay
        parts = grouped(model.parameters(), rate, decay)
    else:
        parts = list(groups)
    adam = _adamw(parts)
    history = _restore(checkpoints, model, adam) if checkpoints else []
    due = time.monotonic() + compute.checkpoint_seconds
    pace = Pace()
    with progress(what, steps, "steps") as advance:
        advance(len(history))
        for step in range(len(history), steps):
            torch.manual_seed(seed_from("step", seed, step))
            height = _schedule(step, steps, optimisation.warmup)
            for group, part in zip(adam.param_groups, parts, strict=True):
                group["lr"] = part.learning_rate * height
            loss = _backward(losses(step), compute)
            if groups is not None and step < WATCHED:
                _check_gradients(model, step)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optimisation.clip)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise UserError(_diverged(what, step, steps, loss, parts))
            adam.step()
            adam.zero_grad(set_to_none=True)
            history.append(loss)
            advance(1)
            if (times := pace.step(time.monotonic())) and device_of(compute).type == "cpu":
                warn(_slow(what, times, compute))
            if checkpoints and time.monotonic() >= due:
                due = _save(checkpoints, model, adam, history, compute.checkpoint_seconds)
    model.eval()
    recent = history[-max(1, steps // 10) :]
    return float(np.mean(recent)) if recent else 0.0


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a folder, also one that a killed attempt wrote in part."""
    for name in (CHECKPOINT, PARTIAL):
        (folder / name).unlink(missing_ok=True)


def _backward(parts: Iterator[Tensor], compute: Compute) -> float:
    """The loss of a step, whose gradient is left in the parameters."""
    total = 0.0
    with autocast(compute):  # around all parts: each weight is cast once
        for loss in parts:
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    return total


def _check_gradients(model: Any, step: int) -> None:
    """Raise `UserError` if no gradient reaches something that is trained.

    Zeros may be right: a bias that is added to all keys changes no attention, and LoRA's first
    matrices have zeros at the first step, because the second ones start at 0.
    """
    prompted = PROMPT in model._modules  # a model that is tuned along may not use all it has
    unreached = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad
        and (name.startswith(f"{PROMPT}.") or not prompted)
        and (p.grad is None or (step > 0 and "lora_A" in name and not p.grad.any()))
    ]
    if unreached:
        raise UserError(
            f"finetune.method: no gradient reaches {unreached[0]} of this {model.config.model_type}"
            f" model ({len(unreached)} of the trained parameters); choose another method"
        )


def _diverged(
    what: str, step: int, steps: int, loss: float, groups: Sequence[ParameterGroup]
) -> str:
    """Why a training cannot be continued, and what to set."""
    found = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss:g}"
    rate = max((group.learning_rate for group in groups), default=0.0)
    return (
        f"{what}: {found} at step {step + 1} of {steps}, with a learning rate of {rate:g}; set a "
        "lower one"
    )


def _slow(what: str, times: float, compute: Compute) -> str:
    """Why steps may have become slow, and what to set."""
    advice = (
        "a thread that waits for another suffers most, so set machine.threads = 1"
        if compute.threads != 1
        else "fewer units at the same time leave more to each, so lower machine.jobs"
    )
    return (
        f"  {what}: steps take {times:.0f} times as long as at first; if other programs use the "
        f"same cores: {advice}"
    )


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up from the first step on, linear decay to 0 after the last step."""
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (steps - step) / max(1, steps - rising)


def grouped(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> list[ParameterGroup]:
    """Parameters that are trained at one rate; vectors without weight decay.

    Those of a transformer are its biases and the scales of its normalisation layers.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        ParameterGroup(matrices, learning_rate, weight_decay),
        ParameterGroup(vectors, learning_rate, 0.0),
    ]
    return [group for group in groups if group.parameters]


def _adamw(groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
    options = [
        {"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay}
        for g in groups
    ]
    return torch.optim.AdamW(options, fused=True)


def _save(
    folder: Path, model: Any, adam: torch.optim.AdamW, history: list[float], seconds: float
) -> float:
    """Write a checkpoint; returns when the next one is due."""
    start = time.monotonic()
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, state in adam.state.items():
        tensors |= {f"adam.{key}.{names[parameter]}": value for key, value in state.items()}
    beside = folder / PARTIAL
    copies = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    copies["losses"] = torch.tensor(history, dtype=torch.float64)
    save_file(copies, beside, metadata={"step": str(len(history))})
    replace_file(beside, folder / CHECKPOINT)
    now = time.monotonic()
    # A large model's checkpoint takes long; it may take a twentieth of the time and no more.
    return now + (max(seconds, 20 * (now - start)) if seconds else 0.0)


def _restore(folder: Path, model: Any, adam: torch.optim.AdamW) -> list[float]:
    """Load the checkpoint of a folder, if there is one; returns the losses of the steps done."""
    file = folder / CHECKPOINT
    if not file.exists():
        return []
    try:
        return _load_checkpoint(file, model, adam)
    except SafetensorError as error:
        warn(f"  {file}: damaged ({error}); the training starts again")
        file.unlink()
        return []


def _load_checkpoint(file: Path, model: Any, adam: torch.optim.AdamW) -> list[float]:
    with safe_open(file, "pt") as stored:
        keys = set(stored.keys())
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.copy_(stored.get_tensor(f"model.{name}"))
        names = {parameter: name for name, parameter in model.named_parameters()}
        tuned = [parameter for group in adam.param_groups for parameter in group["params"]]
        state = {
            number: {
                key: stored.get_tensor(f"adam.{key}.{names[parameter]}")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            for number, parameter in enumerate(tuned)
            if f"adam.step.{names[parameter]}" in keys
        }
        # Not set by hand: torch knows on which device its optimiser wants each value.
        adam.load_state_dict({**adam.state_dict(), "state": state})
        losses: list[float] = stored.get_tensor("losses").tolist()
        return losses
