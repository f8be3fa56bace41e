"""`python -m loadtests.simulator`: the table of overflow rules, with the reference figures beside it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from loadtests.simulator.table import CONTENDERS, REFERENCE_LOADS, TTFT_SLO_S, Cell, TraceLoad, overflow_table
from loadtests.simulator.trace import NAMES
from spillway_router.core.routing.backlog import Slo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.trace is None and (options.speed != 1.0 or options.limit is not None):
        parser.error("--speed and --limit go with --trace")
    if not (options.speed > 0 and options.slo > 0 and options.tpot_slo > 0) or (
        options.limit is not None and options.limit < 1
    ):
        parser.error("--speed, --slo and --tpot-slo must be above 0, --limit at least 1")
    loads = [TraceLoad(options.trace, options.speed, options.limit)] if options.trace else list(REFERENCE_LOADS)
    cells = overflow_table(options.policy or list(CONTENDERS), loads, options.slo, options.tpot_slo)
    if options.json:
        json.dump([asdict(cell) for cell in cells], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        _print(cells, loads, Slo(options.slo, options.tpot_slo))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulator", description=__doc__)
    add = parser.add_argument
    add("--policy", action="append", choices=tuple(CONTENDERS), help="only this rule (repeatable)")
    add("--trace", choices=NAMES, help="only this trace (default: conv x1, conv x2, code x1)")
    add("--speed", type=float, default=1.0, help="compress the time of --trace by this factor")
    add("--limit", type=int, help="only the first N requests of --trace")
    add("--slo", type=float, default=TTFT_SLO_S, help="TTFT SLO in seconds (default 1)")
    add("--tpot-slo", type=float, default=math.inf, help="SLO in seconds per token after the first (default: none)")
    add("--json", action="store_true", help="print cells as JSON")
    return parser


def _print(cells: Sequence[Cell], loads: Sequence[TraceLoad], slo: Slo) -> None:
    title = f"% of requests sent to cloud / % of local requests past the TTFT SLO of {slo.ttft_s:g} s"
    paced = slo.tpot_s < math.inf
    title += f" / % past {1000 * slo.tpot_s:g} ms per token" if paced else " (in brackets: reference)"
    table = Table(title=title)
    table.add_column("policy")
    table.add_column("asked at")
    for column in loads:
        table.add_column(str(column), justify="right")
    for start in range(0, len(cells), len(loads)):
        row = cells[start : start + len(loads)]
        label = CONTENDERS[row[0].policy].label
        timing = "arrival" if row[0].timing == "arrival" else "end of iteration"
        table.add_row(label, timing, *(_figures(cell, paced=paced) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _figures(cell: Cell, *, paced: bool) -> str:
    text = f"{cell.cloud_percent:.1f} / {cell.miss_percent:.2f}"
    if paced:
        return f"{text} / {cell.pace_miss_percent:.2f}"
    if cell.reference is None:
        return text
    return f"{text}  ({cell.reference.cloud_percent:g} / {cell.reference.miss_percent:g})"


if __name__ == "__main__":
    raise SystemExit(main())
