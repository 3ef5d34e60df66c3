"""Rows in, outputs out: in order, the same in any batches, on the device that is meant."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import CPU
from torch import Tensor, nn

from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import Padding
from pet_pipeline.errors import UserError
from pet_pipeline.inference import (
    autocast,
    collate,
    device_of,
    parts_within,
    read_rows,
    resolve_precision,
)

LENGTHS = st.lists(st.integers(1, 30), max_size=12)


class Recorder:
    """A forward function that gives each row's number twice, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.contexts: set[tuple[bool, bool]] = set()

    def __call__(self, batch: list[int]) -> Tensor:
        self.batches.append(batch)
        self.contexts.add((torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
        return torch.tensor([[n, 2.0 * n] for n in batch], dtype=torch.float64)


@given(LENGTHS, st.integers(1, 100))
def test_outputs_are_in_the_order_of_the_rows_in_any_batches(
    lengths: list[int], batch_tokens: int
) -> None:
    forward = Recorder()
    compute = replace(CPU, batch_tokens=batch_tokens)
    found = read_rows(nn.Identity(), lengths, forward, compute=compute)
    assert found.dtype == np.float32
    assert found.tolist() == ([[n, 2.0 * n] for n in range(len(lengths))])
    assert sorted(n for batch in forward.batches for n in batch) == list(range(len(lengths)))
    for batch in forward.batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= batch_tokens


def test_a_model_reads_in_inference_mode_without_dropout() -> None:
    model, forward = nn.Dropout(0.5).train(), Recorder()
    read_rows(model, [3], forward, compute=CPU)
    assert not model.training
    assert forward.contexts == {(True, False)}
    read_rows(model, [3], forward, compute=CPU.at("bfloat16"))
    assert forward.contexts == {(True, False), (True, True)}


@given(st.integers(0, 40), st.integers(0, 60), st.integers(1, 200))
def test_parts_are_all_rows_within_the_budget(count: int, width: int, batch_tokens: int) -> None:
    parts = list(parts_within(count, width, replace(CPU, batch_tokens=batch_tokens)))
    numbers = list(range(count))
    assert [n for part in parts for n in numbers[part]] == numbers
    for part in parts:
        size = len(numbers[part])
        assert size == 1 or (size > 0 and size * width <= batch_tokens)


def encoded(ids: list[int], boundary: int) -> Encoded:
    return Encoded.of(ids[:boundary], Role.TEXT) + Encoded.of(ids[boundary:], Role.TEXT, 1)


def test_collate_pads_on_the_right() -> None:
    rows = [encoded([5, 6, 7, 8], 3), encoded([9], 1)]
    inputs = collate(rows, Padding(pad=3, has_types=True), CPU)
    assert {name: values.tolist() for name, values in inputs.items()} == {
        "input_ids": [[5, 6, 7, 8], [9, 3, 3, 3]],
        "attention_mask": [[1, 1, 1, 1], [1, 0, 0, 0]],
        "token_type_ids": [[0, 0, 0, 1], [0, 0, 0, 0]],
    }
    one_type = collate(rows, Padding(pad=3, has_types=True, second_type=0), CPU)
    assert not one_type["token_type_ids"].any()
    assert "token_type_ids" not in collate(rows, Padding(pad=3, has_types=False), CPU)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError) as error:
        device_of(Compute(device="warp"))
    assert str(error.value).startswith("machine.device: 'warp' cannot be used: ")
    assert str(error.value).endswith("; 'auto' takes what is there")


def test_the_device_is_what_is_there_and_threads_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_of(Compute(threads=1)) == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of(Compute(threads=1)) == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(Compute(threads=1)) == torch.device("cuda")
    assert device_of(CPU) == torch.device("cpu")
    try:
        device_of(Compute(device="cpu", threads=3))
        assert torch.get_num_threads() == 3
        monkeypatch.setattr("pet_pipeline.inference.usable_cores", lambda: 2)
        device_of(Compute(device="cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("fast", [False, True])
def test_automatic_precision_is_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    cpu: Any = torch.cpu
    monkeypatch.setattr(cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(cpu, "_is_amx_tile_supported", lambda: fast, raising=False)
    assert resolve_precision(CPU.at("auto")) == ("bfloat16" if fast else "float32")
    assert resolve_precision(CPU.at("bfloat16")) == "bfloat16"
    assert resolve_precision(CPU) == "float32"
    assert isinstance(autocast(CPU.at("auto")), torch.autocast) == fast
    assert isinstance(autocast(CPU), contextlib.nullcontext)
