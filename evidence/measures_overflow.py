"""The overflow rule on both traces, in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.simulator.table import REFERENCE_LOADS, TTFT_SLO_S, Cell, TraceLoad, overflow_table

from evidence.results import Measurement

# The rule of the reference table, with its timing and margin.
RULE = "backlog"
# The same rule as a live router runs it, for the details: asked at arrival, with rates from its own TTFTs.
BESIDE = ("backlog-at-arrival", "backlog-router", "backlog-router-m95", "backlog-router-learned", "always-local")
IDS = tuple(f"overflow.{load}_{figure}" for load in ("conv_x1", "conv_x2", "code_x1") for figure in ("misses", "cloud"))


def overflow(
    say: Callable[[str], None],
    rule: str = RULE,
    loads: Sequence[TraceLoad] = REFERENCE_LOADS,
    beside: Sequence[str] = BESIDE,
) -> dict[str, Measurement]:
    """Measure per load: percent of requests sent to the cloud, percent of the local ones past the TTFT SLO."""
    say(f"  {rule} and {len(beside)} rules beside it on {len(loads)} loads")
    cells = overflow_table([rule, *beside], loads, TTFT_SLO_S)
    measurements: dict[str, Measurement] = {}
    for cell in cells:
        if cell.policy != rule:
            continue
        name = f"overflow.{cell.trace}_x{cell.speed:g}"
        same = [other for other in cells if (other.trace, other.speed) == (cell.trace, cell.speed)]
        measurements[f"{name}_misses"] = _measurement(cell, cell.miss_percent, cell.local, same)
        measurements[f"{name}_cloud"] = _measurement(cell, cell.cloud_percent, cell.requests, same)
    return measurements


def _measurement(cell: Cell, value: float, n: int, same: Sequence[Cell]) -> Measurement:
    beside = {
        other.policy: {"cloud_percent": round(other.cloud_percent, 3), "miss_percent": round(other.miss_percent, 3)}
        for other in same
    }
    details = {
        "rule": cell.policy,
        "timing": cell.timing,
        "slo_ttft_s": TTFT_SLO_S,
        "p99_ttft_local_s": round(cell.p99_ttft_s, 3),
        "reference": None
        if cell.reference is None
        else {"cloud_percent": cell.reference.cloud_percent, "miss_percent": cell.reference.miss_percent},
        "rules": beside,
        "simulated": "no engine ran; step times of an A100 with an 8B model",
    }
    return Measurement(round(value, 4), n, details)
