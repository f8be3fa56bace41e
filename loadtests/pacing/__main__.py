"""`python -m loadtests.pacing`: the gain of each spending rule as a share of the offline optimum."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from loadtests.pacing.compare import LOADS, compare
from loadtests.pacing.rules import RULES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.pacing", description=__doc__)
    parser.add_argument("--days", type=int, default=20, help="pairs of days (default 20)")
    parser.add_argument("--offers", type=int, default=10_000, help="doubtful answers on a day (default 10000)")
    parser.add_argument("--json", action="store_true", help="print outcomes as JSON")
    options = parser.parse_args(arguments)
    if options.days < 1 or options.offers < 100:
        parser.error("--days must be at least 1, --offers at least 100")
    outcomes = compare(list(RULES), options.days, options.offers)
    if options.json:
        json.dump([asdict(o) for o in outcomes], sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    table = Table(title=f"gain / optimum: mean of {options.days} days (worst day)")
    table.add_column("rule")
    for load in LOADS:
        table.add_column(f"today x{load:g}", justify="right")
    for rule in RULES:
        row = [o for o in outcomes if o.rule == rule]
        table.add_row(rule, *(f"{o.mean:.3f} ({o.worst:.3f})" for o in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
