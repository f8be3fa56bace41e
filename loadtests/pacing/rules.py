"""Rules that spend a day's budget, and the best that any rule could have done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loadtests.pacing.day import Chance
from spillway_router.core.money.pacing import PacingPlan, SpendOffer, plan_for, price_now, worth

REFRESH = 5 / 86_400
"""The price is recomputed every 5 seconds of the day: a rule must hold even if the router sees its spending late."""

_MOST_SHARES = 100.0  # one very long document must not push the price out of range


@dataclass(frozen=True, slots=True)
class Setting:
    """What a rule knows when the day begins: yesterday's plan and number of offers, and today's budget in USD."""

    plan: PacingPlan
    offers: int
    budget_usd: float


Rule = Callable[[Setting, Sequence[Chance]], float]


def plan_from(yesterday: Sequence[Chance], budget_usd: float) -> PacingPlan:
    """Return yesterday's plan as the router makes it from its ledger."""
    return plan_for([SpendOffer(c.at, c.gain, c.expected_usd) for c in yesterday], (), budget_usd)


def plan_tracking(setting: Setting, today: Sequence[Chance]) -> float:
    """Follow the plan as core/money/pacing.py does: the price depends on the distance from the plan."""
    return _spend(setting, today, lambda when, spent: price_now(setting.plan, spent, when))


def blind(setting: Setting, today: Sequence[Chance]) -> float:
    """Use yesterday's price all day, whatever was spent (a seeded fault)."""
    return _spend(setting, today, lambda _when, _spent: setting.plan.price)


def first_come(setting: Setting, today: Sequence[Chance]) -> float:
    """Escalate everything until the money is spent, without pacing."""
    return _spend(setting, today, lambda _when, _spent: 0.0)


def dual_descent(setting: Setting, today: Sequence[Chance]) -> float:
    """Run online dual mirror descent (Balseiro, Lu, Mirrokni).

    The price moves with each offer by its cost, against an even share of the budget for each of as many offers as
    yesterday; it starts at yesterday's price.
    """
    share = setting.budget_usd / setting.offers
    price = setting.plan.price
    step = setting.offers**-0.5
    left, value = setting.budget_usd, 0.0
    for chance in today:
        taken = worth(chance.gain, chance.expected_usd, price) and chance.actual_usd <= left
        if taken:
            left -= chance.actual_usd
            value += chance.gain
        spent = chance.actual_usd if taken else 0.0
        price *= math.exp(step * min(_MOST_SHARES, spent / share - 1))
    return value


def optimum(setting: Setting, today: Sequence[Chance]) -> float:
    """Return an upper bound of any rule: the fractional knapsack over today's actual costs, known in advance."""
    left, value = setting.budget_usd, 0.0
    for chance in sorted(today, key=lambda c: -c.gain / c.actual_usd):
        if chance.actual_usd > left:
            return value + chance.gain * left / chance.actual_usd
        left -= chance.actual_usd
        value += chance.gain
    return value


def _spend(setting: Setting, today: Sequence[Chance], price_at: Callable[[float, float], float]) -> float:
    """Return the gain of a day at prices that `price_at` gives for (time, share of the budget
    spent), every 5 seconds.
    """
    left, value, price, due = setting.budget_usd, 0.0, 0.0, 0.0
    for chance in today:
        if chance.at >= due:
            price = price_at(chance.at, 1 - left / setting.budget_usd)
            due = chance.at + REFRESH
        if worth(chance.gain, chance.expected_usd, price) and chance.actual_usd <= left:
            left -= chance.actual_usd
            value += chance.gain
    return value


RULES: Mapping[str, Rule] = MappingProxyType(
    {"plan-tracking": plan_tracking, "dual-descent": dual_descent, "first-come": first_come, "blind": blind}
)
