"""The comparison: many pairs of days, today's traffic lighter or heavier than yesterday's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.pacing.day import draw
from loadtests.pacing.rules import RULES, Setting, optimum, plan_from

LOADS = (0.7, 1.0, 1.5)
"""Today's traffic relative to yesterday's."""
BUDGET_SHARE = 0.25
"""The budget, as a share of what escalating everything would have cost yesterday."""


@dataclass(frozen=True, slots=True)
class PacingOutcome:
    """The gain of one rule over the optimum's for one load: over all days, and on the worst day."""

    rule: str
    load: float
    days: int
    offers: int
    mean: float
    worst: float


def compare(
    rules: Sequence[str], days: int, mean_count: int, loads: Sequence[float] = LOADS, cost_noise: float = 0.0
) -> list[PacingOutcome]:
    """Run every rule under every load on the same days. Pair i has the seed 2i for yesterday and 2i + 1 for today."""
    gains: dict[tuple[str, float], list[float]] = {(rule, load): [] for load in loads for rule in rules}
    offers = dict.fromkeys(loads, 0)
    for i in range(days):
        yesterday = draw(2 * i, mean_count, cost_noise)
        budget = BUDGET_SHARE * sum(c.expected_usd for c in yesterday)
        setting = Setting(plan_from(yesterday, budget), len(yesterday), budget)
        for load in loads:
            today = draw(2 * i + 1, round(mean_count * load), cost_noise)
            offers[load] += len(today)
            best = optimum(setting, today)
            for rule in rules:
                gains[rule, load].append(RULES[rule](setting, today) / best)
    return [
        PacingOutcome(rule=rule, load=load, days=days, offers=offers[load], mean=sum(shares) / days, worst=min(shares))
        for (rule, load), shares in gains.items()
    ]


def worst(outcomes: Sequence[PacingOutcome], rule: str) -> float:
    """Return the rule's share of the optimum on its worst day under any load."""
    return min(o.worst for o in outcomes if o.rule == rule)
