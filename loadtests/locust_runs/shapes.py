"""Offered load over time, and arrivals drawn from it. Uses the standard library only, since locust's environment reads
it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadShape:
    """Requests per second over seconds: corners joined by straight lines. Two corners at one moment make a step."""

    corners: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        """Return how long the shape lasts."""
        return self.corners[-1][0]

    @property
    def peak(self) -> float:
        """Return the highest rate in requests/s."""
        return max(rate for _, rate in self.corners)

    def rate(self, moment: float) -> float:
        """Return the requests per second at a moment; 0 before and after the shape."""
        for (t0, r0), (t1, r1) in zip(self.corners, self.corners[1:], strict=False):
            if t0 <= moment < t1:
                return r0 + (r1 - r0) * (moment - t0) / (t1 - t0)
        return 0.0


def steady(rate: float, seconds: float) -> LoadShape:
    """Return a constant rate; a soak is this for hours."""
    return LoadShape(((0.0, rate), (seconds, rate)))


def ramp(first: float, last: float, seconds: float) -> LoadShape:
    """Return a rate that changes evenly from one value to another."""
    return LoadShape(((0.0, first), (seconds, last)))


def burst(base: float, peak: float, seconds: float) -> LoadShape:
    """Return a third calm, a third at the peak, and a third calm."""
    third = seconds / 3
    return LoadShape(((0, base), (third, base), (third, peak), (2 * third, peak), (2 * third, base), (seconds, base)))


def arrivals(shape: LoadShape, seed: int) -> Iterator[float]:
    """Draw the moments of a Poisson process with the shape's rate (thinning: candidates at the peak's rate, kept by
    share).

    Raises:
        ValueError: the shape has no load.
    """
    if shape.peak <= 0:
        raise ValueError("the shape offers no load")
    rng = random.Random(f"arrivals/{seed}")
    moment = rng.expovariate(shape.peak)
    while moment < shape.seconds:
        if rng.random() * shape.peak < shape.rate(moment):
            yield moment
        moment += rng.expovariate(shape.peak)
