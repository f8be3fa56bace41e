"""`python -m loadtests.locust_runs [SCENARIO ...]`: run load tests against the product and write a report.

Without names it runs steady, ramp, burst, documents, trace and mixed, then the sweep of policies over the offered load.
The report is written again after every run, so that an interrupted or failed session leaves what it measured, marked as
incomplete. The exit status is 0 when every run is green, 1 when one is not or has no result, 2 when nothing could run,
130 or 143 when interrupted.
"""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from demo.processes import ChildError
from rich.console import Console
from rich.text import Text

from loadtests.bench import machine
from loadtests.locust_runs import report, scenarios, session
from loadtests.locust_runs.session import LOCUST, NoLocustError, SessionSettings

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
        typer.Option(
            help="NAME=URL of another server in the sweep; URL `engine`: the fake engine without a router, "
            "`litellm`: LiteLLM before that engine."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = _OUT,
) -> None:
    """Load the running product and write a report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop every started process, as Ctrl-C does
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = tuple(scenarios.SCENARIOS) if names == ["all"] else tuple(names or scenarios.EVERY_DAY)
    unknown = [name for name in chosen if name not in scenarios.SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(scenarios.SCENARIOS)}, all")
    others = tuple(_named(text) for text in compare or ())
    settings = SessionSettings(
        names=chosen, seconds=seconds, seed=seed, loop="closed" if closed else "open", sweep=sweep, compare=others
    )
    try:
        results = session.begin(settings)
    except NoLocustError as error:
        console.print(Text(f"The load tests could not run: {error}", style="red"))
        raise SystemExit(2) from error
    about, used, date = machine.describe(), versions(), session.stamp()
    try:
        session.play(
            results,
            lambda line: console.print(Text(line)),
            lambda: report.write(out, results, about, used, date),
        )
    except ChildError as error:
        console.print(Text(f"The load tests could not go on: {error}", style="red"))
        results.failed["the load tests"] = str(error)
    except KeyboardInterrupt:
        console.print(Text("interrupted", style="red"))
        raise SystemExit(130) from None
    finally:
        if results.runs or results.points:
            page = report.write(out, results, about, used, date)
            rest = f"; incomplete: {', '.join(results.missing)}" if results.missing else ""
            console.print(Text(f"report: {page}{rest}"))
    if not results.runs and not results.points:
        raise SystemExit(2)
    raise SystemExit(1 if results.failed or results.missing or any(run.wrong for run in results.runs) else 0)


def _named(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals or not name or not (url in ("engine", "litellm") or url.startswith(("http://", "https://"))):
        raise typer.BadParameter(
            f"{text!r}: write NAME=URL, such as vllm=http://127.0.0.1:8001", param_hint="--compare"
        )
    return name, url


def versions() -> dict[str, str]:
    """Return the versions of what was measured and of what measured it."""
    shown = subprocess.run([LOCUST, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    words = shown.split()
    return {"spillway": importlib.metadata.version("spillway-llm"), "locust": words[1] if len(words) > 1 else "unknown"}


if __name__ == "__main__":
    typer.run(main)
