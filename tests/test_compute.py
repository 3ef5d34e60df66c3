"""Where units are computed: cores that are really there, and their division among jobs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
from testing import CPU

from pet_pipeline import compute
from pet_pipeline.compute import (
    JOB_BYTES,
    SMALL,
    Compute,
    cgroup_bytes,
    cgroup_cores,
    count_jobs,
    may_accelerate,
    usable_bytes,
    usable_cores,
)
from pet_pipeline.config import Machine


def test_the_machine_settings_are_taken_over() -> None:
    machine = Machine(
        device="cuda:1", precision="bfloat16", threads=3, batch_tokens=7, checkpoint_seconds=0.5
    )
    assert Compute.of(machine) == Compute(
        device="cuda:1",
        precision="bfloat16",
        threads=3,
        batch_tokens=7,
        checkpoint_seconds=0.5,
    )


LARGE = [None, SMALL + 1]


@pytest.fixture
def seven_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "usable_cores", lambda: 7)
    monkeypatch.setattr(compute, "usable_bytes", lambda: 100 * JOB_BYTES)


@pytest.mark.usefixtures("seven_cores")
@pytest.mark.parametrize(("jobs", "threads"), [(0, 7), (1, 7), (2, 3), (7, 1), (9, 1)])
@pytest.mark.parametrize("size", LARGE)
def test_jobs_with_a_large_model_share_the_cores(jobs: int, threads: int, size: int | None) -> None:
    machine = Machine(jobs=jobs, device="cpu")
    assert Compute.of(machine, size).threads == threads
    assert Compute.of(Machine(jobs=jobs, threads=5), size).threads == 5
    assert count_jobs(machine, size) == (jobs or 1)


@pytest.mark.usefixtures("seven_cores")
@pytest.mark.parametrize("jobs", [0, 1, 2, 9])
def test_units_of_a_small_model_have_one_thread_each_whatever_the_jobs(jobs: int) -> None:
    machine = Machine(jobs=jobs, device="cpu")
    assert Compute.of(machine, SMALL).threads == 1
    assert count_jobs(machine, SMALL) == (jobs or 7)


@pytest.mark.usefixtures("seven_cores")
def test_set_threads_count_for_every_unit_and_leave_cores_for_fewer_jobs() -> None:
    machine = Machine(threads=3, device="cpu")
    assert count_jobs(machine, SMALL) == 2
    assert Compute.of(machine, SMALL).threads == 3


@pytest.mark.usefixtures("seven_cores")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_an_accelerator_has_one_job(device: str) -> None:
    assert count_jobs(Machine(device=device), SMALL) == 1
    assert Compute.of(Machine(device=device), SMALL).threads == 7


@pytest.mark.usefixtures("seven_cores")
@pytest.mark.parametrize(("shares", "jobs"), [(0.5, 1), (2, 1), (3, 2), (4.9, 3), (8, 7), (99, 7)])
def test_no_more_jobs_than_memory_holds_beside_everything_else(
    shares: float, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "usable_bytes", lambda: int(shares * JOB_BYTES))
    assert count_jobs(Machine(device="cpu"), SMALL) == jobs


def torch_is(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)


def test_an_accelerator_is_seen_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(compute, "DRIVERS", (str(tmp_path / "nvidiactl"),))
    torch_is("2.13.0", monkeypatch)
    assert not may_accelerate("auto")
    (tmp_path / "nvidiactl").touch()
    assert may_accelerate("auto")
    assert not may_accelerate("cpu")
    torch_is("2.13.0+cpu", monkeypatch)  # cannot use it
    assert not may_accelerate("auto")
    assert may_accelerate("cuda")  # the user says so


def test_apple_chips_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for machine, expected in (("arm64", True), ("x86_64", False)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert may_accelerate("auto") is expected


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.max", "4096\n", 4096),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "8192\n", 8192),
        ("memory.max", "", None),
        ("other", "1", None),
    ],
)
def test_the_memory_limit_of_a_container(
    tmp_path: Path, file: str, text: str, expected: int | None
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert cgroup_bytes(str(tmp_path)) == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 12), (5, 5), (99, 12)])
def test_memory_is_bounded_by_the_limit(
    limit: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 3, "SC_PAGE_SIZE": 4}.__getitem__)
    monkeypatch.setattr(compute, "cgroup_bytes", lambda: limit)
    assert usable_bytes() == expected


def test_only_the_precision_is_put_in() -> None:
    assert CPU.at("bfloat16") == Compute(device="cpu", precision="bfloat16", threads=1)
    assert CPU.precision == "float32"


def test_a_description_is_json_with_every_value() -> None:
    assert Compute(**json.loads(json.dumps(CPU.describe()))) == CPU


@pytest.mark.parametrize(("quota", "cores"), [(None, 3), (2, 2), (8, 3)])
def test_cores_are_bounded_by_affinity_and_quota(
    quota: int | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    monkeypatch.setattr(compute, "cgroup_cores", lambda: quota)
    assert usable_cores() == cores


def test_newer_pythons_count_the_cores_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    monkeypatch.setattr(compute, "cgroup_cores", lambda: None)
    assert usable_cores() == 5


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_elsewhere_all_cores_count(
    count: int | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(compute, "cgroup_cores", lambda: None)
    assert usable_cores() == cores


QUOTAS = [
    ("200000 100000", 2),
    ("150000 100000", 2),
    ("1000 100000", 1),
    ("max 100000", None),
    ("-1 100000", None),
    ("200000 0", None),
]


@pytest.mark.parametrize(("quota", "cores"), QUOTAS)
@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_a_container_is_rounded_up(
    tmp_path: Path, version: int, quota: str, cores: int | None
) -> None:
    if version == 2:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    else:
        (tmp_path / "cpu").mkdir()
        for name, value in zip(("quota", "period"), quota.split(), strict=True):
            (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert cgroup_cores(str(tmp_path)) == cores


@pytest.mark.parametrize("text", [None, "", "200000\n", b"\xff"])
def test_without_a_readable_quota_there_is_none(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cgroup_cores(str(tmp_path)) is None
