"""The generator of docs/evidence.md: what was measured, what fails, and what is promised but not measured yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from evidence.promises import Promise
from evidence.results import Result

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"

HELD, FAILING, NOT_MEASURED = "held", "failing", "not measured yet"

# The headings of the page in their order, each with the beginnings (up to the dot) of the ids below it.
TOPICS: Mapping[str, tuple[str, ...]] = {
    "Overhead of the router": ("bench", "relay"),
    "Overflow": ("overflow",),
    "Money": ("ledger", "budget", "accounting", "report", "money"),
    "Confidence": ("confidence",),
    "Models and conversion": ("convert", "models"),
    "Documents": ("documents",),
    "Demo": ("demo", "demo_model"),
    "Deployment and several machines": ("deploy", "scaleout", "loadtest", "fleet", "engine"),
    "Failures on the wire": ("stream", "failover", "retry", "wire"),
    "Privacy, security and overload": ("privacy", "security", "overload", "leaks", "trust"),
    "Routing policy": ("policy", "replay"),
    "Dashboard and first use": ("dashboard", "docs", "newcomer", "use"),
}

_HEAD = """# Evidence

<!-- Written by `python -m evidence --page` from evidence/results/*.json. Measure again instead of editing. -->

Spillway states its promises as numbers. This page shows the result of every promise that a command measures, the
failing ones included. The promises that no command measures yet are listed apart from them, at the end.

To reproduce the results, run `make evidence` for all of them or `make evidence ONLY=bench` for those whose id begins
with `bench`. One measurement writes `evidence/results/<id>.json` with its samples, software versions and machine.
`python -m evidence --list` prints the same overview in the terminal. Whether a promise is held is computed from the
published value, its number of samples `n` and the current bound in `evidence/promises.json`.
"""


def status(promise: Promise, result: Result | None) -> str:
    """Return `held`, `failing` or `not measured yet`, by today's bound and the published value."""
    if result is None:
        return NOT_MEASURED
    return HELD if promise.holds(result.value, result.n) else FAILING


def topic(promise: Promise) -> str:
    """Return the heading below which the page shows the promise.

    Raises:
        ValueError: no heading lists the beginning of the promise's id.
    """
    beginning = promise.id.partition(".")[0]
    for heading, beginnings in TOPICS.items():
        if beginning in beginnings:
            return heading
    raise ValueError(f"{promise.id}: no topic of the evidence page lists {beginning!r}")


def render(promises: Mapping[str, Promise], results: Mapping[str, Result]) -> str:
    """Return the whole page as Markdown."""
    measured = [promise for promise in promises.values() if promise.id in results]
    planned = [promise for promise in promises.values() if promise.id not in results]
    failing = [promise for promise in measured if status(promise, results[promise.id]) == FAILING]
    lines = [
        _HEAD,
        f"{len(measured)} promises are measured: {len(measured) - len(failing)} are held, {len(failing)} are failing. "
        f"{len(planned)} more are promised and not measured yet.",
        "",
        *_failing(failing, results),
        *_measured(measured, results),
        *_planned(planned),
        *_machines(results.values()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _failing(failing: Iterable[Promise], results: Mapping[str, Result]) -> list[str]:
    lines = []
    for promise in failing:
        result = results[promise.id]
        text = f"- `{promise.id}`: promised {promise.bound_text}, measured {_value(result)} (n {result.n})"
        if result.n < promise.min_n:
            text += f", on fewer than {promise.min_n} samples"
        reason = result.details.get("reason")
        lines.append(text + (f". {' '.join(str(reason).split())}" if reason else "."))
    return ["## Failing", "", *lines, ""] if lines else []


def _measured(measured: Iterable[Promise], results: Mapping[str, Result]) -> list[str]:
    lines = ["## Measured", ""]
    for heading, group in _by_topic(measured):
        lines += [
            f"### {heading}",
            "",
            "| id | what | promised | measured | n | date | result |",
            "|---|---|---|---|---|---|---|",
        ]
        for promise in group:
            result = results[promise.id]
            state = status(promise, result)
            shown = f"**{state}**" if state == FAILING else state
            lines.append(
                _row(
                    f"`{promise.id}`",
                    promise.what,
                    promise.bound_text,
                    _value(result),
                    f"{result.n:,}",
                    result.date[:10],
                    shown,
                )
            )
        lines.append("")
    return lines


def _planned(planned: Iterable[Promise]) -> list[str]:
    lines = [
        "## Promised, not measured yet",
        "",
        "No command measures these promises today. Some concern features that do not exist yet, such as the dashboard.",
        "",
    ]
    for heading, group in _by_topic(planned):
        lines += [f"### {heading}: not measured", "", "| id | what | promised | smallest n |", "|---|---|---|---|"]
        lines += [_row(f"`{p.id}`", p.what, p.bound_text, f"{p.min_n:,}") for p in group]
        lines.append("")
    return lines


def _by_topic(promises: Iterable[Promise]) -> list[tuple[str, list[Promise]]]:
    groups: dict[str, list[Promise]] = {heading: [] for heading in TOPICS}
    for promise in promises:
        groups[topic(promise)].append(promise)
    return [(heading, group) for heading, group in groups.items() if group]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(result: Result) -> str:
    return "no value" if result.value is None else f"{result.value:,.6g}"


def _machines(results: Iterable[Result]) -> list[str]:
    counts: dict[str, int] = {}
    for result in results:
        machine = result.machine
        text = f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_mib')} MiB"
        counts[text] = counts.get(text, 0) + 1
    return ["## Machines", "", *(f"- {text}: {count} results" for text, count in counts.items())] if counts else []
