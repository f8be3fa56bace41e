"""NVML that hangs, fails in a strange way or lists absurd GPUs while a command looks for hardware."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from spillway_server.planning import hardware


class FakeError(Exception):
    """NVML's own error."""


def install(monkeypatch: pytest.MonkeyPatch, **calls: Any) -> None:
    fake: Any = ModuleType("pynvml")
    fake.NVMLError = FakeError
    fake.nvmlInit = fake.nvmlShutdown = lambda: None
    fake.nvmlSystemGetDriverVersion = lambda: "580.1"
    fake.nvmlDeviceGetCount = lambda: 1
    for name, call in calls.items():
        setattr(fake, name, call)
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def test_a_driver_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    install(monkeypatch, nvmlInit=release.wait)
    monkeypatch.setattr(hardware, "NVML_S", 0.05)
    machine = hardware.detect()
    release.set()
    assert machine.gpus == ()
    assert machine.gpu_note == "NVML did not answer within 0.05 s, so the driver hangs"


def fail() -> None:
    raise FakeError("lost")


@pytest.mark.parametrize(
    ("calls", "note"),
    [
        ({"nvmlInit": fail}, "NVML is not usable here: lost"),
        ({"nvmlDeviceGetCount": fail, "nvmlShutdown": fail}, "NVML stopped answering: lost"),
        ({"nvmlDeviceGetCount": lambda: "two"}, "NVML is not usable here: TypeError"),
        ({}, "NVML is not usable here: AttributeError"),
    ],
)
def test_an_nvml_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch, calls: dict[str, Any], note: str) -> None:
    install(monkeypatch, **calls)
    machine = hardware.detect()
    assert machine.gpus == ()
    assert machine.gpu_note.startswith(note)
