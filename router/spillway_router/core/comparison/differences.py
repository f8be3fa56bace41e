"""Differences between two groups that may be looked at every day: intervals that hold at all times together.

A usual 95% interval is right at one look that was fixed before. Whoever looks daily and stops when it excludes 0 is
wrong far more often. These intervals are confidence sequences: the chance that any of them, at any time, misses the
truth is at most alpha.

Source: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, Time-uniform central limit theory and asymptotic
confidence sequences, 2021 (arXiv:2103.06476), theorem 2.2: the normal mixture of H. Robbins, Statistical methods
related to the law of the iterated logarithm, 1970, with an estimated variance. Like every interval by the central limit
theorem it is right for many units, not for ten.

What is compared are ratios, such as cost per request, and what was drawn by lot are units, such as users, whose
requests resemble each other. So the variance is that of the units, by the delta method (A. Deng, U. Knoblich, J. Lu,
Applying the delta method in metric analytics, 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.05
"""The chance that a sequence of intervals ever misses the truth, at most."""
FEWEST_UNITS = 50
"""Units of each group below which nothing is said: the central limit theorem needs some."""
_TIGHTEST_AT = 1_000
"""Units of both groups at which the sequence is tightest; it holds at any number."""


@dataclass(frozen=True, slots=True)
class RatioSums:
    """Sums over the units of a group: a unit has an amount and a count, and the group's mean is amount per count."""

    units: int = 0
    """Those with a count above 0."""
    amount: float = 0.0
    count: float = 0.0
    amount_squares: float = 0.0
    count_squares: float = 0.0
    products: float = 0.0

    @property
    def mean(self) -> float | None:
        """The amount per count, None without any."""
        return self.amount / self.count if self.count else None

    @property
    def variance(self) -> float:
        """The variance of the mean, by the delta method: that of the units' deviations from it."""
        if self.units < 2 or not self.count:
            return math.inf
        mean = self.amount / self.count
        deviations = self.amount_squares - 2 * mean * self.products + mean * mean * self.count_squares
        return max(0.0, deviations) * self.units / (self.units - 1) / (self.count * self.count)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that holds the truth at all times together with a chance of 1 - alpha."""

    estimate: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether it excludes that there is no difference."""
        return self.low > 0 or self.high < 0

    def within(self, margin: float) -> bool:
        """Return whether the difference is at most `margin` in either direction."""
        return -margin <= self.low and self.high <= margin


def mean_interval(group: RatioSums, alpha: float = ALPHA) -> Interval | None:
    """Return the mean of a group; None while it has too few units."""
    if group.mean is None or group.units < FEWEST_UNITS:
        return None
    half = half_width(group.variance, group.units, alpha)
    return Interval(group.mean, group.mean - half, group.mean + half)


def difference(
    control: RatioSums, other: RatioSums, alpha: float = ALPHA, *, shares_moved: bool = False
) -> Interval | None:
    """Return the mean of `other` less that of `control`; None while either has too few units."""
    if control.mean is None or other.mean is None or not _enough(control, other):
        return None
    estimate = other.mean - control.mean
    half = _half_of_both((control.variance, control.units), (other.variance, other.units), alpha, shares_moved)
    return Interval(estimate, estimate - half, estimate + half)


def relative_difference(
    control: RatioSums, other: RatioSums, alpha: float = ALPHA, *, shares_moved: bool = False
) -> Interval | None:
    """Return by what share the mean of `other` is above that of `control`, -0.1 for 10% below.

    The interval is that of the difference of logarithms. None while either has too few units, or a mean of 0.
    """
    first, second = control.mean, other.mean
    if first is None or second is None or first <= 0 or second <= 0 or not _enough(control, other):
        return None
    variances = control.variance / (first * first), other.variance / (second * second)
    half = _half_of_both((variances[0], control.units), (variances[1], other.units), alpha, shares_moved)
    logarithm = math.log(second / first)
    low, high = logarithm - half, min(logarithm + half, _LARGEST)
    return Interval(second / first - 1, math.expm1(low), math.expm1(high))


_LARGEST = 50.0
"""The largest logarithm of a ratio; more is no number that anybody reads."""


def half_width(variance: float, units: int, alpha: float) -> float:
    """Return half the width of the sequence's interval for a mean with this variance over so many units.

    With t units, standard deviation s and rho > 0 that is s * sqrt(2 (t rho^2 + 1) / (t^2 rho^2) *
    log(sqrt(t rho^2 + 1) / alpha)), and variance = s^2 / t. `rho` makes it tightest at `_TIGHTEST_AT` units.
    """
    log_alpha = -2 * math.log(alpha)
    rho_squared = (log_alpha + math.log(log_alpha) + 1) / _TIGHTEST_AT
    scaled = units * rho_squared
    return math.sqrt(variance * 2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / alpha))


def _half_of_both(one: tuple[float, int], other: tuple[float, int], alpha: float, shares_moved: bool) -> float:
    """Return half the width of the interval of a difference; each group is the variance of its mean and its units.

    Where the shares moved with the outcomes, the number of units of each group depends on them. Each group's own
    sequence holds at every number of its units together, so also at those, and both hold together with a chance of
    1 - alpha if each has half of alpha.
    """
    if shares_moved:
        return half_width(*one, alpha / 2) + half_width(*other, alpha / 2)
    return half_width(one[0] + other[0], one[1] + other[1], alpha)


def _enough(control: RatioSums, other: RatioSums) -> bool:
    return min(control.units, other.units) >= FEWEST_UNITS
