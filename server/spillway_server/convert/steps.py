"""Steps that survive an interruption: each leaves a marker with the digests of its inputs and outputs.

A step is skipped when its marker names the same inputs and every file that it wrote is still there, byte for byte.
Before a step runs, the disk must have room for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillway_server.obstacle import Obstacle

MARGIN_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins: its name, and the disk space that it needs in bytes."""

    step: str
    needs_bytes: int


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step made progress: the share done (0 to 1), and what it is doing."""

    step: str
    share: float
    what: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended; `resumed` means that an earlier run had finished it already."""

    step: str
    seconds: float
    resumed: bool


StepEvent = StepStarted | StepProgress | StepDone
OnStepEvent = Callable[[StepEvent], None]


@dataclass(frozen=True, slots=True)
class ConversionStep:
    """One step: its name, everything that its outcome depends on, the folder that it fills (None: it only returns a
    result), and the disk space that it needs in bytes."""

    name: str
    inputs: dict[str, Any]
    folder: Path | None
    needs_bytes: int


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path | None) -> dict[str, str]:
    """Return every file below a folder with its digest."""
    if folder is None or not folder.exists():
        return {}
    return {str(f.relative_to(folder)): digest(f) for f in sorted(folder.rglob("*")) if f.is_file()}


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, or of its nearest parent that exists."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


class StepMarkers:
    """The markers of one conversion, in the folder `markers`; `free` returns the free bytes on a folder's disk."""

    def __init__(self, markers: Path, on_event: OnStepEvent, free: Callable[[Path], int] = free_bytes) -> None:
        self._markers = markers
        self._on_event = on_event
        self._free = free

    def run(
        self, step: ConversionStep, work: Callable[[Callable[[float, str], None]], dict[str, Any] | Obstacle]
    ) -> dict[str, Any] | Obstacle:
        """Return the step's result, from its marker or by running `work` now, or an obstacle."""
        started = time.monotonic()
        earlier = self._finished(step)
        if earlier is not None:
            self._on_event(StepDone(step.name, time.monotonic() - started, True))
            return earlier
        free = self._free(step.folder or self._markers)
        if free < step.needs_bytes + MARGIN_BYTES:
            return Obstacle(
                f"step {step.name} needs {(step.needs_bytes + MARGIN_BYTES) / 1e9:.2f} GB of disk and "
                f"{free / 1e9:.2f} GB are free at {step.folder or self._markers}.",
                "Free some, or choose another disk with --out; finished steps are kept.",
            )
        self._on_event(StepStarted(step.name, step.needs_bytes))
        result = work(lambda share, what: self._on_event(StepProgress(step.name, share, what)))
        if isinstance(result, Obstacle):
            return result
        self._mark(step, result)
        self._on_event(StepDone(step.name, time.monotonic() - started, False))
        return result

    def _file(self, step: ConversionStep) -> Path:
        return self._markers / f"{step.name}.json"

    def _finished(self, step: ConversionStep) -> dict[str, Any] | None:
        try:
            marker = json.loads(self._file(step).read_text(encoding="utf-8"))
            matches = marker["inputs"] == step.inputs and marker["outputs"] == contents(step.folder)
            return dict(marker["result"]) if matches else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _mark(self, step: ConversionStep, result: dict[str, Any]) -> None:
        self._markers.mkdir(parents=True, exist_ok=True)
        marker = {"step": step.name, "inputs": step.inputs, "outputs": contents(step.folder), "result": result}
        partial = self._file(step).with_suffix(".partial")
        partial.write_text(json.dumps(marker), encoding="utf-8")
        partial.replace(self._file(step))
