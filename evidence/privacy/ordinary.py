"""Ordinary lines: the source of Python's standard library, and the documentation of installed packages."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path


def code_lines(most: int) -> Iterator[str]:
    """Yield lines that are not empty of the standard library without its tests, in the order of the files' names."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (f for f in sorted(root.rglob("*.py")) if not {"site-packages", "test", "tests"} & set(f.parts))
    yield from _lines(files, most)


def prose_lines(most: int) -> Iterator[str]:
    """Yield lines that are not empty of texts among the installed packages and the machine's shared files."""
    roots = (Path(sysconfig.get_path("purelib")), Path("/usr/share"))
    files = (f for root in roots for end in ("md", "rst", "txt") for f in sorted(root.rglob(f"*.{end}")))
    yield from _lines(files, most)


def _lines(files: Iterator[Path], most: int) -> Iterator[str]:
    count = 0
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for line in text.splitlines():
            if line.strip():
                yield line
                count += 1
                if count == most:
                    return
