"""vLLM's output: a log file of bounded size, the last lines in memory, and the recognised phases of start-up."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import BinaryIO

_TAIL_LINES = 60
_LINE_BYTES = 2000
_CLOSE_S = 1.0

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

    A thread writes the file, because its disk may be full or hang: the supervisor, and with `up` the whole router, must
    not wait for it, and the engine must find a reader for its output. At most `most_lines` wait for the disk; further
    ones are left out of the file, which then says how many.
    """

    def __init__(self, path: Path, limit: int = 10_000_000, most_lines: int = 10_000) -> None:
        self.path = path
        self._limit = limit
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._waiting: Queue[bytes | None] = Queue(most_lines)
        self._left_out = 0
        self._writer: Thread | None = None

    def __enter__(self) -> EngineLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()  # a place where no file can be is told at once
        self._writer = Thread(target=self._run, name="engine-log", daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Full):
                self._waiting.put(None, timeout=_CLOSE_S)
            writer.join(_CLOSE_S)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    def write(self, line: bytes) -> str:
        """Write one line and return it as text, cut at 2000 bytes. This never waits for the disk."""
        text = line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()
        self._tail.append(text)
        try:
            self._waiting.put_nowait(line if line.endswith(b"\n") else line + b"\n")
        except Full:
            self._left_out += 1
        return text

    def _run(self) -> None:
        file: BinaryIO | None = None
        while (line := self._waiting.get()) is not None:
            left_out, self._left_out = self._left_out, 0
            if left_out:
                line += b"%d lines are missing here, because the disk was full or slow\n" % left_out
            try:
                file = file or self.path.open("ab", buffering=0)  # unbuffered: after a crash the last line matters
                file.write(line)
                if file.tell() >= self._limit:
                    file.close()
                    file = None
                    self.path.replace(self.path.with_name(self.path.name + ".1"))
                    file = self.path.open("ab", buffering=0)
            except OSError:
                self._left_out += 1 + left_out
        if file is not None:
            file.close()
