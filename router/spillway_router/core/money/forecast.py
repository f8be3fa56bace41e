"""What a month will have cost by its end, from what it has cost so far.

    fixed   billed so far + what the rentals that still run cost until the month ends (they are expected to go on)
    cloud   linear: so far * whole / elapsed time, both counted from the first day with any cost in the month;
            with two full weeks of history or more, weekday profile: so far + for each day to come the mean of the same
            weekday over the last full weeks (8 at most); of today, the part of its mean that is still to come

Pure: all money is integer nano-dollars, days are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Literal

Method = Literal["linear", "weekdays"]

PROFILE_DAYS = 14
"""Full days of history from which on weekdays are told apart."""
MOST_WEEKS = 8
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class SoFar:
    """What is known at `now_ms` (epoch milliseconds): cloud nano-dollars per UTC day, today included, days without any
    left out; nano-dollars billed for GPUs this month, and what running rentals will add until it ends."""

    now_ms: int
    cloud_by_day: Mapping[date, int]
    fixed_nano: int
    fixed_to_come_nano: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Cost of a month (`2026-11`) in nano-dollars: so far, and by its end. `days_of_history`: full days used."""

    month: str
    method: Method
    days_of_history: int
    fixed_so_far_nano: int
    cloud_so_far_nano: int
    fixed_nano: int
    cloud_nano: int

    @property
    def total_nano(self) -> int:
        """Fixed and cloud by the month's end."""
        return self.fixed_nano + self.cloud_nano


def month_of(now_ms: int) -> tuple[date, date]:
    """First day of the UTC month of a moment, and of the month after."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def forecast(known: SoFar) -> Forecast:
    """The month's cost by its end."""
    first, after = month_of(known.now_ms)
    today = datetime.fromtimestamp(known.now_ms / 1000, UTC).date()
    begun = min((day for day, nano in known.cloud_by_day.items() if nano), default=today)
    so_far = sum(nano for day, nano in known.cloud_by_day.items() if first <= day <= today)
    history = max(0, (today - begun).days)
    if history >= PROFILE_DAYS:
        method: Method = "weekdays"
        cloud = so_far + _to_come(known, today, after, min(MOST_WEEKS, history // 7))
    else:
        method = "linear"
        cloud = _linear(known.now_ms, so_far, max(first, begun), after)
    return Forecast(
        month=f"{first:%Y-%m}",
        method=method,
        days_of_history=history,
        fixed_so_far_nano=known.fixed_nano,
        cloud_so_far_nano=so_far,
        fixed_nano=known.fixed_nano + known.fixed_to_come_nano,
        cloud_nano=cloud,
    )


def _linear(now_ms: int, so_far: int, since: date, after: date) -> int:
    start = _ms(since)
    return round(Fraction(so_far * (_ms(after) - start), max(1, now_ms - start)))


def _to_come(known: SoFar, today: date, after: date, weeks: int) -> int:
    """Nano-dollars expected from now to the first day `after` the month, by means of weekdays."""

    def mean(weekday: int) -> Fraction:
        back = (today.weekday() - weekday - 1) % 7 + 1  # the last such day before today
        days = (today - timedelta(days=back + 7 * week) for week in range(weeks))
        return Fraction(sum(known.cloud_by_day.get(day, 0) for day in days), weeks)

    rest_of_today = Fraction(_ms(today) + _DAY_MS - known.now_ms, _DAY_MS)
    expected = mean(today.weekday()) * rest_of_today
    for ahead in range(1, (after - today).days):
        expected += mean((today + timedelta(days=ahead)).weekday())
    return round(expected)


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
