"""Forecast: what a month will have cost by its end, given what it has cost so far.

    fixed   billed so far + the cost of the running rentals until the month ends (they are expected to continue)
    cloud   linear: so far * whole / elapsed time, both counted from the first hour of the month with any cost. Before a
            full day has passed since that hour this is a guess, and its sentence says from how many minutes.
            weekdays (with two full weeks of history or more): so far + for each remaining day the mean of the same
            weekday over the last full weeks (at most 8); today counts with the part of its mean that remains

The module is pure: all money is integer nano-dollars, and days are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Literal

Method = Literal["linear", "weekdays"]

PROFILE_DAYS = 14
"""Full days of history from which on weekdays are distinguished."""
MOST_WEEKS = 8
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class CostSoFar:
    """The costs known at `now_ms` (epoch milliseconds).

    `cloud_by_day` holds nano-dollars per UTC day, including today, without days that cost nothing. `fixed_nano` is
    billed for GPUs this month so far, and `fixed_to_come_nano` is what running rentals will add until it ends.
    `first_cost_ms` is when the first hour with any cost began, if that is known; else the start of its day counts.
    """

    now_ms: int
    cloud_by_day: Mapping[date, int]
    fixed_nano: int
    fixed_to_come_nano: int
    first_cost_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of a month (`2026-11`) in nano-dollars: so far, and by its end, from so many full days of history.

    `minutes_of_history` is the time since the first cost that the estimate goes by.
    """

    month: str
    method: Method
    days_of_history: int
    minutes_of_history: int
    fixed_so_far_nano: int
    cloud_so_far_nano: int
    fixed_nano: int
    cloud_nano: int

    @property
    def is_guess(self) -> bool:
        """Whether less than a day of cost is known, of any hour of which a whole month can't be told."""
        return is_guess(self.minutes_of_history)

    @property
    def total_nano(self) -> int:
        """Fixed and cloud cost by the month's end."""
        return self.fixed_nano + self.cloud_nano


def month_of(now_ms: int) -> tuple[date, date]:
    """Return the first day of the UTC month that contains `now_ms`, and the first day of the next month."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def forecast(costs: CostSoFar) -> Forecast:
    """Return the cost of the month of `now_ms` by its end."""
    first, after = month_of(costs.now_ms)
    today = datetime.fromtimestamp(costs.now_ms / 1000, UTC).date()
    since = min((day for day, nano in costs.cloud_by_day.items() if nano), default=today)
    so_far_nano = sum(nano for day, nano in costs.cloud_by_day.items() if first <= day <= today)
    since_ms = _start_ms(since) if costs.first_cost_ms is None else costs.first_cost_ms
    history = max(0, (today - since).days)
    if history >= PROFILE_DAYS:
        method: Method = "weekdays"
        cloud_nano = so_far_nano + _to_come_nano(costs, today, after, min(MOST_WEEKS, history // 7))
    else:
        method = "linear"
        cloud_nano = _linear_nano(costs.now_ms, so_far_nano, max(_start_ms(first), since_ms), after)
    return Forecast(
        month=f"{first:%Y-%m}",
        method=method,
        days_of_history=history,
        minutes_of_history=max(0, costs.now_ms - since_ms) // 60_000,
        fixed_so_far_nano=costs.fixed_nano,
        cloud_so_far_nano=so_far_nano,
        fixed_nano=costs.fixed_nano + costs.fixed_to_come_nano,
        cloud_nano=cloud_nano,
    )


def is_guess(minutes_of_history: int) -> bool:
    """Return whether an estimate goes by less than a day."""
    return minutes_of_history < _DAY_MS // 60_000


def _linear_nano(now_ms: int, so_far_nano: int, start_ms: int, after: date) -> int:
    return round(Fraction(so_far_nano * (_start_ms(after) - start_ms), max(1, now_ms - start_ms)))


def _to_come_nano(costs: CostSoFar, today: date, after: date, weeks: int) -> int:
    """Return the nano-dollars expected from now to the first day `after` the month, from the means of the weekdays."""

    def mean(weekday: int) -> Fraction:
        back = (today.weekday() - weekday - 1) % 7 + 1  # the last such day before today
        days = (today - timedelta(days=back + 7 * week) for week in range(weeks))
        return Fraction(sum(costs.cloud_by_day.get(day, 0) for day in days), weeks)

    rest_of_today = Fraction(_start_ms(today) + _DAY_MS - costs.now_ms, _DAY_MS)
    expected_nano = mean(today.weekday()) * rest_of_today
    for ahead in range(1, (after - today).days):
        expected_nano += mean((today + timedelta(days=ahead)).weekday())
    return round(expected_nano)


def _start_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
