"""CPU time and memory of a process and its descendants, measured from outside.

CPU is user plus system time. That of a live process comes from its CPU clock (`clock_getcpuclockid(3)`: all threads,
including ended ones, in nanoseconds; the kernel keeps utime and stime from the same counter, but shows them in ticks of
10 ms). That of children that ended and were waited for comes from cutime and cstime in /proc/PID/stat.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, slots=True)
class TreeUse:
    """CPU microseconds since the processes started, resident MiB now, and the number of live processes."""

    cpu_us: float
    rss_mib: float
    processes: int


def _stat(pid: int) -> list[str]:
    # The command's name is in parentheses and may hold any character; the fields are counted after it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Return `root` and all its living descendants; the list is empty when `root` is gone."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except (OSError, IndexError):
                continue
    if not Path(f"/proc/{root}").exists():
        return []
    processes, queue = [root], [root]
    while queue:
        fresh = children.get(queue.pop(), [])
        processes += fresh
        queue += fresh
    return processes


def _cpu_clock_us(pid: int) -> float:
    # Linux's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), which clock_getcpuclockid returns: part of the kernel's ABI.
    return time.clock_gettime((~pid << 3) | 2) * 1_000_000


def use(root: int) -> TreeUse:
    """Return what the process tree under `root` has used so far.

    Raises:
        ProcessLookupError: there is no such process (any more).
    """
    cpu = rss = 0.0
    count = 0
    for pid in tree(root):
        try:
            fields = _stat(pid)
            cpu += _cpu_clock_us(pid) + (int(fields[13]) + int(fields[14])) * _TICK_US
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MIB
        except (OSError, IndexError):
            continue
        count += 1
    if count == 0:
        raise ProcessLookupError(f"process {root} is gone")
    return TreeUse(cpu, rss, count)
