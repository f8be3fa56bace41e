"""The command `python -m evidence`: it measures the promises and writes evidence/results/<id>.json and the page.

The exit status is 0 when every measured promise holds, 1 when one fails and 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
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
from evidence.registry import Group, chosen, groups_for, measured_ids
from evidence.results import Circumstances, Result, judge, not_measured, read_results, rejudge, write_result
from spillway_router.commands.common import version


def _versions() -> dict[str, str]:
    versions = {"spillway": version()}
    root = Path(__file__).resolve().parents[1]
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=20, check=False
    )
    if shown.returncode == 0:
        versions["commit"] = shown.stdout.strip()
    return versions


def _take(group: Group, prefixes: str, promises: Mapping[str, Promise], console: Console) -> list[Result]:
    """Measure one group and write those of its results whose id begins with one of the prefixes."""
    ids = [name for name in group.ids if chosen(name, prefixes)]
    console.print(f"{', '.join(ids)} ({group.about})", highlight=False)
    measurements = group.measure(lambda line: console.print(line, highlight=False, style="dim"))
    results = []
    for name in ids:
        taken = Circumstances(
            command=f"make evidence ONLY={name}",
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=machine.describe(),
            versions=_versions(),
        )
        measurement = measurements.get(name, not_measured("the measurement returned no value"))
        result = judge(promises[name], measurement, taken)
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


def _publish(promises: Mapping[str, Promise]) -> None:
    """Judge all published results by today's bounds and write the page."""
    results = {}
    for name, result in read_results(FOLDER, promises).items():
        results[name] = rejudge(promises[name], result)
        if results[name] != result:
            write_result(results[name], FOLDER)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(promises, results), encoding="utf-8")


def _list(promises: Mapping[str, Promise], prefixes: str, console: Console) -> None:
    results = read_results(FOLDER, promises)
    covered = measured_ids()
    table = Table(title="Promises", title_justify="left")
    for name in ("id", "area", "promised", "measured", "n", "status"):
        table.add_column(name)
    for name, promise in promises.items():
        if chosen(name, prefixes):
            result = results.get(name)
            value, n = ("", "") if result is None else (str(result.value), str(result.n))
            state = status(promise, result) + ("" if name in covered else " (no measure function)")
            table.add_row(name, promise.area, promise.bound_text, value, n, state)
    console.print(table)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="only ids that begin with PREFIX (several with commas)"
    )
    parser.add_argument("--list", action="store_true", help="list every promise with its status; measure nothing")
    parser.add_argument(
        "--page", action="store_true", help="judge the published results by today's bounds, write the page"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up started processes, as on Ctrl-C
    console = Console()
    promises = load_promises()
    if options.list:
        _list(promises, options.only, console)
        return 0
    if options.page:
        _publish(promises)
        return 0
    groups = groups_for(options.only)
    if not groups:
        console.print(f"No command measures an id that begins with {options.only!r}; see --list.", style="red")
        return 2
    results = [result for group in groups for result in _take(group, options.only, promises, console)]
    _publish(promises)
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
