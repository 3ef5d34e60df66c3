"""The one training loop.

What a step does is a function of the seed and the step's number alone, so a run that resumes
from a checkpoint ends where an uninterrupted one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pet_pipeline.compute import Compute
from pet_pipeline.files import replace_file
from pet_pipeline.inference import autocast, device_of
from pet_pipeline.optimisation import Optimisation
from pet_pipeline.pace import Pace
from pet_pipeline.progress import progress, warn
from pet_pipeline.seeds import seed_from

CHECKPOINT = "checkpoint.safetensors"

# step -> the step's losses, each scaled so that their sum is the loss; consumed one by one, so
# that only one part's activations are held
Losses = Callable[[int], Iterator[Tensor]]


def fit(
    model: Any,
    losses: Losses,
    *,
    steps: int,
    optimisation: Optimisation,
    seed: int,
    compute: Compute,
    what: str,
    checkpoints: Path | None = None,
) -> float:
    """Train a model in place for exactly `steps` updates; returns the mean loss of the last tenth.

    checkpoints: a folder to save to and to resume from
    """
    model.to(device_of(compute)).train()
    model.get_input_embeddings().requires_grad_(not optimisation.frozen_embeddings)
    adam = _adamw(model, optimisation)
    history = _restore(checkpoints, model, adam) if checkpoints else []
    due = time.monotonic() + compute.checkpoint_seconds
    pace = Pace()
    with progress(what, steps, "steps") as advance:
        advance(len(history))
        for step in range(len(history), steps):
            torch.manual_seed(seed_from("step", seed, step))
            rate = optimisation.learning_rate * _schedule(step, steps, optimisation.warmup)
            for group in adam.param_groups:
                group["lr"] = rate
            history.append(_update(model, adam, losses(step), optimisation.clip, compute))
            advance(1)
            if (times := pace.step(time.monotonic())) and device_of(compute).type == "cpu":
                warn(_slow(what, times, compute))
            if checkpoints and time.monotonic() >= due:
                due = _save(checkpoints, model, adam, history, compute.checkpoint_seconds)
    model.eval()
    recent = history[-max(1, steps // 10) :]
    return float(np.mean(recent)) if recent else 0.0


def _update(
    model: Any,
    adam: torch.optim.AdamW,
    parts: Iterator[Tensor],
    clip: float,
    compute: Compute,
) -> float:
    total = 0.0
    with autocast(compute):  # around all parts: each weight is cast once
        for loss in parts:
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    adam.step()
    adam.zero_grad(set_to_none=True)
    return total


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


def _adamw(model: Any, optimisation: Optimisation) -> torch.optim.AdamW:
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Biases and the scales of normalisation layers are the vectors of a transformer.
            (plain if parameter.ndim < 2 else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": optimisation.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optimisation.learning_rate, fused=True)


def _save(
    folder: Path, model: Any, adam: torch.optim.AdamW, history: list[float], seconds: float
) -> float:
    """Write a checkpoint; returns when the next one is due."""
    start = time.monotonic()
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, state in adam.state.items():
        tensors |= {f"adam.{key}.{names[parameter]}": value for key, value in state.items()}
    beside = folder / f".{CHECKPOINT}.partial"
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
