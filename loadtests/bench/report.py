"""The table of a benchmark run."""

from __future__ import annotations

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.bench.scenarios import SCENARIOS

UNRELATED_CORES = 1.2
EVENTS = SCENARIOS["paced200"].events


def show(result: dict[str, Any], console: Console) -> None:
    """Print the result of one run (as in results/latest.json): CPU per request and event, memory, ratios to other
    systems.
    """
    names = [name for name in SCENARIOS if any(name in system["scenarios"] for system in result["systems"].values())]
    table = Table(title="CPU per request (medians)", title_justify="left")
    table.add_column("system")
    table.add_column("version")
    for name in names:
        table.add_column(f"{name}\nus", justify="right")
    if "paced200" in names:
        table.add_column("paced200\nus/event", justify="right")
    table.add_column("idle RSS\nMiB", justify="right")
    for name, system in result["systems"].items():
        figures = [_figure(system["scenarios"].get(scenario)) for scenario in names]
        paced = system["scenarios"].get("paced200", {}).get("cpu_us_per_request")
        if "paced200" in names:
            figures.append(f"{paced / EVENTS:.1f}" if paced else "-")
        table.add_row(name, system["version"], *figures, f"{system['idle_rss_mib']:.0f}")
    console.print(table)
    if any(samples["errors"] for system in result["systems"].values() for samples in system["scenarios"].values()):
        console.print("* some answers failed or were incomplete; the errors are in the result file", highlight=False)
    _ratios(result, names, console)
    for name, reason in result["skipped"].items():
        console.print(f"skipped {name}: {reason}", highlight=False)
    busy = [
        value
        for system in result["systems"].values()
        for samples in system["scenarios"].values()
        for value in samples["others_busy_cores"]
    ]
    # Stub and load generator share one core; anything above that belongs to unrelated processes.
    if busy and max(busy) > UNRELATED_CORES:
        console.print(
            f"Other processes kept up to {max(busy):.1f} cores busy (1 is the benchmark's own): on a busy machine "
            "single requests cost more and streams less, since their events arrive in groups. Compare ratios only.",
            highlight=False,
        )
    if result["quick"]:
        console.print("Short loads (--quick): good for a first look, too short to quote.", highlight=False)


def ratio(result: dict[str, Any], ours: str, peer: str, scenario: str) -> float | None:
    """Return the CPU per request of `ours` divided by that of `peer`; None where one is missing or
    completed nothing.
    """
    figures = [
        result["systems"].get(name, {}).get("scenarios", {}).get(scenario, {}).get("cpu_us_per_request")
        for name in (ours, peer)
    ]
    return figures[0] / figures[1] if figures[0] and figures[1] else None


def paired_ratio(result: dict[str, Any], ours: str, peer: str, scenario: str) -> float | None:
    """Return the median, over all pairs of neighbouring loads of a run in turns, of the CPU per request of `ours`
    divided by that of `peer`; None where one is missing or failed."""
    both = [result["systems"].get(name, {}).get("scenarios", {}).get(scenario, {}) for name in (ours, peer)]
    if not all(one.get("held") for one in both):
        return None
    ratios = [mine / theirs for mine, theirs in zip(both[0]["rounds"], both[1]["rounds"], strict=True)]
    return statistics.median(ratios) if ratios else None


def memory_ratio(result: dict[str, Any], ours: str, peer: str) -> float | None:
    """Return the idle resident memory of `ours` divided by that of `peer`; None where one is missing."""
    figures = [result["systems"].get(name, {}).get("idle_rss_mib") for name in (ours, peer)]
    return figures[0] / figures[1] if figures[0] and figures[1] else None


def _figure(samples: dict[str, Any] | None) -> str:
    if samples is None:
        return "-"
    if samples["cpu_us_per_request"] is None:
        return "not held*"
    return f"{samples['cpu_us_per_request']:,.0f}" + ("*" if samples["errors"] else "")


def _ratios(result: dict[str, Any], names: list[str], console: Console) -> None:
    for peer in ("baseline", "vllm-router", "litellm", "litellm-1.80", "nginx"):
        shown = []
        for name in names:
            value = ratio(result, "spillway", peer, name)
            if value is not None:
                shown.append(f"{name} {value:.3g}x")
        if peer == "baseline" and (value := memory_ratio(result, "spillway", peer)):
            shown.append(f"idle RSS {value:.3g}x")
        if shown:
            console.print(f"spillway / {peer}: {', '.join(shown)}", highlight=False)
