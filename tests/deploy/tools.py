"""The programs that tests run: on the PATH, or where requirements/tools.py puts them."""

from __future__ import annotations

import shutil

import pytest
from evidence.deploy_commands import ROOT


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    places = (None, str(ROOT / ".cache" / "tools" / "bin"))
    for place in places:
        if (path := shutil.which(name, path=place)) is not None:
            return path
    pytest.skip(f"{name} is missing; `make install-tools` fetches it")
