"""Where units are computed and how fast: the machine settings, resolved for the work.

Needs no torch; `inference` and `training` turn it into devices and contexts.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

from pet_pipeline.config import Machine

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """Device, threads and the token budget of inference batches.

    The precision is a part of a unit's identity: `at` puts in the one that the unit names.
    """

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"  # auto, float32 or bfloat16
    threads: int = 0  # 0 is every core of this process
    batch_tokens: int = 6000
    checkpoint_seconds: float = 10.0

    @classmethod
    def of(cls, machine: Machine) -> Self:
        """What the machine settings say, with the cores shared among the jobs."""
        return cls(
            device=machine.device,
            precision=machine.precision,
            threads=machine.threads or max(1, usable_cores() // machine.jobs),
            batch_tokens=machine.batch_tokens,
            checkpoint_seconds=machine.checkpoint_seconds,
        )

    def at(self, precision: str) -> Compute:
        """The same with another precision."""
        return replace(self, precision=precision)

    def describe(self) -> dict[str, str | int | float]:
        """The values as they are recorded."""
        return asdict(self)


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
