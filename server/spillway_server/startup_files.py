"""The files of an environment that Python runs at every start, whatever is imported: `.pth` files with code, and the
modules `sitecustomize` and `usercustomize`.

A hijacked release of a well-known package once hid its code in such a file. What is no known one is reported; whether
it belongs there is for a person to judge, since some packages of NVIDIA and profilers bring their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

KNOWN = frozenset({"2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224"})
"""SHA-256 of setuptools' own distutils-precedence.pth."""
_MODULES = ("sitecustomize.py", "usercustomize.py")
_MOST_BYTES = 1 << 20


def running_at_start(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Return the files in these folders of packages that run code at every start and are not known."""
    return tuple(
        file
        for folder in folders
        for file in (*sorted(folder.glob("*.pth")), *(folder / name for name in _MODULES))
        if file.is_file() and _runs_code(file)
    )


def packages_of(python: Path) -> tuple[Path, ...]:
    """Return the folders of packages of the environment that a Python stands in."""
    return tuple(sorted(python.parent.parent.glob("lib/python3*/site-packages")))


def _runs_code(file: Path) -> bool:
    if file.suffix == ".py":
        return True
    with file.open("rb") as opened:
        text = opened.read(_MOST_BYTES)
    # As Python's site module reads it: a line that begins so is run, every other one is a path.
    runs = any(line.startswith((b"import ", b"import\t")) for line in text.splitlines())
    return runs and hashlib.sha256(text).hexdigest() not in KNOWN
