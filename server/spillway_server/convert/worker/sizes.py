"""What a checkpoint holds, from the headers of its files, and what this machine has room for: nothing is loaded."""

from __future__ import annotations

import math
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
_PACKED = ".weight_packed"


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a checkpoint."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return found


def parameters(found: dict[str, tuple[int, ...]]) -> int:
    """How many weights these are; eight 4-bit ones lie in one packed 32-bit word, scales don't count."""
    plain = sum(math.prod(shape) for name, shape in found.items() if name.endswith((".weight", ".bias")))
    return plain + sum(8 * math.prod(shape) for name, shape in found.items() if name.endswith(_PACKED))


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Memory that can be had without swapping, in bytes: the machine's, or what is left of the container's limit."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (cgroup / "memory.max").read_text().strip(), (cgroup / "memory.current").read_text()
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free
