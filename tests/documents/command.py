"""Run `spillway` as a process, and read the files that it writes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from spillway_router.testing.harness import LIMIT_S


def rows(target: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in target.read_text().splitlines()]


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run `spillway ARGUMENTS`; return exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from spillway_router.cli import app; app()", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    async with asyncio.timeout(3 * LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
