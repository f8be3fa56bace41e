"""vLLM's output: a log file of bounded size, the last lines in memory, and the recognised phases of start-up."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

_TAIL_LINES = 60
_LINE_BYTES = 2000

# What vLLM 0.32 logs on its way to the first token, in order.
_PHASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), phase)
    for pattern, phase in (
        (r"Initializing a V\d LLM engine", "starting the engine core"),
        (r"Starting to load model", "loading weights"),
        (r"checkpoint shards: +(\d+)% Completed", "loading weights, {}%"),
        (r"Loading weights took ([\d.]+) seconds", "weights loaded in {} s"),
        (r"KV cache size: ([\d,]+) tokens", "KV cache holds {} tokens"),
        (r"torch\.compile takes ([\d.]+) s", "compiled in {} s"),
        (r"Capturing CUDA graphs", "capturing CUDA graphs"),
        (r"init engine .* took ([\d.]+) s", "engine initialised in {} s"),
        (r"Starting vLLM (?:API )?server", "listening, waiting for the first token"),
    )
)


def phase_of(line: str) -> str | None:
    """Return the phase of start-up that a log line announces, or None."""
    for pattern, phase in _PHASES:
        match = pattern.search(line)
        if match:
            return phase.format(*match.groups())
    return None


class EngineLog:
    """A log file that rotates to `NAME.1` at `limit` bytes, and its last lines; used as a context manager.

    Lines are written straight to the file: at vLLM's rate (a few lines per second) that costs less than a thread would.
    """

    def __init__(self, path: Path, limit: int = 10_000_000) -> None:
        self.path = path
        self._limit = limit
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._file: BinaryIO | None = None
        self._size = 0

    def __enter__(self) -> EngineLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    def write(self, line: bytes) -> str:
        """Write one line and return it as text, cut at 2000 bytes."""
        text = line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()
        self._tail.append(text)
        if self._file is not None:
            self._file.write(line if line.endswith(b"\n") else line + b"\n")
            self._size += len(line)
            if self._size >= self._limit:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._open()
        return text

    def _open(self) -> None:
        # Unbuffered: after a crash the last line is what matters.
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.tell()
