"""docs/evidence.md, made from the result files: what holds, what falls short, what nobody measured yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from evidence.promises import Promise
from evidence.results import Result

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"

_HEAD = """# Evidence

<!-- Written by `python -m evidence --page` from evidence/results/*.json: measure again instead of editing. -->

Every promise with a number, and what was measured. `make evidence` measures all of them again, `make evidence
ONLY=bench` those whose id begins with `bench`; `evidence/results/<id>.json` has samples, versions and machine.
"""


def status(promise: Promise, result: Result | None) -> str:
    """`held`, `falls short`, or `not measured yet`, by today's bound and the published value."""
    if result is None:
        return "not measured yet"
    return "held" if promise.holds(result.value, result.n) else "falls short"


def render(promises: Mapping[str, Promise], results: Mapping[str, Result]) -> str:
    """The whole page as Markdown."""
    states = {name: status(promise, results.get(name)) for name, promise in promises.items()}
    counts = {state: list(states.values()).count(state) for state in ("held", "falls short", "not measured yet")}
    lines = [_HEAD, ", ".join(f"{count} {state}" for state, count in counts.items()) + ".", ""]
    for step in sorted({promise.step for promise in promises.values()}):
        mine = [promise for promise in promises.values() if promise.step == step]
        lines += [f"## Step {step}", "", *_table(mine, results, states), ""]
    lines += _shortfalls(promises, results, states)
    lines += _machines(results.values())
    return "\n".join(lines).rstrip() + "\n"


def _table(promises: Iterable[Promise], results: Mapping[str, Result], states: Mapping[str, str]) -> list[str]:
    rows = ["| id | what | promised | measured | n | status |", "|---|---|---|---|---|---|"]
    for promise in promises:
        result = results.get(promise.id)
        measured, n = ("", "") if result is None else (_value(result), str(result.n))
        state = states[promise.id]
        shown = f"**{state}**" if state == "falls short" else state
        cells = (f"`{promise.id}`", promise.what or "-", promise.bound_text, measured, n, shown)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _value(result: Result) -> str:
    return "no value" if result.value is None else f"{result.value:,.6g}"


def _shortfalls(promises: Mapping[str, Promise], results: Mapping[str, Result], states: Mapping[str, str]) -> list[str]:
    short = [name for name, state in states.items() if state == "falls short"]
    if not short:
        return []
    lines = ["## What falls short", ""]
    for name in short:
        promise, result = promises[name], results[name]
        reason = result.details.get("reason")
        text = f"- `{name}`: promised {promise.bound_text}, measured {_value(result)} (n {result.n})"
        if result.n < promise.min_n:
            text += f", on fewer than {promise.min_n} samples"
        lines.append(text + (f". {' '.join(str(reason).split())}" if reason else "."))
    return [*lines, ""]


def _machines(results: Iterable[Result]) -> list[str]:
    rows: dict[str, list[str]] = {}
    for result in results:
        machine = result.machine
        text = f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_mib')} MiB"
        rows.setdefault(f"{text}, {result.date[:10]}", []).append(f"`{result.id}`")
    if not rows:
        return []
    return ["## Measured on", "", *(f"- {machine}: {', '.join(ids)}" for machine, ids in rows.items())]
