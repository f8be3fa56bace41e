"""Lines for a descriptor whose reader may pause, such as a pipe to a log driver: whoever writes one never waits.

A thread of its own writes them. A bounded number of lines wait for it; further ones are dropped and counted, and once
the reader goes on, a line says how many.
"""

from __future__ import annotations

import logging
import os
import select
from collections import deque
from threading import Condition, Thread
from types import TracebackType
from typing import Self

MOST_LINES = 10_000
MOST_BYTES = 4 << 20
AT_ONCE = 200
CLOSE_S = 1.0
"""How long the end of the process waits for the reader."""
_LONGEST_LINE = 64 << 10


class LineOutput:
    """Writes lines to a descriptor; use it as a context manager. `put` may be called from any thread."""

    def __init__(self, descriptor: int, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._unreported = 0
        self._closing = False
        self._changed = Condition()
        self.dropped = 0
        """Lines that were dropped so far."""
        self._thread = Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        """Write a line soon, or drop it."""
        line = text.encode("utf-8", "backslashreplace")[:_LONGEST_LINE] + b"\n"
        with self._changed:
            if len(self._lines) >= self._most_lines or self._bytes + len(line) > self._most_bytes:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify()

    def close(self, limit_s: float = CLOSE_S) -> None:
        """Write what waits, for at most that long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(limit_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._closing):
                    self._changed.wait()
                if not self._lines:
                    return
                lines = [self._lines.popleft() for _ in range(min(AT_ONCE, len(self._lines)))]
                self._bytes -= sum(map(len, lines))
            written = self._write(b"".join(lines))
            with self._changed:
                dropped, self._unreported = self._unreported, 0
                if not written:
                    self.dropped += len(lines)
            if dropped and written:
                self._write(b"%d lines were dropped here, because nobody read them in time\n" % dropped)

    def _write(self, data: bytes) -> bool:
        """Write all of it; False if nobody can read it any more."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever made the descriptor made it non-blocking
                select.select((), (self._descriptor,), (), 1.0)
            except OSError:
                return False
        return True


class LineHandler(logging.Handler):
    """Writes log records to a LineOutput."""

    def __init__(self, output: LineOutput) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # logging's own answer to a faulty call is to print it, which may wait
            text = f"a log line could not be formatted: {error}"
        self.output.put(text)
