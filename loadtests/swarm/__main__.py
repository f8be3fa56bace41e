"""`python -m loadtests.swarm [SCENARIO ...]`: run load tests against the product and write a report.

Without names: steady, ramp, burst, documents, trace and mixed, then the sweep of policies over the offered load.
Exit status 0 when every run is green, 1 when one is not, 2 when it could not run.
"""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from loadtests.bench import machine
from loadtests.demo.processes import ChildError
from loadtests.swarm import report, scenarios, session
from loadtests.swarm.session import LOCUST, NoLocustError, Settings

_OUT = Path(".cache/loadtest")


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(scenarios.SCENARIOS)}; or all.")] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of load per run; a soak takes 20 times as long.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of arrivals, lengths and documents.", min=1, max=50)] = 1,
    closed: Annotated[
        bool, typer.Option("--closed", help="Users that wait for answers, instead of a schedule.")
    ] = False,
    sweep: Annotated[bool, typer.Option(help="Every policy at 1, 2 and 4 times the capacity.")] = True,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="NAME=URL of another server in the sweep; URL `engine`: the fake engine without a router."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = _OUT,
) -> None:
    """Put load on the running product and write a report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started, like Ctrl-C
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = tuple(scenarios.SCENARIOS) if names == ["all"] else tuple(names or scenarios.EVERY_DAY)
    unknown = [name for name in chosen if name not in scenarios.SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(scenarios.SCENARIOS)}, all")
    others = tuple(_named(text) for text in compare or ())
    settings = Settings(chosen, seconds, seed, "closed" if closed else "open", sweep, others)
    try:
        found = session.run(settings, lambda line: console.print(Text(line)))
    except (ChildError, NoLocustError) as error:
        console.print(Text(f"The load tests could not run: {error}", style="red"))
        raise SystemExit(2) from error
    page = report.write(out, found, machine.describe(), versions(), session.stamp())
    console.print(Text(f"report: {page}"))
    raise SystemExit(1 if any(run.wrong for run in found.runs) else 0)


def _named(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals or not name or not (url == "engine" or url.startswith(("http://", "https://"))):
        raise typer.BadParameter(
            f"{text!r}: write NAME=URL, such as vllm=http://127.0.0.1:8001", param_hint="--compare"
        )
    return name, url


def versions() -> dict[str, str]:
    """Versions of what was measured and of what measured it."""
    shown = subprocess.run([LOCUST, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    words = shown.split()
    return {"spillway": importlib.metadata.version("spillway"), "locust": words[1] if len(words) > 1 else "unknown"}


if __name__ == "__main__":
    typer.run(main)
