"""What arms of an experiment were worth, as the tests of the bandit state it."""

from __future__ import annotations

from spillway_router.core.comparison.differences import RatioSums
from spillway_router.core.comparison.thompson import ArmWorth


def sums(mean: float, deviation: float, units: int) -> RatioSums:
    """Units of one request each."""
    squares = units * (mean * mean + deviation * deviation)
    return RatioSums(
        units=units,
        amount=mean * units,
        count=units,
        amount_squares=squares,
        count_squares=units,
        products=mean * units,
    )


def worth(rating: float, cost: float, units: int = 400, deviation: float = 1.0) -> ArmWorth:
    """An arm with this mean rating, whose requests cost so many nano-dollars, give or take a tenth."""
    return ArmWorth(sums(rating, deviation, units), sums(cost, cost / 10, units))
