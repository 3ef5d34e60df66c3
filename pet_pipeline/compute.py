"""Where units are computed and how fast: the machine settings, resolved for the work.

Needs no torch; `inference` and `training` turn it into devices and contexts.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, Self

from pet_pipeline.config import Machine

Precision = Literal["auto", "float32", "bfloat16"]

SMALL = 512  # hidden size up to which a core does more with a unit of its own than with a share
JOB_BYTES = 2 * 2**30  # that tuning a small model takes, with the libraries that it loads
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, that of Windows


@dataclass(frozen=True)
class Compute:
    """Device, threads and the token budget of inference batches.

    The precision is a part of a unit's identity: `at` puts in the one that the unit names.
    """

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"  # auto, float32 or bfloat16
    threads: int = 0  # of a unit; 0 is every core of this process
    batch_tokens: int = 6000
    checkpoint_seconds: float = 10.0

    @classmethod
    def of(cls, machine: Machine, hidden_size: int | None = None) -> Self:
        """What the machine settings say, for units that tune a model of a hidden size.

        Threads that are not set: one for a small model on a CPU, whatever the number of jobs, so
        that this does not change results, and because threads that wait for one another slow down
        many times beside other work; else the cores are shared among the jobs.
        """
        one = _has_small_units(machine, hidden_size)
        share = 1 if one else max(1, usable_cores() // max(1, machine.jobs))
        return cls(
            device=machine.device,
            precision=machine.precision,
            threads=machine.threads or share,
            batch_tokens=machine.batch_tokens,
            checkpoint_seconds=machine.checkpoint_seconds,
        )

    def at(self, precision: str) -> Compute:
        """The same with another precision."""
        return replace(self, precision=precision)

    def describe(self) -> dict[str, str | int | float]:
        """The values as they are recorded."""
        return asdict(self)


def count_jobs(machine: Machine, hidden_size: int | None = None) -> int:
    """How many units run at the same time: as set, or as many as there are cores and memory for.

    hidden_size: of the model; None if it is not known, which counts as large
    """
    if machine.jobs:
        return machine.jobs
    if not _has_small_units(machine, hidden_size):
        return 1
    fitting = usable_bytes() // JOB_BYTES - 1  # one share is for everything else
    return max(1, min(usable_cores() // max(1, machine.threads), fitting))


def _has_small_units(machine: Machine, hidden_size: int | None) -> bool:
    small = hidden_size is not None and hidden_size <= SMALL
    return small and not may_accelerate(machine.device)


def may_accelerate(device: str) -> bool:
    """Whether a device setting means an accelerator, as far as can be seen without torch."""
    if device != "auto":
        return device != "cpu"
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        if "+cpu" in metadata.version("torch"):
            return False
    except metadata.PackageNotFoundError:
        return False
    return any(Path(driver).exists() for driver in DRIVERS) or bool(shutil.which("nvidia-smi"))


def usable_bytes() -> int:
    """Memory that this process may use: less than the machine has under a container's limit."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        total = 8 * 2**30
    return min(total, cgroup_bytes() or total)


def cgroup_bytes(root: str = "/sys/fs/cgroup") -> int | None:
    """The memory limit of a container; None without one."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1
        try:
            text = Path(root, file).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        return int(text) if text.isdigit() else None  # "max"
    return None


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has under an affinity or a quota."""
    count = getattr(os, "process_cpu_count", None)  # Python 3.13
    if count is not None:
        cores = int(count() or 1)
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, cgroup_cores() or cores))


def cgroup_cores(root: str = "/sys/fs/cgroup") -> int | None:
    """Cores that a container's quota allows, rounded up; None without a quota."""
    try:
        with open(f"{root}/cpu.max", encoding="ascii") as file:  # version 2
            quota, period = file.read().split()[:2]
    except (OSError, ValueError):
        try:
            with open(f"{root}/cpu/cpu.cfs_quota_us", encoding="ascii") as file:  # version 1
                quota = file.read().strip()
            with open(f"{root}/cpu/cpu.cfs_period_us", encoding="ascii") as file:
                period = file.read().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:  # "max", -1
        return None
    return max(1, -(-int(quota) // int(period)))
