"""The next shares of a bandit's arms: towards what Thompson sampling draws, with a floor and at a limited pace.

An interval has a number, counted from the epoch. The draws of an interval are seeded by the name of the experiment and
this number, so whoever computes the same interval from the same sums gets the same shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from spillway_router.core.comparison.differences import FEWEST_UNITS
from spillway_router.core.comparison.thompson import ArmWorth, Worth, thompson_shares

SMALLEST_MOVE = 0.005
"""Share of the units below which shares stay as they are, because a move changes the arm of units."""


@dataclass(frozen=True, slots=True)
class MovingRule:
    """How the shares of an experiment move by themselves."""

    worth: Worth
    every_s: int
    """Seconds of an interval; shares move at most once in each."""
    floor: float
    """Share that every arm keeps. With 0 an arm that never wins a draw ends, and does not come back."""
    most_moved: float
    """Share of the units that may change their arm in one interval."""
    days: int
    """Days of requests that are looked at."""

    def interval(self, wall_s: float) -> int:
        """Return the number of the interval in which a moment (epoch seconds) lies."""
        return int(wall_s // self.every_s)


@dataclass(frozen=True, slots=True)
class ShareStep:
    """What one interval makes of the shares, and why. Shares are between 0 and 1."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    """The same as `before` where nothing moves."""
    drawn: Mapping[str, float]
    """What Thompson sampling gives of the arms' common share; empty where arms can't be compared yet."""
    reasons: tuple[str, ...]
    """`thompson` for a move, with `floor:ARM` and `pace` where these hold it back; else why nothing moves: `few:ARM`
    (too few units), `free:ARM` (no cost to divide by), `alone` (fewer than two arms) or `small` (too small a move)."""

    @property
    def moves(self) -> bool:
        """Whether any share changes."""
        return self.after != self.before


def next_shares(
    experiment: str, rule: MovingRule, shares: Mapping[str, float], arms: Mapping[str, ArmWorth], interval: int
) -> ShareStep:
    """Return the shares after an interval. `arms` are those that take part; all others keep what they have.

    An arm whose share is 0 takes no part, so none is added.
    """
    taking_part = {name: worth for name, worth in arms.items() if shares.get(name, 0.0) > 0}
    if hindrances := _hindrances(taking_part):
        return ShareStep(shares, shares, {}, hindrances)
    seeded = Random(f"{experiment}\0{interval}")  # noqa: S311
    drawn = thompson_shares(taking_part, seeded)
    wanted, floored = _with_floor({name: shares[name] for name in drawn}, drawn, rule.floor)
    distance = math.fsum(abs(wanted[name] - shares[name]) for name in wanted) / 2
    if distance < SMALLEST_MOVE:
        return ShareStep(shares, shares, drawn, ("small",))
    pace = min(1.0, rule.most_moved / distance)
    after = {name: wanted[name] if pace == 1 else shares[name] + pace * (wanted[name] - shares[name]) for name in drawn}
    reasons = ("thompson", *(f"floor:{name}" for name in floored), *(("pace",) if pace < 1 else ()))
    return ShareStep(shares, {**shares, **after}, drawn, reasons)


def _hindrances(arms: Mapping[str, ArmWorth]) -> tuple[str, ...]:
    """Return why these arms can't be compared; empty if they can."""
    if len(arms) < 2:
        return ("alone",)
    few = [f"few:{name}" for name, arm in sorted(arms.items()) if min(arm.value.units, arm.cost.units) < FEWEST_UNITS]
    free = [f"free:{name}" for name, arm in sorted(arms.items()) if f"few:{name}" not in few and not arm.is_known]
    return (*few, *free)


def _with_floor(
    shares: Mapping[str, float], drawn: Mapping[str, float], floor: float
) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Return the shares that are wanted, together as much as now, and the arms that only the floor keeps there."""
    together = math.fsum(shares.values())
    least = min(floor, together / len(shares))
    wanted = {name: least + (together - least * len(shares)) * drawn[name] for name in shares}
    return wanted, tuple(name for name in sorted(shares) if least and not drawn[name])
