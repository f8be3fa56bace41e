"""Dates, and the epoch milliseconds at which they start: UTC's, and those of a reader's time zone; shares of months."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

DAY_MS = 86_400_000
QUARTER_MS = 900_000
"""Clocks differ by whole quarters of an hour from UTC, in every time zone since 1972."""
_EPOCH = date(1970, 1, 1)


def day_of(epoch_ms: int) -> str:
    """Return the UTC date of a time, in ISO form."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).date().isoformat()


def start_of(day: date, zone: tzinfo = UTC) -> int:
    """Return the first millisecond (epoch) of a day in a time zone; where the clock skips midnight, of the skip."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


class Stretch(NamedTuple):
    """Time from `start_ms` to `end_ms`, in which the days since the epoch are (time + `shift_ms`) / 24 hours."""

    start_ms: int
    end_ms: int
    shift_ms: int


@dataclass(frozen=True, slots=True)
class Days:
    """Consecutive days: the first date, and where they start and end (epoch ms; one more than there are days)."""

    first: date
    edges: tuple[int, ...]

    @property
    def is_utc(self) -> bool:
        """Whether they are days of UTC."""
        return all(edge % DAY_MS == 0 for edge in self.edges)

    @property
    def start_ms(self) -> int:
        """First millisecond (epoch)."""
        return self.edges[0]

    @property
    def end_ms(self) -> int:
        """First millisecond after the last day (epoch)."""
        return self.edges[-1]

    @property
    def first_number(self) -> int:
        """The number of the first day since the epoch."""
        return (self.first - _EPOCH).days

    @property
    def names(self) -> tuple[str, ...]:
        """The dates in ISO form."""
        return tuple((self.first + timedelta(days=number)).isoformat() for number in range(len(self.edges) - 1))

    def name_at(self, epoch_ms: int) -> str:
        """Return the date of a time within the days."""
        return (self.first + timedelta(days=bisect_right(self.edges, epoch_ms) - 1)).isoformat()

    def between(self, start_ms: int, end_ms: int) -> frozenset[str]:
        """Return the dates of the days that start within [start, end)."""
        return frozenset(name for name, day_ms, _ in self.each() if start_ms <= day_ms < end_ms)

    def each(self) -> Iterator[tuple[str, int, int]]:
        """Yield each day's date, start and end."""
        return zip(self.names, self.edges, self.edges[1:], strict=False)

    def stretches(self) -> tuple[Stretch, ...]:
        """Return the days as stretches without a change of the clock."""
        parts: list[Stretch] = []
        midnight_ms = self.first_number * DAY_MS
        for _, start_ms, end_ms in self.each():
            shift_ms = midnight_ms - start_ms
            while start_ms < end_ms:
                # On a day of 25 hours, the last one would count as the next day.
                until_ms = min(end_ms, midnight_ms + DAY_MS - shift_ms)
                if until_ms <= start_ms:
                    shift_ms -= end_ms - start_ms
                    until_ms = end_ms
                if parts and parts[-1].shift_ms == shift_ms:
                    parts[-1] = parts[-1]._replace(end_ms=until_ms)
                else:
                    parts.append(Stretch(start_ms, until_ms, shift_ms))
                start_ms = until_ms
            midnight_ms += DAY_MS
        return tuple(parts)


def days_of(first: date, after: date, zone: tzinfo = UTC) -> Days:
    """Return the days from `first` up to but excluding `after`."""
    count = (after - first).days
    return Days(first, tuple(start_of(first + timedelta(days=number), zone) for number in range(count + 1)))


def utc_days(start_ms: int, end_ms: int) -> Days:
    """Return the UTC days from one time to another; only the parts between them belong to the first and last one."""
    first = datetime.fromtimestamp(start_ms / 1000, UTC).date()
    return Days(first, (start_ms, *range((start_ms // DAY_MS + 1) * DAY_MS, end_ms, DAY_MS), end_ms))


MONTH_UNITS = 377_580 * DAY_MS
"""The units of one calendar month, which 28, 29, 30 and 31 days divide, so that shares of months are exact."""


@lru_cache(maxsize=4096)
def _month_of_day(day: int) -> tuple[int, int, int]:
    """Return the number of the month of a day since the epoch, its first day, and how many units a millisecond has."""
    date_of = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date()
    first = date_of.replace(day=1)
    after = (first + timedelta(days=32)).replace(day=1)
    return date_of.year * 12 + date_of.month, start_of(first), MONTH_UNITS // ((after - first).days * DAY_MS)


def months_until(at_ms: int) -> int:
    """Return the calendar months (UTC) up to a time, in units of `MONTH_UNITS` per month.

    A full month is as long as any other, whatever its days.
    """
    number, first_ms, per_ms = _month_of_day(at_ms // DAY_MS)
    return number * MONTH_UNITS + (at_ms - first_ms) * per_ms
