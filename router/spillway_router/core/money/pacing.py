"""Pacing: spend a budget where it buys most, instead of on whoever comes first.

Each chance to escalate is an offer: a gain (the chance that the answer gets better, 0 to 1) for a cost in USD. With all
offers of a period known in advance, the best use of a budget B is to take them by gain per dollar until the money is
gone (Dantzig's greedy bound of the knapsack). That is the same as one price lambda, in gain per dollar:

    escalate when gain > lambda * cost

What lambda should be is known only at the period's end, so it starts as yesterday's and follows the spending:

    lambda(t) = lambda_yesterday * exp(15 * (spent / B - plan(t)))

`plan(t)` is the share of the budget that should be gone at t, from yesterday's spending at yesterday's lambda. Ahead of
the plan the price rises and only the best offers pass; behind it the price falls. The 15 is a measured compromise
between a price that swings and one that follows too late (loadtests/pacing compares it with the offline optimum).

Pure: money is USD as float here, because prices of gain are estimates. Caps are exact and are held elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

STIFFNESS = 15.0
"""How hard the price follows the distance from the plan: e^1.5, about 4.5 times, for a tenth of the budget."""

BINS = 48
"""Steps of a day's spend curve: half hours."""

_MOST = 40.0  # bounds the exponent where a provider billed far over the cap


@dataclass(frozen=True, slots=True)
class SpendOffer:
    """A chance to spend: when in the period (0 to 1), how much better the answer gets (0 to 1), for how many USD."""

    at: float
    gain: float
    cost_usd: float

    @property
    def density(self) -> float:
        """Gain per USD; infinite for what is free."""
        return self.gain / self.cost_usd if self.cost_usd > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Spend:
    """Money that pacing has no say in (overflow, fallback): when in the period (0 to 1), how many USD."""

    at: float
    usd: float


@dataclass(frozen=True, slots=True)
class SpendCurve:
    """Share of the budget gone at equally spaced times: from 0 at the start to 1 at the end, never falling."""

    shares: tuple[float, ...] = (0.0, 1.0)

    def at(self, when: float) -> float:
        """The share at `when` (0 to 1 of the period), straight lines between the points."""
        place = min(1.0, max(0.0, when)) * (len(self.shares) - 1)
        left = min(int(place), len(self.shares) - 2)
        low, high = self.shares[left], self.shares[left + 1]
        return low + (high - low) * (place - left)


UNIFORM = SpendCurve()


@dataclass(frozen=True, slots=True)
class PacingPlan:
    """What a period starts with: the price of gain (per USD; 0: nothing known, all is worth it) and the spend curve."""

    price: float = 0.0
    curve: SpendCurve = UNIFORM


def threshold_price(offers: Iterable[SpendOffer], budget_usd: float) -> float:
    """The gain per USD at which the budget would just have been used: that of the first offer that doesn't fit.

    Never 0 where an offer costs money, because a price of 0 could not rise: if all fit it is the lowest offer's, if
    none fits the highest one's. 0 without such offers.
    """
    costly = sorted((o for o in offers if o.gain > 0 and o.cost_usd > 0), key=lambda o: -o.density)
    if not costly:
        return 0.0
    sums = list(accumulate(o.cost_usd for o in costly))
    return costly[min(bisect_right(sums, budget_usd), len(costly) - 1)].density


def curve_of(spends: Iterable[Spend], bins: int = BINS) -> SpendCurve:
    """The spend curve of a period, normalised; uniform if nothing was spent."""
    sums = [0.0] * bins
    for spend in spends:
        sums[min(bins - 1, max(0, int(spend.at * bins)))] += spend.usd
    total = sum(sums)
    if total <= 0:
        return UNIFORM
    return SpendCurve((0.0, *(min(1.0, part / total) for part in accumulate(sums))))


def repeated(curve: SpendCurve, times: int) -> SpendCurve:
    """A month's curve from a day's: the same every day."""
    points = [(i + share) / times for i in range(times) for share in curve.shares[1:]]
    return SpendCurve((0.0, *points))


def plan_for(offers: Sequence[SpendOffer], others: Sequence[Spend], budget_usd: float) -> PacingPlan:
    """The plan of a period from what was offered and spent in the one before: its threshold price for what the other
    spending would have left of this budget, and the curve of both together."""
    price = threshold_price(offers, budget_usd - sum(s.usd for s in others))
    taken = [Spend(o.at, o.cost_usd) for o in offers if o.density >= price]
    return PacingPlan(price, curve_of([*others, *taken]))


def price_now(plan: PacingPlan, spent_share: float, when: float, stiffness: float = STIFFNESS) -> float:
    """lambda: gain per USD that an offer must bring now. `spent_share` of the budget is gone at `when` (0 to 1)."""
    distance = stiffness * (spent_share - plan.curve.at(when))
    return plan.price * math.exp(min(_MOST, max(-_MOST, distance)))


def worth(gain: float, cost_usd: float, price: float) -> bool:
    """True if the gain is worth its cost at this price; what is free always is."""
    return cost_usd <= 0 or gain / cost_usd > price
