"""`spillway logs`: the log of the engine that `up` or `serve` runs."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Annotated, Literal

import typer

from spillway_router.commands.common import fail, say

_EVERY_S = 0.5


def logs(
    of: Annotated[Literal["engine", "router"], typer.Argument(help="Whose log.")] = "engine",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=100_000, help="So many of the last lines.")] = 50,
    file: Annotated[Path, typer.Option(help="The engine's log file, where `up` was started elsewhere.")] = Path(
        "data/engine.log"
    ),
) -> None:
    """Show the last lines of the engine's log; say where those of the router are."""
    if of == "router":
        say(
            "The router writes its log to standard error, which the service manager keeps: journalctl -u spillway -f, "
            "docker logs -f NAME, or kubectl logs -f POD."
        )
        return
    if not file.exists():
        fail(f"{file} does not exist; run this where `spillway up` was started, or name the file with --file")
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in deque(text, maxlen=lines):
            say(line.rstrip("\n"))
        while follow:
            try:
                line = text.readline()
                if line:
                    say(line.rstrip("\n"))
                else:
                    time.sleep(_EVERY_S)
            except KeyboardInterrupt:
                return
