"""`python -m loadtests.bench`: CPU per request of our router beside other proxies, on this machine.

Writes loadtests/bench/results/latest.json (with --quick, --baseline or a selection: results/partial.json, which git
ignores). Compare two checkouts of Spillway, both installed and compiled, in one run:

    python -m loadtests.bench --systems spillway --baseline DIR --only ns32,paced200 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from loadtests.bench.report import show
from loadtests.bench.run import BenchPlan, measure
from loadtests.bench.scenarios import SCENARIOS
from loadtests.bench.systems import SYSTEMS, Baseline, System

RESULTS = Path(__file__).with_name("results")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", help=f"comma-separated, of: {', '.join(SYSTEMS)}")
    parser.add_argument("--only", help=f"scenarios, comma-separated, of: {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that medians are taken over (default 3)")
    parser.add_argument("--quick", action="store_true", help="one short round (about 2 minutes)")
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="DIR",
        help="another checkout of Spillway with its own .venv, measured in the same run as the system `baseline`",
    )
    parser.add_argument("--output", type=Path, help="where to write the result")
    return parser.parse_args(arguments)


def _chosen(text: str | None, choices: dict[str, object], what: str) -> list[str]:
    names = text.split(",") if text else list(choices)
    for name in names:
        if name not in choices:
            sys.exit(f"unknown {what} {name!r}; choose from: {', '.join(choices)}")
    return names


def main(arguments: list[str]) -> int:
    """Run the benchmark; return 0 when Spillway was measured without an error, or was not asked for."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end every started process, as Ctrl-C does
    systems = _chosen(options.systems, dict(SYSTEMS), "system")
    scenarios = _chosen(options.only, dict(SCENARIOS), "scenario")
    rounds = 1 if options.quick else max(1, options.rounds)
    whole = not (options.quick or options.systems or options.only or options.baseline)
    output = options.output or RESULTS / ("latest.json" if whole else "partial.json")
    console = Console()
    measured: list[System] = [SYSTEMS[name] for name in systems]
    if options.baseline:
        measured.append(Baseline(options.baseline))
    plan = BenchPlan(measured, [SCENARIOS[name] for name in scenarios], rounds, options.quick)
    result = measure(plan, lambda line: console.print(line, highlight=False, style="dim")).as_json()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    show(result, console)
    console.print(f"written to {output}", highlight=False)
    ours = result["systems"].get("spillway")
    if "spillway" not in systems:
        return 0
    return 0 if ours and not any(samples["errors"] for samples in ours["scenarios"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
