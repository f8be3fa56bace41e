"""What a model needs of the machine around the GPU: disk for its files, and memory of the host.

vLLM maps the weight files and copies them to the device, so that the host holds its own processes and at least the
largest file; the kernel drops what was read when memory is short. 4 GiB for each engine's processes (CUDA context,
pinned buffers, Python) were observed on CPU builds and are assumed for GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.obstacle import Obstacle
from spillway_server.planning.plan import EnginePlan
from spillway_server.planning.shapes import GIB

IMAGE_BYTES = 30 * 10**9
"""The disk that the container image with vLLM and CUDA takes when unpacked, with some room for logs."""
_PROCESSES = 4 * GIB
_LARGEST_SHARD = 5 * 10**9
"""The size at which checkpoints are usually cut into files."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine around the GPUs: free disk for models in bytes, and memory in bytes (None: unknown)."""

    disk_bytes: int | None = None
    memory_bytes: int | None = None
    holds_image: bool = False


def obstacle(plan: EnginePlan, machine: Machine) -> Obstacle | None:
    """Return why the machine is too small for the plan, None where it is large enough or nothing is known."""
    shape = plan.model.shape
    if shape is None:
        return None
    needed = shape.weight_bytes + (IMAGE_BYTES if machine.holds_image else 0)
    if machine.disk_bytes is not None and needed > machine.disk_bytes:
        rest = " and the image" if machine.holds_image else ""
        return Obstacle(
            f"the files of {plan.model.served_name}{rest} take {needed / 1e9:.0f} GB of disk, and there are "
            f"{machine.disk_bytes / 1e9:.0f} GB.",
            f"Use a disk of at least {needed * 1.1 / 1e9:.0f} GB.",
        )
    memory = _PROCESSES * plan.layout.data + min(shape.largest_file or _LARGEST_SHARD, shape.weight_bytes)
    if machine.memory_bytes is not None and not plan.profile.is_cpu and memory > machine.memory_bytes:
        return Obstacle(
            f"loading {plan.model.served_name} takes about {memory / GIB:.0f} GiB of the host's memory, and it has "
            f"{machine.memory_bytes / GIB:.0f} GiB.",
            "Use a machine with more memory, or fewer engines (--vllm-arg=--data-parallel-size=1).",
        )
    return None
