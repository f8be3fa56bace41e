"""The hardware of this machine: GPUs as NVML reports them, processor cores, memory. Without NVML there are no GPUs."""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
from dataclasses import dataclass, replace
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CPU_INFO = Path("/proc/cpuinfo")
NVML_S = 15.0
"""How long NVML may take: it answers within a second, or within ten where no process keeps the driver loaded."""
_MOST_GPUS = 64
DRIVER_FLOOR = 580
"""The lowest major version of NVIDIA's driver that runs the CUDA 13 build of vLLM."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: NVML's product name, memory in bytes, compute capability (major, minor), driver version."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    driver: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine: its GPUs (there may be none), usable cores, memory in bytes, why it has no GPUs, and the processor's
    name."""

    gpus: tuple[Gpu, ...]
    cpu_cores: int
    memory_bytes: int
    gpu_note: str = ""
    cpu_name: str = ""

    @property
    def title(self) -> str:
        """The name under which measurements are recorded: the GPUs, or processor and cores."""
        if not self.gpus:
            return f"cpu {self.cpu_name} {self.cpu_cores} cores"
        return self.gpus[0].name if len(self.gpus) == 1 else f"{len(self.gpus)}x {self.gpus[0].name}"

    def without_gpus(self) -> Hardware:
        """Return the same machine without its GPUs."""
        return replace(self, gpus=())


def is_old(driver: str) -> bool:
    """Return whether a driver version is below DRIVER_FLOOR; False for one that can't be read."""
    major = driver.split(".")[0]
    return major.isdigit() and int(major) < DRIVER_FLOOR


def detect() -> Hardware:
    """Inspect this machine. Never raises: with a broken or absent NVML there are no GPUs, and a note says why."""
    gpus, note = _gpus()
    return Hardware(
        gpus=gpus,
        cpu_cores=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(CGROUP_LIMIT),
        gpu_note=note,
        cpu_name=_processor(CPU_INFO),
    )


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    """Ask NVML, for at most NVML_S.

    A wedged driver never returns and nothing can end its call, so the call runs in a daemon thread, which does not keep
    the process from ending.
    """
    answers: queue.SimpleQueue[tuple[tuple[Gpu, ...], str]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask_nvml())
        except Exception as error:  # a binding and a driver that don't fit together
            answers.put(((), f"NVML is not usable here: {type(error).__name__}: {error}"))

    threading.Thread(target=ask, name="nvml", daemon=True).start()
    try:
        return answers.get(timeout=NVML_S)
    except queue.Empty:
        return (), f"NVML did not answer within {NVML_S:g} s, so the driver hangs"


def _ask_nvml() -> tuple[tuple[Gpu, ...], str]:
    try:
        import pynvml
    except ImportError:
        return (), "nvidia-ml-py is not installed, so GPUs can't be detected"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), f"NVML is not usable here: {error}"
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        gpus = []
        for index in range(min(pynvml.nvmlDeviceGetCount(), _MOST_GPUS)):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(
                Gpu(
                    name=_text(pynvml.nvmlDeviceGetName(handle)),
                    memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    compute_capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                    driver=driver,
                )
            )
        return tuple(gpus), "" if gpus else "NVML answers, but lists no GPU"
    except pynvml.NVMLError as error:
        return (), f"NVML stopped answering: {error}"
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    # Older NVML bindings return bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _memory_bytes(limit: Path) -> int:
    """Return the physical memory, or the container's limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = limit.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


def _processor(info: Path) -> str:
    """Return the processor's name as Linux reports it, else its architecture."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
