"""Where units are computed: cores that are really there, and their division among jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from testing import CPU

from pet_pipeline import compute
from pet_pipeline.compute import Compute, cgroup_cores, usable_cores
from pet_pipeline.config import Machine


def test_the_machine_settings_are_taken_over() -> None:
    machine = Machine(
        device="cuda:1", precision="bfloat16", threads=3, batch_tokens=7, checkpoint_seconds=0.5
    )
    assert Compute.of(machine) == Compute(
        device="cuda:1", precision="bfloat16", threads=3, batch_tokens=7, checkpoint_seconds=0.5
    )


@pytest.mark.parametrize(("jobs", "threads"), [(1, 7), (2, 3), (7, 1), (9, 1)])
def test_jobs_share_the_usable_cores(
    jobs: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "usable_cores", lambda: 7)
    assert Compute.of(Machine(jobs=jobs)).threads == threads
    assert Compute.of(Machine(jobs=jobs, threads=5)).threads == 5


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
