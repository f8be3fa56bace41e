"""The last lines of the log of the engine that this router runs, for the page Setup."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from spillway_router.core.printable import printable

MOST_LINES = 200
_MOST_BYTES = 64 << 10
_LONGEST_LINE = 500


def engine_tail(path: Path, cut: Callable[[str], str]) -> tuple[str, ...]:
    """Return the last lines of a log file, oldest first, each through `cut`, which takes secrets out; of a file that
    has just been rotated those before it. It reads at most 64 KiB. A file that can't be read is one line that says
    so."""
    lines: list[str] = []
    try:
        for place in (path.with_name(f"{path.name}.1"), path):
            if place.exists():
                lines += _lines(place)
    except OSError as error:
        return (f"{path} can't be read: {error.strerror or error}",)
    return tuple(printable(_short(cut(line))) for line in lines[-MOST_LINES:])


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _MOST_BYTES)
        file.seek(start)
        lines = file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
    return lines[1:] if start else lines


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
