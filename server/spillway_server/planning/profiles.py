"""What vLLM is started with on each kind of device: the GPU table as profiles, and the profile of a CPU.

The numbers are values of vLLM's flags in their own units (tokens, sequences, requests), and the share of memory that it
may take. They are starting points that were not tuned on the GPUs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_hardware.gpus import GPUS, GpuModel
from spillway_server.planning.hardware import Gpu, Hardware

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of device.

    `memory_bytes` is what NVML reports (for the CPU: the machine's memory); `compute_capability` is (0, 0) for the CPU;
    `queue_limit` is the number of waiting plus running requests beyond which vLLM answers 503.
    """

    key: str
    title: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    utilisation: float
    queue_limit: int
    kv_dtype: str = "auto"
    driver: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether this is a machine without a usable GPU."""
        return self.key == CPU

    @property
    def gpu(self) -> Gpu:
        """A GPU of this kind, as NVML would report it."""
        return Gpu(self.title, self.memory_bytes, self.compute_capability, self.driver)


def _of_model(model: GpuModel) -> Profile:
    limits = model.limits
    return Profile(
        key=model.name,
        title=model.title,
        memory_bytes=model.memory_bytes,
        compute_capability=model.compute_capability,
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        utilisation=limits.utilisation,
        queue_limit=limits.queue_limit,
        kv_dtype=limits.kv_dtype,
    )


PROFILES: dict[str, Profile] = {name: _of_model(model) for name, model in GPUS.items()}


def cpu_profile(memory_bytes: int) -> Profile:
    """Return the profile of a machine without a GPU: small batches, a small context, at most half of its memory.

    The queue is short (one batch waits while one runs): engine, router and everything else share the cores, so that a
    burst slows the engine down just when its queue is longest, which no learned rate knows in advance.
    """
    return Profile(
        key=CPU,
        title="CPU",
        memory_bytes=memory_bytes,
        compute_capability=(0, 0),
        max_model_len=2048,
        max_num_seqs=16,
        max_num_batched_tokens=2048,
        utilisation=0.5,
        queue_limit=32,
    )


def of_machine(hardware: Hardware) -> Profile:
    """Return the profile of this machine: its first GPU's, with that GPU's own memory and driver, or the CPU's."""
    if not hardware.gpus:
        return cpu_profile(hardware.memory_bytes)
    return of_gpu(hardware.gpus[0])


def of_gpu(gpu: Gpu) -> Profile:
    """Return the nearest profile that is not larger: one of the same compute capability, else the largest.

    A GPU smaller than every known one gets the limits of the first entry of the table.
    """
    generations = [profile for profile in PROFILES.values() if profile.compute_capability <= gpu.compute_capability]
    # 3% slack: the same card reports slightly different sizes under ECC and under virtualisation.
    fitting = [profile for profile in generations if profile.memory_bytes <= gpu.memory_bytes * 1.03]
    nearest = max(
        fitting,
        key=lambda profile: (profile.compute_capability == gpu.compute_capability, profile.memory_bytes),
        default=next(iter(PROFILES.values())),
    )
    # fp8 KV needs Ada or newer, whatever the memory size says.
    kv_dtype = "fp8" if gpu.compute_capability >= (8, 9) else "auto"
    return replace(
        nearest,
        key=nearest.key if nearest.compute_capability == gpu.compute_capability else "other",
        title=gpu.name,
        memory_bytes=gpu.memory_bytes,
        compute_capability=gpu.compute_capability,
        kv_dtype=kv_dtype,
        driver=gpu.driver,
    )
