"""Where models run, and how rows go through them: devices, padding, batches, precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pet_pipeline.batches import cut_batches
from pet_pipeline.compute import Compute, usable_cores
from pet_pipeline.encoded import Encoded
from pet_pipeline.encoding import Padding
from pet_pipeline.errors import UserError, first_line
from pet_pipeline.progress import progress
from pet_pipeline.tables import Floats

Forward = Callable[[list[int]], Tensor]  # row numbers -> outputs (rows, width), in their order


def device_of(compute: Compute) -> torch.device:
    """The device that is meant; also limits the threads. Raises `UserError` if there is none."""
    threads = compute.threads or usable_cores()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if compute.device != "auto":
        try:
            device = torch.device(compute.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"machine.device: {compute.device!r} cannot be used: "
                f"{first_line(error).partition('. ')[0]}; "
                "'auto' takes what is there"
            ) from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_precision(compute: Compute) -> str:
    """bfloat16 where the device has fast instructions for it, else float32."""
    if compute.precision != "auto":
        return compute.precision
    return "bfloat16" if _has_bfloat16(compute) else "float32"


def autocast(compute: Compute) -> AbstractContextManager[Any]:
    """The context that forward passes run in."""
    if resolve_precision(compute) == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device_of(compute).type, torch.bfloat16)


def collate(rows: Sequence[Encoded], padding: Padding, compute: Compute) -> dict[str, Tensor]:
    """Padded model inputs on the device, each (rows, tokens)."""
    shape = (len(rows), max(len(row) for row in rows))
    ids = np.full(shape, padding.pad, np.int64)
    attention = np.zeros(shape, np.int64)
    types = np.zeros(shape, np.int64)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = row.ids
        attention[n, : len(row)] = 1
        types[n, : len(row)] = np.frombuffer(row.segments, np.uint8)
    inputs = {"input_ids": ids, "attention_mask": attention}
    if padding.has_types:
        inputs["token_type_ids"] = types * padding.second_type
    device = device_of(compute)
    return {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}


@torch.inference_mode()
def read_rows(
    model: Any,
    lengths: Sequence[int],
    forward: Forward,
    *,
    compute: Compute,
    what: str = "",
) -> Floats:
    """The outputs (rows, width) of a model for rows of some lengths, float32, in their order.

    what: name of the progress bar; without one nothing is shown
    """
    model.to(device_of(compute)).eval()
    outputs: Floats | None = None
    shown = progress(what, len(lengths), "rows") if what else contextlib.nullcontext(lambda n: None)
    with shown as advance, autocast(compute):
        for batch in cut_batches(lengths, compute.batch_tokens):
            part = forward(batch).float().cpu().numpy()
            if outputs is None:
                outputs = np.zeros((len(lengths), *part.shape[1:]), np.float32)
            outputs[batch] = part
            advance(len(batch))
    return np.zeros((0, 0), np.float32) if outputs is None else outputs


def mean_pooled(states: Tensor, attention: Tensor) -> Tensor:
    """Sentence embeddings (rows, width), float32: the mean of the states that are no padding.

    states: (rows, tokens, width); attention: (rows, tokens), 0 for padding
    """
    read = attention[..., None].to(states.device)
    return (states.float() * read).sum(1) / read.sum(1).clamp(min=1)


def parts_within(count: int, width: int, compute: Compute) -> Iterator[slice]:
    """Slices of `count` rows of one length, each within the budget of inference batches."""
    size = max(1, compute.batch_tokens // max(1, width))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _has_bfloat16(compute: Compute) -> bool:
    device = device_of(compute)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        cpu: Any = torch.cpu
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(cpu, check, bool)() for check in checks)
    return False
