"""Read the size of a checkpoint from the headers of its files, and the memory that is free. Nothing is loaded."""

from __future__ import annotations

import math
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
_PACKED = ".weight_packed"


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all tensors of a checkpoint."""
    from safetensors import safe_open

    tensors: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return tensors


def parameters(tensors: dict[str, tuple[int, ...]]) -> int:
    """Count the weights; one packed 32-bit word holds eight 4-bit weights, scales don't count."""
    plain = sum(math.prod(shape) for name, shape in tensors.items() if name.endswith((".weight", ".bias")))
    return plain + sum(8 * math.prod(shape) for name, shape in tensors.items() if name.endswith(_PACKED))


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory that are available without swapping: the machine's, or the rest of the container's
    limit."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (cgroup / "memory.max").read_text().strip(), (cgroup / "memory.current").read_text()
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free
