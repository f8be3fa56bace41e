"""Steps that survive an interruption: each leaves a marker with the digests of what went in and what came out.

A step is skipped when its marker names the same inputs and every file it wrote is still there, byte for byte.
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

from spillway_server.refusal import Refusal

MARGIN_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins: its name, and the room it needs in bytes."""

    step: str
    needs_bytes: int


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step came further: share done (0 to 1) and what it is at."""

    step: str
    share: float
    what: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended; `resumed` when an earlier run had done it already."""

    step: str
    seconds: float
    resumed: bool


StepEvent = StepStarted | StepProgress | StepDone
Tell = Callable[[StepEvent], None]


@dataclass(frozen=True, slots=True)
class ConversionStep:
    """One step: a name, everything its outcome depends on, the folder it fills (None: only a result), bytes needed."""

    name: str
    inputs: dict[str, Any]
    folder: Path | None
    needs_bytes: int


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path | None) -> dict[str, str]:
    """Every file below a folder with its digest."""
    if folder is None or not folder.exists():
        return {}
    return {str(f.relative_to(folder)): digest(f) for f in sorted(folder.rglob("*")) if f.is_file()}


def room(folder: Path) -> int:
    """Free bytes on the disk that a folder (or its nearest parent that exists) lies on."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


class StepMarkers:
    """The markers of one conversion, in `markers`; `free` tells the bytes that a folder's disk has left."""

    def __init__(self, markers: Path, tell: Tell, free: Callable[[Path], int] = room) -> None:
        self._markers = markers
        self._tell = tell
        self._free = free

    def run(
        self, step: ConversionStep, work: Callable[[Callable[[float, str], None]], dict[str, Any] | Refusal]
    ) -> dict[str, Any] | Refusal:
        """The step's result, from its marker or by doing it now; a refusal when it can't be done."""
        began = time.monotonic()
        known = self._finished(step)
        if known is not None:
            self._tell(StepDone(step.name, time.monotonic() - began, True))
            return known
        free = self._free(step.folder or self._markers)
        if free < step.needs_bytes + MARGIN_BYTES:
            return Refusal(
                f"step {step.name} needs {(step.needs_bytes + MARGIN_BYTES) / 1e9:.2f} GB of disk and "
                f"{free / 1e9:.2f} GB are free at {step.folder or self._markers}.",
                "Free some, or name another disk with --out; what is done already is kept.",
            )
        self._tell(StepStarted(step.name, step.needs_bytes))
        made = work(lambda share, what: self._tell(StepProgress(step.name, share, what)))
        if isinstance(made, Refusal):
            return made
        self._mark(step, made)
        self._tell(StepDone(step.name, time.monotonic() - began, False))
        return made

    def _file(self, step: ConversionStep) -> Path:
        return self._markers / f"{step.name}.json"

    def _finished(self, step: ConversionStep) -> dict[str, Any] | None:
        try:
            marker = json.loads(self._file(step).read_text(encoding="utf-8"))
            fits = marker["inputs"] == step.inputs and marker["outputs"] == contents(step.folder)
            return dict(marker["result"]) if fits else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _mark(self, step: ConversionStep, result: dict[str, Any]) -> None:
        self._markers.mkdir(parents=True, exist_ok=True)
        marker = {"step": step.name, "inputs": step.inputs, "outputs": contents(step.folder), "result": result}
        partial = self._file(step).with_suffix(".partial")
        partial.write_text(json.dumps(marker), encoding="utf-8")
        partial.replace(self._file(step))
