"""`python -m evidence`: measures the promises, writes evidence/results/<id>.json and docs/evidence.md.

Exit status 0 when every measured promise holds, 1 when one falls short, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from loadtests.bench import machine
from rich.console import Console
from rich.table import Table

from evidence.page import PAGE, render, status
from evidence.promises import FOLDER, Promise, load_promises
from evidence.registry import Group, groups_for, measured_ids
from evidence.results import Circumstances, Result, judge, not_measured, read_results, write_result


def _versions() -> dict[str, str]:
    versions = {"spillway": importlib.metadata.version("spillway")}
    root = Path(__file__).resolve().parents[1]
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=20, check=False
    )
    if shown.returncode == 0:
        versions["commit"] = shown.stdout.strip()
    return versions


def _take(group: Group, prefix: str, promises: Mapping[str, Promise], console: Console) -> list[Result]:
    """Measures one group and writes the results that were asked for."""
    wanted = [name for name in group.ids if name.startswith(prefix)]
    console.print(f"{', '.join(wanted)} ({group.about})", highlight=False)
    found = group.measure(lambda line: console.print(line, highlight=False, style="dim"))
    results = []
    for name in wanted:
        taken = Circumstances(
            command=f"make evidence ONLY={name}",
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=machine.describe(),
            versions=_versions(),
        )
        result = judge(promises[name], found.get(name, not_measured("the measurement gave no value")), taken)
        write_result(result, FOLDER)
        colour = "green" if result.holds else "red"
        word = status(promises[name], result)
        console.print(
            f"  [{colour}]{word}[/]: {name} = {result.value} {result.unit}, n {result.n}, "
            f"promised {promises[name].bound_text}",
            highlight=False,
        )
        results.append(result)
    return results


def _write_page(promises: Mapping[str, Promise]) -> None:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(promises, read_results(FOLDER, promises)), encoding="utf-8")


def _list(promises: Mapping[str, Promise], prefix: str, console: Console) -> None:
    results = read_results(FOLDER, promises)
    known = measured_ids()
    table = Table(title="Promises", title_justify="left")
    for name in ("id", "step", "promised", "measured", "n", "status"):
        table.add_column(name)
    for name, promise in promises.items():
        if name.startswith(prefix):
            result = results.get(name)
            value, n = ("", "") if result is None else (str(result.value), str(result.n))
            state = status(promise, result) + ("" if name in known else " (no measure function)")
            table.add_row(name, str(promise.step), promise.bound_text, value, n, state)
    console.print(table)


def main(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="PREFIX", help="ids that begin with this")
    parser.add_argument("--list", action="store_true", help="show what is held, falls short, is not measured")
    parser.add_argument("--page", action="store_true", help="only write docs/evidence.md again")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end what was started, like Ctrl-C
    console = Console()
    promises = load_promises()
    if options.list:
        _list(promises, options.only, console)
        return 0
    if options.page:
        _write_page(promises)
        return 0
    groups = groups_for(options.only)
    if not groups:
        console.print(f"Nothing measures an id that begins with {options.only!r}; see --list.", style="red")
        return 2
    results = [result for group in groups for result in _take(group, options.only, promises, console)]
    _write_page(promises)
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
