"""The checks of `spillway doctor`: each says what was found on this machine, its status, and what to do about it."""

from __future__ import annotations

import platform
import shutil
import site
import sysconfig
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spillway_server.engine.launcher import InstalledEngine
from spillway_server.obstacle import Obstacle
from spillway_server.planning import models, profiles
from spillway_server.planning.hardware import DRIVER_FLOOR, Hardware, is_old
from spillway_server.planning.shapes import GIB
from spillway_server.startup_files import packages_of, running_at_start

_DISK_FLOOR = 5 * GIB


class CheckStatus(StrEnum):
    """The status of a check: `warn` works with a limitation, `fail` doesn't work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    name: str
    verdict: CheckStatus
    seen: str
    fix: str = ""


def examine(machine: Hardware, engine: InstalledEngine | Obstacle, folder: Path) -> tuple[Check, ...]:
    """Run all checks, in the order in which things depend on each other."""
    gpus = tuple(_gpu(index, machine) for index in range(len(machine.gpus)))
    return (
        _python(),
        Check("processor", CheckStatus.OK, f"{machine.cpu_cores} cores, {platform.machine()}"),
        _memory(machine),
        _disk(folder),
        *(gpus or (Check("GPU", CheckStatus.OK, f"none ({machine.gpu_note}): the CPU engine is used"),)),
        *((_driver(machine),) if gpus else ()),
        *_engine(machine, engine),
        _startup_files(engine),
        _demo_model(),
    )


def _python() -> Check:
    version = platform.python_version()
    return Check("Python", CheckStatus.OK, version)


def _memory(machine: Hardware) -> Check:
    seen = f"{machine.memory_bytes / GIB:.1f} GiB"
    if machine.memory_bytes < 6 * GIB and not machine.gpus:
        return Check("memory", CheckStatus.WARN, seen, "The CPU engine needs about 6 GiB; close other programs.")
    return Check("memory", CheckStatus.OK, seen)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    seen = f"{free / GIB:.0f} GiB free at {folder}"
    if free < _DISK_FLOOR:
        return Check("disk", CheckStatus.WARN, seen, "An engine takes 3 to 10 GiB and a 7B model about 6 GiB.")
    return Check("disk", CheckStatus.OK, seen)


def _gpu(index: int, machine: Hardware) -> Check:
    gpu = machine.gpus[index]
    major, minor = gpu.compute_capability
    seen = f"{gpu.name}, {gpu.memory_bytes / GIB:.1f} GiB, compute capability {major}.{minor}"
    if gpu.compute_capability < (7, 5):
        return Check(f"GPU {index}", CheckStatus.FAIL, seen, "vLLM needs compute capability 7.5 (T4) or newer.")
    return Check(f"GPU {index}", CheckStatus.OK, f"{seen}, profile {profiles.of_gpu(gpu).key}")


def _driver(machine: Hardware) -> Check:
    driver = machine.gpus[0].driver
    if is_old(driver):
        fix = f"The CUDA 13 build of vLLM needs {DRIVER_FLOOR} or newer: update, or use cu129."
        return Check("NVIDIA driver", CheckStatus.WARN, driver, fix)
    return Check("NVIDIA driver", CheckStatus.OK, driver)


def _engine(machine: Hardware, engine: InstalledEngine | Obstacle) -> tuple[Check, ...]:
    if isinstance(engine, Obstacle):
        return (Check("vLLM", CheckStatus.FAIL, engine.reason, engine.fix),)
    seen = f"{engine.distribution} {engine.version}, torch {engine.torch}, in {engine.python}"
    if machine.gpus and engine.is_cpu_build:
        return (Check("vLLM", CheckStatus.WARN, seen, "It can't use this GPU: make install ENGINE=gpu."),)
    if not machine.gpus and not engine.is_cpu_build:
        return (
            Check(
                "vLLM", CheckStatus.FAIL, seen, "It needs a GPU, and this machine has none: make install ENGINE=cpu."
            ),
        )
    return (Check("vLLM", CheckStatus.OK, seen),)


def _startup_files(engine: InstalledEngine | Obstacle) -> Check:
    """Look for files that run code at every start of the router's Python and of the engine's."""
    folders = [Path(folder) for folder in dict.fromkeys((*site.getsitepackages(), sysconfig.get_path("purelib")))]
    if isinstance(engine, InstalledEngine):
        folders += [folder for folder in packages_of(engine.python) if folder not in folders]
    files = running_at_start(folders)
    if files:
        fix = "Read them: a hijacked package hides its code so. Remove the environment and install it from its lock."
        return Check("startup files", CheckStatus.WARN, f"run code: {', '.join(map(str, files))}", fix)
    return Check("startup files", CheckStatus.OK, f"no unknown code in {len(folders)} folders of packages")


def _demo_model() -> Check:
    model = models.demo()
    if isinstance(model, Obstacle):
        return Check("demo model", CheckStatus.FAIL, model.reason, model.fix)
    size = model.shape.weight_bytes / 1e6 if model.shape else 0.0
    return Check("demo model", CheckStatus.OK, f"{size:.1f} MB of weights")
