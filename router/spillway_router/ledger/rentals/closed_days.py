"""Closed days: once a UTC day is over, its unused GPU time becomes a row of its own.

The row has the kind `idle`, the request id `idle-2026-11-20`, and the last millisecond of the day as its time.
`amount_nano` is the unused part of the bill, `gpu_us` the unused GPU time. Reports derive the same figure from the rows
of the day; the idle row serves exports, where used and unused must sum to billed without further arithmetic. If the
rent or the work of a closed day changes later, `fixed_adjusted` rows with the same request id follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.fixed_cost import fixed_days, rent

GRACE_MS = 10 * 60_000
"""The time after midnight until every row of the previous day is written."""
MOST_DAYS = 40
LATE_DAYS = 3
"""How many of the last days are looked at again every hour: rows of a router that could not reach the ledger wait in
its journal, and come when their day may be closed already."""
_HOUR_MS = 3_600_000
_MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class IdleTime:
    """The unused part of a day's bill in nano-dollars, and the unused GPU time in microseconds."""

    nano: int = 0
    gpu_us: int = 0


def idle_id(day: str) -> str:
    """Return the request id of a day's idle row."""
    return f"idle-{day}"


def is_closed(ledger: Ledger, at_ms: int) -> bool:
    """Return whether the UTC day that contains `at_ms` has its idle row."""
    return bool(ledger.entries_of(idle_id(day_of(at_ms))))


def idle_times(ledger: Ledger, start_ms: int, end_ms: int, now_ms: int) -> Mapping[str, IdleTime]:
    """Return the unused time of each day of [start, end) on which something was rented, by ISO date.

    Both ends must be the start of a UTC day.
    """
    rented = rent(ledger, start_ms, end_ms, now_ms)
    if not rented.days:
        return {}
    days = fixed_days(rented.days, ledger.totals(start_ms, end_ms))
    return {
        day.day: IdleTime(day.split.idle_nano, max(0, day.rented.gpu_us - day.work_us))
        for day in days
        if day.rented.gpu_us
    }


class DayCloser:
    """Closes the days that are over. It remembers its progress, and looks at days before that only while rows may still
    come."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._until_ms: int | None = None
        self._hour = 0

    def close_days(self, now_ms: int) -> int:
        """Write the missing idle rows of the last 40 days, and correct those that are wrong; return their number.

        Raises LedgerUnavailableError.
        """
        today_ms = (now_ms - GRACE_MS) // DAY_MS * DAY_MS
        hour = now_ms // _HOUR_MS
        if self._until_ms == today_ms and self._hour == hour:
            return 0
        late_ms = today_ms - LATE_DAYS * DAY_MS
        start_ms = today_ms - MOST_DAYS * DAY_MS if self._until_ms is None else min(self._until_ms, late_ms)
        idle = idle_times(self._ledger, start_ms, today_ms, now_ms)
        count = sum(self._close(day_ms, idle) for day_ms in range(start_ms, today_ms, DAY_MS))
        self._until_ms, self._hour = today_ms, hour
        return count

    def correct_days(self, days: Iterable[int], now_ms: int) -> int:
        """Make the idle rows of some days (since the epoch) right, as far as they are over; return the number of rows.

        A day on which nothing was rented has no row until something is declared or corrected later. Raises
        LedgerUnavailableError.
        """
        today = (now_ms - GRACE_MS) // DAY_MS
        over = sorted(day for day in set(days) if day < today)
        count = 0
        while over:
            near = [day for day in over if day < over[0] + MOST_DAYS]
            idle = idle_times(self._ledger, near[0] * DAY_MS, (near[-1] + 1) * DAY_MS, now_ms)
            count += sum(self._close(day * DAY_MS, idle) for day in near)
            over = over[len(near) :]
        return count

    def _close(self, day_ms: int, idle: Mapping[str, IdleTime]) -> int:
        """Write the row that makes a day's idle time right, if one is needed; return the number of rows."""
        for _ in range(_MOST_TRIES):
            rows = self._ledger.entries_of(idle_id(day_of(day_ms)))
            row = _row(day_ms, rows, idle.get(day_of(day_ms)))
            if row is None:
                return 0
            with suppress(EntryConflictError):  # another router closed or corrected the day first: read again
                self._ledger.append((row,))
                return 1
        return 0


def _row(day_ms: int, rows: Sequence[Entry], time: IdleTime | None) -> Entry | None:
    """Return the row that makes the idle time of a day right, given its rows; None if they are right."""
    if not rows and time is None:
        return None
    target = time or IdleTime()
    row = Entry(
        kind="fixed_adjusted" if rows else "idle",
        request_id=idle_id(day_of(day_ms)),
        attempt_no=max(0, len(rows) - 1),
        ts=day_ms + DAY_MS - 1,
        local=True,
        decision="idle" if rows else "",
        gpu_us=target.gpu_us - sum(row.gpu_us for row in rows),
        amount_nano=target.nano - sum(row.amount_nano for row in rows),
    )
    return row if not rows or row.gpu_us or row.amount_nano else None
