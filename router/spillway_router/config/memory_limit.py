"""The memory that this process may still take: what its container, its limits and the machine leave."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def memory_left(root: Path = _ROOT) -> int:
    """Return the bytes that this process can still allocate; `root` is where /proc and /sys are."""
    page = os.sysconf("SC_PAGE_SIZE")
    virtual, resident = (int(pages) * page for pages in (root / "proc/self/statm").read_text().split()[:2])
    left = min(_physical(page), *_container_limits(root)) - resident
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        left = min(left, address_space - virtual)
    return max(0, left)


def _physical(page: int) -> int:
    return os.sysconf("SC_PHYS_PAGES") * page


def _container_limits(root: Path) -> Iterator[int]:
    """Return the limits of the control groups that this process is in, of version 2 and 1, from its own to the root."""
    yield 2**63 - 1
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            value = _text(folder / name).strip()
            if value.isdecimal():
                yield int(value)
            if folder == mount:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
