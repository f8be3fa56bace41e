"""Differences that may be looked at daily: the intervals miss the truth as rarely as they say, and do find it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator

from spillway_router.core.comparison.differences import (
    ALPHA,
    FEWEST_UNITS,
    Interval,
    RatioSums,
    difference,
    relative_difference,
)

Draw = Callable[[Generator, int], np.ndarray]
"""Draws what each request of so many has of the measure."""
Look = tuple[RatioSums, RatioSums]
DAYS, RUNS = 40, 400
MOST_WRONG = 31
"""More wrong runs of 400 than this have a chance below 1% if each is wrong with a chance of 5%."""


def lognormal(rng: Generator, size: int) -> np.ndarray:
    return rng.lognormal(0.0, 1.0, size)


def rare(rng: Generator, size: int) -> np.ndarray:
    return (rng.random(size) < 0.1).astype(float)


def rating(rng: Generator, size: int) -> np.ndarray:
    return rng.choice([1.0, 4.0, 5.0], size, p=[0.2, 0.3, 0.5])


def looks(rng: Generator, draw: Draw, *, share: float, effect: float = 0.0, per_day: int = 20) -> list[Look]:
    """The sums of the control and the arm after each day. New users come every day, with 1 to 8 requests each, and the
    requests of a user resemble each other."""
    users = per_day * DAYS
    counts = rng.integers(1, 9, users)
    each = np.add.reduceat(draw(rng, int(counts.sum())), np.cumsum(counts) - counts)
    amounts = (draw(rng, users) * counts + each) / 2
    inside = rng.random(users) < share
    amounts = np.where(inside, amounts * (1 + effect), amounts)
    control, arm = (_by_day(amounts * chosen, counts * chosen, per_day) for chosen in (~inside, inside))
    return list(zip(control, arm, strict=True))


def _by_day(amounts: np.ndarray, counts: np.ndarray, per_day: int) -> list[RatioSums]:
    columns = (counts > 0, amounts, counts, amounts**2, counts**2, amounts * counts)
    ends = np.stack([np.cumsum(column)[per_day - 1 :: per_day] for column in columns], axis=1)
    return [RatioSums(int(units), *map(float, rest)) for units, *rest in ends]


@pytest.mark.parametrize("draw", [lognormal, rare, rating])
@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("compare", [difference, relative_difference])
def test_daily_looks_are_wrong_in_at_most_the_stated_share_of_experiments(
    draw: Draw, share: float, compare: Callable[[RatioSums, RatioSums], Interval | None]
) -> None:
    rng = np.random.default_rng(20261130)
    wrong = 0
    for _ in range(RUNS):
        intervals = [compare(*pair) for pair in looks(rng, draw, share=share)]
        assert intervals[-1] is not None
        wrong += any(interval is not None and interval.decided for interval in intervals)
    assert wrong <= MOST_WRONG


@pytest.mark.parametrize("draw", [lognormal, rating])
def test_daily_looks_hold_where_the_shares_follow_what_was_seen(draw: Draw) -> None:
    """Every day the arm that looks better so far gets nearly all new units. There is no difference."""
    rng = np.random.default_rng(20261130)
    wrong = decided_by_shares = 0
    for _ in range(RUNS):
        seen: tuple[list[float], list[float]] = ([], [])
        was_wrong = False
        for day in range(DAYS):
            values = draw(rng, 40)
            lead = day >= 5 and np.mean(seen[1]) > np.mean(seen[0])
            inside = rng.random(40) < (0.9 if lead else 0.1 if day >= 5 else 0.5)
            seen[0].extend(values[~inside])
            seen[1].extend(values[inside])
            interval = difference(_of(seen[0]), _of(seen[1]), shares_moved=True)
            was_wrong |= interval is not None and interval.decided
        wrong += was_wrong
        decided_by_shares += len(seen[1]) > len(seen[0])
    assert wrong <= MOST_WRONG
    assert 100 < decided_by_shares < 300, "the shares followed what was seen"


def _of(values: list[float]) -> RatioSums:
    """Units of one request each."""
    amounts = np.array(values)
    total = float(amounts.sum())
    return RatioSums(
        units=len(values),
        amount=total,
        count=len(values),
        amount_squares=float((amounts**2).sum()),
        count_squares=len(values),
        products=total,
    )


def test_moved_shares_cost_width() -> None:
    control, arm = _of([1.0, 2.0] * 100), _of([1.0, 2.0, 2.0] * 100)
    fixed, moved = difference(control, arm), difference(control, arm, shares_moved=True)
    assert fixed is not None
    assert moved is not None
    assert 1.2 < (moved.high - moved.low) / (fixed.high - fixed.low) < 1.8
    assert fixed.estimate == moved.estimate


def test_an_interval_of_one_look_would_be_wrong_far_more_often() -> None:
    """Else the test above would show nothing."""
    rng = np.random.default_rng(20261130)
    wrong = 0
    for _ in range(RUNS):
        for control, arm in looks(rng, lognormal, share=0.5):
            if control.mean is not None and arm.mean is not None and min(control.units, arm.units) >= FEWEST_UNITS:
                z = (arm.mean - control.mean) / (control.variance + arm.variance) ** 0.5
                if abs(z) > 1.96:
                    wrong += 1
                    break
    assert wrong > 3 * ALPHA * RUNS


def test_a_real_difference_is_found_and_inside_the_interval() -> None:
    rng = np.random.default_rng(1)
    pairs = [looks(rng, lognormal, share=0.5, effect=-0.2, per_day=100)[-1] for _ in range(50)]
    intervals = [interval for pair in pairs if (interval := relative_difference(*pair)) is not None]
    assert len(intervals) == 50
    assert sum(interval.decided for interval in intervals) >= 45
    assert sum(interval.low <= -0.2 <= interval.high for interval in intervals) >= 48


def group(units: int, amount: float) -> RatioSums:
    """A group of units that all have this amount and a count of 1."""
    total = units * amount
    return RatioSums(
        units=units, amount=total, count=units, amount_squares=total * amount, count_squares=units, products=total
    )


def test_nothing_is_said_of_few_units_or_of_nothing() -> None:
    many, few = group(100, amount=1.0), group(FEWEST_UNITS - 1, amount=1.0)
    assert difference(many, few) is None
    assert difference(few, many) is None
    assert difference(many, RatioSums()) is None
    free = group(100, amount=0.0)
    assert relative_difference(many, free) is None
    assert difference(many, free) is not None
