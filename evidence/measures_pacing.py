"""What pacing gains from a budget, against the best that was possible in hindsight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.pacing.compare import BUDGET_SHARE, LOADS, PacingOutcome, compare, worst

from evidence.results import Measurement
from spillway_router.core.money.pacing import STIFFNESS

IDS = ("budget.pacing_vs_optimum_min",)
RULE = "plan-tracking"
BESIDE = ("dual-descent", "first-come", "blind")
DAYS, OFFERS = 20, 10_000
COST_NOISE = 0.3
"""For the details: what is lost when the better answer's length is known only afterwards."""


def pacing(
    say: Callable[[str], None],
    rule: str = RULE,
    beside: Sequence[str] = BESIDE,
    days: int = DAYS,
    offers: int = OFFERS,
) -> dict[str, Measurement]:
    """Measure the worst day of all loads: gain over that of the fractional knapsack over the whole day, known in
    advance.
    """
    say(f"  {rule} and {len(beside)} rules beside it, {days} pairs of days, {len(LOADS)} loads")
    sharp = compare([rule, *beside], days, offers)
    noisy = compare([rule, *beside], days, offers, cost_noise=COST_NOISE)
    details = {
        "rule": rule,
        "stiffness": STIFFNESS,
        "budget": f"{BUDGET_SHARE:g} of what escalating everything would have cost yesterday",
        "offers_per_day": offers,
        "days": days,
        "mean_of_days_then_worst_day": _shares(sharp),
        "the_same_with_costs_known_only_afterwards": {
            "log_std_of_actual_over_expected_cost": COST_NOISE,
            "note": "the optimum knows the actual costs, which no rule can",
            **_shares(noisy),
        },
        "simulated": "sizes from the conversation trace, times and gains drawn from a seed; no engine ran",
    }
    return {IDS[0]: Measurement(round(worst(sharp, rule), 4), days * len(LOADS), details)}


def _shares(outcomes: Sequence[PacingOutcome]) -> dict[str, dict[str, list[float]]]:
    shares: dict[str, dict[str, list[float]]] = {}
    for o in outcomes:
        shares.setdefault(o.rule, {})[f"x{o.load:g}"] = [round(o.mean, 4), round(o.worst, 4)]
    return shares
