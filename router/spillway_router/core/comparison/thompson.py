"""Thompson sampling: the shares of traffic that a bandit would give to arms, by what they bring per dollar.

In each draw every arm gets a mean value and a mean cost from what is known of them (normal, with the variance of the
units), and the arm with the most value per cost wins. Its share of the wins is its share of the traffic. So an arm that
is surely worse gets nothing, and one that is little known keeps a chance.

Source: W. R. Thompson, On the likelihood that one unknown probability exceeds another, Biometrika 1933; for large
samples, by the central limit theorem, as in differences.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from spillway_router.core.comparison.differences import FEWEST_UNITS, RatioSums

Worth = Literal["rating", "agreement"]
"""What an arm brings: ratings from 1 to 5, or, for shadows that ask, answers that say the same as the clients'."""
DRAWS = 4_000
_LEAST_COST = 1e-3
"""Share of an arm's mean cost below which a drawn cost is not taken, because a cost is not negative."""


@dataclass(frozen=True, slots=True)
class ArmWorth:
    """What an arm brings (ratings or agreements) and what it costs, both per request."""

    value: RatioSums = RatioSums()
    cost: RatioSums = RatioSums()

    @property
    def is_known(self) -> bool:
        """Whether there are enough units to draw from, and a cost to divide by."""
        enough = min(self.value.units, self.cost.units) >= FEWEST_UNITS
        return enough and self.value.mean is not None and bool(self.cost.mean)


def thompson_shares(arms: Mapping[str, ArmWorth], random: Random, draws: int = DRAWS) -> Mapping[str, float]:
    """Return the share of each arm, between 0 and 1, together 1. Empty unless there are two arms that are all known.

    Only the given arms get a share, whatever is drawn.
    """
    if len(arms) < 2 or not all(arm.is_known for arm in arms.values()):
        return {}
    names = sorted(arms)
    wins = Counter(max(names, key=lambda name: _drawn(arms[name], random)) for _ in range(draws))
    return {name: wins[name] / draws for name in names}


def _drawn(arm: ArmWorth, random: Random) -> float:
    value, cost = arm.value.mean or 0.0, arm.cost.mean or 0.0
    drawn_value = random.gauss(value, math.sqrt(arm.value.variance))
    return drawn_value / max(random.gauss(cost, math.sqrt(arm.cost.variance)), _LEAST_COST * cost)
