"""The generator of docs/conformance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from conformance.model import Suite
from conformance.results import Counts, Failure, Result

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conformance.md"
BLAMED: Mapping[str, str] = {
    "router": "a fault of the router, not mended yet",
    "not offered": "the router does not have this route or function",
    "decision": "the router behaves so on purpose",
    "upstream": "the upstream behind the router fails it too, or causes it",
    "suite": "the suite asks what no server promises, or its example value is invalid",
    "machine": "the machine lacks what the test needs",
    "": "unexplained",
}
"""What each word of `blame` means to a reader."""
_HEAD = """# Conformance

<!-- Written by `python -m conformance --page` from conformance/results/*.json. Run a suite instead of editing. -->

Other projects wrote test suites for their own clients and servers. `make conformance` runs them against Spillway: once
directly against an upstream, and once through the router in front of the same upstream. What counts is the difference:
a test that passes directly and fails through the router (column *new*).

`make conformance ONLY=openai-python` runs one suite. The sources of the suites are fetched when they run and are not
part of this repository; a machine that cannot reach them gets them from a folder that `SPILLWAY_CONFORMANCE_SOURCES`
names, and a suite that cannot run says so and keeps its last result. Every failure has a reason in
`conformance/reasons`; a failure without one, and a reason without a failure, fail the run.
"""


def render(suites: Sequence[Suite], results: Mapping[str, Result]) -> str:
    """Return the whole page as Markdown."""
    lines = [_HEAD]
    lines += ["| suite | versions | upstream | directly | through the router | new |", "|---|---|---|---|---|---|"]
    lines += [_suite_row(suite, results.get(suite.name)) for suite in suites]
    lines += [
        "",
        "Counts are tests passed / failed / skipped.",
        "",
        "## Reasons",
        "",
        "| blame | meaning |",
        "|---|---|",
    ]
    lines += [_row(blame or "none", meaning) for blame, meaning in BLAMED.items() if blame]
    lines.append("")
    for suite in suites:
        if suite.name in results:
            lines += _suite_section(results[suite.name])
    return "\n".join(lines).rstrip() + "\n"


def _suite_row(suite: Suite, result: Result | None) -> str:
    if result is None:
        return _row(f"{suite.name}: {suite.about}", "", suite.upstream, "never run", "never run", "")
    versions = ", ".join(f"{name} {version}" for name, version in result.taken.versions.items() if name != "spillway")
    direct = "the suite judges what only the router has" if result.direct is None else _counts(result.direct)
    new = "" if result.direct is None else str(result.new)
    return _row(
        f"[{suite.name}](#{suite.name}): {suite.about}", versions, suite.upstream, direct, _counts(result.routed), new
    )


def _suite_section(result: Result) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result.taken.versions.items())
    lines = [f"## {result.suite}", "", f"Run on {result.taken.date[:10]} on {result.taken.machine}: {versions}.", ""]
    if result.failures:
        lines += [
            "| tests | directly | routed | blame | reason | for example |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_reason_row(group) for group in _by_reason(result.failures)]
    else:
        lines.append("Every test passes in both ways.")
    lines.append("")
    if result.skips:
        lines += ["| skipped | why |", "|---|---|", *(_row(str(n), why) for why, n in result.skips.items()), ""]
    return lines


def _by_reason(failures: Iterable[Failure]) -> list[list[Failure]]:
    """Group failures with the same reason and the same pair of verdicts; the new ones come first."""
    groups: dict[tuple[str, ...], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.blame, failure.reason, failure.direct, failure.routed), []).append(failure)
    return sorted(groups.values(), key=lambda group: (group[0].direct != "passed", -len(group)))


def _reason_row(group: Sequence[Failure]) -> str:
    first = group[0]
    verdicts = (first.direct or "not run", first.routed or "not run")
    return _row(str(len(group)), *verdicts, first.blame or "none", first.reason or BLAMED[""], f"`{first.test}`")


def _counts(counts: Counts) -> str:
    return f"{counts.passed} / {counts.failed} / {counts.skipped}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
