"""The option `--since`: how far back a command looks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from spillway_router.commands.common import fail

SinceOption = Annotated[
    str, typer.Option("--since", help="From when on: 12h, 7d or 4w ago, or a day as YYYY-MM-DD (UTC).")
]
_AGO = re.compile(r"([0-9]{1,4})([hdw])")
_MS = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def since_ms(text: str, now_ms: int) -> int:
    """Return the moment that `--since` names, in epoch milliseconds. A text that names none ends the command."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(0, now_ms - int(ago[1]) * _MS[ago[2]])
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        fail(f"--since {text!r} is no time; write it like 12h, 7d, 4w or 2026-11-20")
