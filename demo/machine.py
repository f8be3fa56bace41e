"""How much of the machine's CPU other programs used while the demo sent its documents."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from loadtests.bench import cpu, machine


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Seconds at one moment: the monotonic clock, and the CPU time so far of all processes and of the demo's own."""

    monotonic_s: float
    all_s: float
    own_s: float

    @classmethod
    def now(cls) -> CpuReading:
        """Read the counters of this machine. The demo's own processes are this one and its descendants."""
        return cls(time.monotonic(), machine.busy_cpu_s(), cpu.use(os.getpid()).cpu_us / 1_000_000)


def others_share(before: CpuReading, after: CpuReading, cores: int) -> float:
    """Return the share of the machine's CPU, from 0 to 1, that other programs used between two readings."""
    capacity_s = (after.monotonic_s - before.monotonic_s) * cores
    used_s = (after.all_s - before.all_s) - (after.own_s - before.own_s)
    return min(1.0, max(0.0, used_s / capacity_s)) if capacity_s > 0 else 0.0
