"""`spillway logs`: the log of the engine that `up` or `serve` runs."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Literal

import typer

from spillway_router.commands.common import fail, say

_EVERY_S = 0.5
_ROUTER = (
    "The router writes its log to standard error, which the service manager keeps: journalctl -u spillway -f, docker "
    "logs -f NAME, or kubectl logs -f POD. The page Setup of the dashboard shows its last lines."
)


def logs(
    of: Annotated[Literal["engine", "router"], typer.Argument(help="Whose log.")] = "engine",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=100_000, help="So many of the last lines.")] = 50,
    file: Annotated[Path, typer.Option(help="The engine's log file, where `up` was started elsewhere.")] = Path(
        "data/engine.log"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Show the last lines of the engine's log; say where those of the router are."""

    def show(line: str) -> None:
        text = line.rstrip("\n")
        if as_json:
            typer.echo(json.dumps({"text": text}))
        else:
            say(text)

    if of == "router":
        show(_ROUTER)
        return
    if not file.exists():
        fail(f"{file} does not exist; run this where `spillway up` was started, or name the file with --file")
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in deque(text, maxlen=lines):
            show(line)
        while follow:
            try:
                line = text.readline()
                if line:
                    show(line)
                else:
                    time.sleep(_EVERY_S)
            except KeyboardInterrupt:
                return
