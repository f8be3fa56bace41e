"""The command `python -m conformance`: it runs the suites and writes conformance/results/<suite>.json and the page.

The exit status is 0 when every suite ran and every failure has a reason, 1 when a failure has none or a reason has no
failure, 2 for a wrong command line, and 3 when a suite can't run on this machine.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loadtests.bench import machine

from conformance.model import NotRunError, Suite
from conformance.page import PAGE, render
from conformance.reasons import load_rules, stale
from conformance.registry import SUITES
from conformance.results import Circumstances, Result, judge, read_results, reexplain, write_result
from spillway_router.commands.common import version

EXPLAINED, UNEXPLAINED, WRONG_COMMAND, NOT_RUN = 0, 1, 2, 3
_SHOWN_FAILURES = 20


def run_suite(suite: Suite, folder: Path, say: Callable[[str], None]) -> int:
    """Run one suite, write its result and return its exit status."""
    say(f"{suite.name}: {suite.about}")
    try:
        run = suite.run(folder, say)
    except NotRunError as error:
        say(f"  not run: {error}")
        return NOT_RUN
    rules = load_rules(suite.name)
    result = judge(suite, run, rules, _circumstances(run.versions))
    write_result(result)
    say(f"  {_summary(result)}")
    unexplained = result.unexplained()
    for failure in unexplained[:_SHOWN_FAILURES]:
        say(f"  no reason: {failure.test} (directly {failure.direct or 'not run'}): {failure.message}")
    if len(unexplained) > _SHOWN_FAILURES:
        say(f"  no reason: {len(unexplained) - _SHOWN_FAILURES} more; the result has them all")
    left = stale(rules, (failure.reason for failure in result.failures))
    for rule in left:
        say(f"  a reason without a failure: {rule.tests.pattern!r}, {rule.reason}")
    return UNEXPLAINED if unexplained or left else EXPLAINED


def _summary(result: Result) -> str:
    ways = [("directly", result.direct), ("through the router", result.routed)]
    parts = [f"{way} {c.passed} passed, {c.failed} failed, {c.skipped} skipped" for way, c in ways if c is not None]
    return "; ".join([*parts, f"{result.new} new"])


def _circumstances(versions: Mapping[str, str]) -> Circumstances:
    here = machine.describe()
    return Circumstances(
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        machine=f"{here['cpu']}, {here['cores']} cores, Python {here['python']}",
        versions={**versions, "spillway": _spillway_version()},
    )


def _spillway_version() -> str:
    root = Path(__file__).resolve().parents[1]
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=20, check=False
    )
    return f"{version()} ({shown.stdout.strip()})" if shown.returncode == 0 else version()


def publish(suites: Sequence[Suite] = SUITES) -> None:
    """Judge the published results by today's reasons and write the page."""
    results = {}
    for name, published in read_results(suite.name for suite in suites).items():
        results[name] = reexplain(published, load_rules(name))
        if results[name] != published:
            write_result(results[name])
    PAGE.write_text(render(suites, results), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="NAME", help="only the suites whose name begins with NAME")
    parser.add_argument("--list", action="store_true", help="list the suites; run nothing")
    parser.add_argument(
        "--page", action="store_true", help="judge the published results by today's reasons, write the page"
    )
    options = parser.parse_args(arguments)
    chosen = [suite for suite in SUITES if suite.name.startswith(options.only)]
    if not chosen:
        print(f"No suite's name begins with {options.only!r}; see --list.", file=sys.stderr)
        return WRONG_COMMAND
    if options.list:
        print("\n".join(f"{suite.name:20} {suite.about}; {suite.upstream}" for suite in chosen))
        return EXPLAINED
    statuses = [] if options.page else [_in_scratch(suite) for suite in chosen]
    publish()
    return next((status for status in (UNEXPLAINED, NOT_RUN) if status in statuses), EXPLAINED)


def _in_scratch(suite: Suite) -> int:
    with tempfile.TemporaryDirectory(prefix=f"conformance-{suite.name}-") as folder:
        return run_suite(suite, Path(folder), lambda line: print(line, flush=True))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the started processes, as on Ctrl-C
    sys.exit(main(sys.argv[1:]))
