"""Closed days: once a UTC day is over, its unused GPU time becomes a row of its own.

The row is `idle` of request id `idle-2026-11-20`, dated in the last millisecond of the day: `amount_nano` the unused
part of the bill, `gpu_us` the unused GPU time. Reports derive the same figure from the rows of the day; the idle row is
for exports, where used and unused must sum to billed without anybody's arithmetic. Rented time can't be added to a
closed day any more.
"""

from __future__ import annotations

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.fixed_cost import fixed_days, rent

GRACE_MS = 10 * 60_000
"""After midnight, until every row of the day before is written."""
MOST_DAYS = 40


def idle_id(day: str) -> str:
    """Request id of a day's idle row."""
    return f"idle-{day}"


def is_closed(ledger: Ledger, at_ms: int) -> bool:
    """True if the day of this moment has its idle row."""
    return bool(ledger.entries_of(idle_id(day_of(at_ms))))


def idle_row(ledger: Ledger, day_start_ms: int, now_ms: int) -> Entry | None:
    """The idle row of the day that begins there; None if nothing was rented on it."""
    end_ms = day_start_ms + DAY_MS
    rented = rent(ledger, day_start_ms, end_ms, now_ms)
    if not rented.days:
        return None
    (day,) = (d for d in fixed_days(rented.days, ledger.totals(day_start_ms, end_ms)) if d.rented.gpu_us)
    return Entry(
        kind="idle",
        request_id=idle_id(day.day),
        attempt_no=0,
        ts=end_ms - 1,
        local=True,
        gpu_us=max(0, day.rented.gpu_us - day.work_us),
        amount_nano=day.split.idle_nano,
    )


class DayCloser:
    """Closes the days that are over; remembers which, so that it looks at each day once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._until_ms: int | None = None

    def close_days(self, now_ms: int) -> int:
        """Write the idle rows that are missing, of 40 days back at most; returns how many.

        Raises LedgerUnavailableError.
        """
        today = (now_ms - GRACE_MS) // DAY_MS * DAY_MS
        start = today - MOST_DAYS * DAY_MS if self._until_ms is None else self._until_ms
        if start >= today:
            return 0
        rentals = self._ledger.rentals.between(start, today)
        first = min((record.started_ms for record in rentals), default=today)
        written = 0
        for day in range(max(start, first // DAY_MS * DAY_MS), today, DAY_MS):
            if is_closed(self._ledger, day):
                continue
            row = idle_row(self._ledger, day, now_ms)
            if row is not None:
                try:
                    self._ledger.append((row,))
                except EntryConflictError:
                    continue  # another router closed the day first; what is there stands
                written += 1
        self._until_ms = today
        return written
