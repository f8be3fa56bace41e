"""What the scaler pays over four weeks, beside a clairvoyant and beside fixed fleets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from loadtests.fleet.queue import drawn_hours, queued
from loadtests.fleet.weeks import STEP_S, Weeks, weeks_of

from evidence.results import Measurement
from spillway_router.core.fleet.demand import Demand
from spillway_router.core.fleet.hindsight import FleetCost, Outlooks, best_cost, fixed_cost, scaled_cost
from spillway_router.core.fleet.outlook import WeeklyHistory
from spillway_router.core.fleet.scaler import FleetTerms, LayerOutlook

IDS = ("fleet.cost_vs_clairvoyant", "fleet.cost_vs_best_static")
USD_PER_HOUR = 1.39
TERMS = FleetTerms(rent_nano_per_s=USD_PER_HOUR * 1e9 / 3600, cold_start_s=600.0, most=8)
COLD_STARTS_S = (300.0, 600.0, 1200.0, 1800.0)
LEFT_AT_PEAK = 0.001
"""A fleet is one for the peak if at most this share of the requests' price leaves."""
TRUSTED = 0.75
MOST_LATE_PERCENT = 1.0
HOURS_PER_PART = 1
"""Hours that are run request by request, of each quarter of each day of the week."""
HOURS_AHEAD = 1


def fleet(say: Callable[[str], None], weeks: int = 4) -> dict[str, Measurement]:
    """Measure the cost of the scaler as a multiple of the clairvoyant's, and of the better fixed fleet's."""
    say(f"  {weeks} weeks of the conversation trace on a weekday curve")
    conv = weeks_of("conv", weeks)
    scaled = scaled_cost(conv.demands, STEP_S, TERMS)
    best_nano = best_cost(conv.demands, STEP_S, TERMS)
    late = queued("conv", weeks, scaled.serving, drawn_hours(weeks, HOURS_PER_PART))
    one, peak_gpus = fixed_cost(conv.demands, STEP_S, TERMS, 1), _peak(conv.demands)
    peak = fixed_cost(conv.demands, STEP_S, TERMS, peak_gpus)
    static_nano = min(one.total_nano, peak.total_nano)
    details = {
        "scaler": _usd(scaled),
        "clairvoyant_usd": round(best_nano / 1e9, 2),
        "one_gpu": _usd(one),
        f"peak_of_{peak_gpus}_gpus": _usd(peak),
        "every_fixed_fleet_usd": {
            str(gpus): round(fixed_cost(conv.demands, STEP_S, TERMS, gpus).total_nano / 1e9, 2)
            for gpus in range(TERMS.most + 1)
        },
        "requests": conv.requests,
        "mean_and_peak_load_in_gpus": [round(conv.mean_load, 2), round(conv.peak_load, 2)],
        "most_gpus_rented": max(scaled.targets),
        "usd_per_gpu_hour": USD_PER_HOUR,
        "cold_start_s": TERMS.cold_start_s,
        "late": dataclasses.asdict(late),
        "late_percent": round(late.late_percent, 4),
        "late_is": "requests of the drawn hours, run one by one on as many engines as had started then, each with its"
        " queue, by the router's rule; a first token after 1 s is late",
        "clairvoyant": "every start known in advance, its cold start paid but never waited for; by dynamic programming",
        "other_cold_starts": {f"{seconds:g} s": _ratios(conv, seconds) for seconds in COLD_STARTS_S},
        "code_trace": _ratios(weeks_of("code", weeks), TERMS.cold_start_s),
        "with_a_forecast": _with_forecast(conv),
        "simulated": "work and overflow by slots of 5 s; nothing was rented",
    }
    n = len(conv.demands)
    if late.late_percent > MOST_LATE_PERCENT:
        reason = {"reason": f"{late.late_percent:.2f}% of the requests were late", **details}
        return {one_id: Measurement(None, 0, reason) for one_id in IDS}
    return {
        IDS[0]: Measurement(round(scaled.total_nano / best_nano, 4), n, details),
        IDS[1]: Measurement(round(scaled.total_nano / static_nano, 4), n, details),
    }


def outlooks_of(demands: Sequence[Demand], most: int) -> Outlooks:
    """Return the forecast that was known at each step: from the hours before it, and from nothing later."""
    per_hour = int(3600 / STEP_S)
    history, histories = WeeklyHistory(), []
    for hour in range(-(-len(demands) // per_hour)):
        histories.append(history)
        history = history.with_hour(hour, demands[hour * per_hour : (hour + 1) * per_hour], 3600.0, most)

    def outlook(step: int) -> tuple[LayerOutlook, ...]:
        hour = step // per_hour
        return histories[hour].outlook(hour, HOURS_AHEAD, most)

    return outlook


def _peak(demands: Sequence[Demand]) -> int:
    """Return the least number of GPUs with which next to nothing leaves."""
    whole = sum(demand.overflow(0) for demand in demands)
    for gpus in range(TERMS.most + 1):
        if sum(demand.overflow(gpus) for demand in demands) <= LEFT_AT_PEAK * whole:
            return gpus
    return TERMS.most


def _ratios(weeks: Weeks, cold_start_s: float) -> dict[str, float]:
    terms = FleetTerms(rent_nano_per_s=TERMS.rent_nano_per_s, cold_start_s=cold_start_s, most=TERMS.most)
    cost = scaled_cost(weeks.demands, STEP_S, terms)
    static = min(fixed_cost(weeks.demands, STEP_S, terms, gpus).total_nano for gpus in (1, _peak(weeks.demands)))
    return {
        "to_clairvoyant": round(cost.total_nano / best_cost(weeks.demands, STEP_S, terms), 4),
        "to_best_static": round(cost.total_nano / static, 4),
        "starts": cost.starts,
    }


def _with_forecast(weeks: Weeks) -> dict[str, float]:
    terms = FleetTerms(
        rent_nano_per_s=TERMS.rent_nano_per_s, cold_start_s=TERMS.cold_start_s, most=TERMS.most, trust=TRUSTED
    )
    cost = scaled_cost(weeks.demands, STEP_S, terms, outlooks_of(weeks.demands, terms.most))
    return {
        "trust": TRUSTED,
        "to_clairvoyant": round(cost.total_nano / best_cost(weeks.demands, STEP_S, terms), 4),
        "starts": cost.starts,
    }


def _usd(cost: FleetCost) -> dict[str, float]:
    return {
        "total_usd": round(cost.total_nano / 1e9, 2),
        "rent_usd": round(cost.rent_nano / 1e9, 2),
        "overflow_usd": round(cost.overflow_nano / 1e9, 2),
        "starts": cost.starts,
    }
