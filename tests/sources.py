"""The Python files of the repository as syntax trees, parsed once for all tests of their form."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("demo", "evidence", "conformance", "loadtests", "requirements", "router", "server", "tests")


@cache
def code() -> dict[str, ast.Module]:
    """Return all Python files of the repository by their path.

    The garbage collector looks neither for garbage meanwhile, nor through the millions of nodes later: that would take
    most of the time.
    """
    files = (path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")) if "_compiled" not in path.parts)
    gc.disable()
    try:
        return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    finally:
        gc.freeze()
        gc.enable()
