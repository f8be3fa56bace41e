"""Pacing: spend a budget where it buys most, instead of on the first requests that come.

Each chance to escalate is an offer: a gain (the chance that the answer gets better, 0 to 1) for a cost in USD. If all
offers of a period were known in advance, the best use of a budget B would be to take them by gain per dollar until the
money is gone (Dantzig's greedy bound of the knapsack). That is equivalent to one price lambda, in gain per dollar:

    escalate when gain > lambda * cost

The right lambda is known only at the end of the period, so it starts as yesterday's and follows the spending:

    lambda(t) = lambda_yesterday * exp(15 * (spent / B - plan(t)))

`plan(t)` is the share of the budget that should be spent at t, from yesterday's spending at yesterday's lambda. Ahead
of the plan the price rises and only the best offers pass; behind the plan it falls. The factor 15 is a measured
compromise between a price that oscillates and one that reacts too late (loadtests/pacing compares it with the offline
optimum).

The module is pure. Money is USD as float here, because prices of gain are estimates; the exact caps are enforced
elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

STIFFNESS = 15.0
"""How strongly the price follows the distance from the plan: by e^1.5, about 4.5 times, per tenth of the budget."""

BINS = 48
"""Steps of a day's spend curve, each half an hour."""

_MOST_EXPONENT = 40.0  # reached only if a provider bills far over the cap


@dataclass(frozen=True, slots=True)
class SpendOffer:
    """A chance to spend: at which time in the period (0 to 1), for how much gain (0 to 1), at which cost."""

    at: float
    gain: float
    cost_usd: float

    @property
    def density(self) -> float:
        """Gain per USD; infinite if the offer is free."""
        return self.gain / self.cost_usd if self.cost_usd > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Spend:
    """Spending that pacing doesn't control (overflow, fallback): at which time in the period (0 to 1), and how much."""

    at: float
    usd: float


@dataclass(frozen=True, slots=True)
class SpendCurve:
    """The share of the budget spent at equally spaced times, rising from 0 at the start to 1 at the end."""

    shares: tuple[float, ...] = (0.0, 1.0)

    def at(self, when: float) -> float:
        """Return the share at `when` (0 to 1 of the period), interpolated linearly."""
        place = min(1.0, max(0.0, when)) * (len(self.shares) - 1)
        left = min(int(place), len(self.shares) - 2)
        low, high = self.shares[left], self.shares[left + 1]
        return low + (high - low) * (place - left)


UNIFORM = SpendCurve()


@dataclass(frozen=True, slots=True)
class PacingPlan:
    """The plan of a period: the price in gain per USD (0: nothing is known, so everything is worth it), and the
    curve."""

    price: float = 0.0
    curve: SpendCurve = UNIFORM


def threshold_price(offers: Iterable[SpendOffer], budget_usd: float) -> float:
    """Return the gain per USD that would just have used up the budget: that of the first offer that doesn't fit.

    If all offers fit, it is the lowest offer's; if none fits, the highest one's. It is 0 only if no offer costs money,
    because a price of 0 could never rise.
    """
    costly = sorted((o for o in offers if o.gain > 0 and o.cost_usd > 0), key=lambda o: -o.density)
    if not costly:
        return 0.0
    sums = list(accumulate(o.cost_usd for o in costly))
    return costly[min(bisect_right(sums, budget_usd), len(costly) - 1)].density


def curve_of(spends: Iterable[Spend], bins: int = BINS) -> SpendCurve:
    """Return the normalised spend curve of a period; uniform if nothing was spent."""
    sums = [0.0] * bins
    for spend in spends:
        sums[min(bins - 1, max(0, int(spend.at * bins)))] += spend.usd
    total = sum(sums)
    if total <= 0:
        return UNIFORM
    return SpendCurve((0.0, *(min(1.0, part / total) for part in accumulate(sums))))


def repeated(curve: SpendCurve, times: int) -> SpendCurve:
    """Return a curve that repeats another one, such as a month's curve from a day's."""
    points = [(i + share) / times for i in range(times) for share in curve.shares[1:]]
    return SpendCurve((0.0, *points))


def plan_for(offers: Sequence[SpendOffer], others: Sequence[Spend], budget_usd: float) -> PacingPlan:
    """Return the plan of a period, from the offers and the other spending of the period before it.

    The price is the threshold price for the part of this budget that the other spending would have left; the curve is
    that of both together.
    """
    price = threshold_price(offers, budget_usd - sum(s.usd for s in others))
    accepted = [Spend(o.at, o.cost_usd) for o in offers if o.density >= price]
    return PacingPlan(price, curve_of([*others, *accepted]))


def price_now(plan: PacingPlan, spent_share: float, when: float, stiffness: float = STIFFNESS) -> float:
    """Return lambda, the gain per USD that an offer must bring, with `spent_share` of the budget spent at `when` (0 to
    1)."""
    distance = stiffness * (spent_share - plan.curve.at(when))
    return plan.price * math.exp(min(_MOST_EXPONENT, max(-_MOST_EXPONENT, distance)))


def worth(gain: float, cost_usd: float, price: float) -> bool:
    """Return whether the gain is worth its cost at this price; a free offer always is."""
    return cost_usd <= 0 or gain / cost_usd > price
