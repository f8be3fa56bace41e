"""Closed days: once a UTC day is over, its unused GPU time becomes a row of its own.

The row has the kind `idle`, the request id `idle-2026-11-20`, and the last millisecond of the day as its time.
`amount_nano` is the unused part of the bill, `gpu_us` the unused GPU time. Reports derive the same figure from the rows
of the day; the idle row serves exports, where used and unused must sum to billed without further arithmetic. No rented
time can be added to a closed day.
"""

from __future__ import annotations

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.fixed_cost import fixed_days, rent

GRACE_MS = 10 * 60_000
"""The time after midnight until every row of the previous day is written."""
MOST_DAYS = 40


def idle_id(day: str) -> str:
    """Return the request id of a day's idle row."""
    return f"idle-{day}"


def is_closed(ledger: Ledger, at_ms: int) -> bool:
    """Return whether the UTC day that contains `at_ms` has its idle row."""
    return bool(ledger.entries_of(idle_id(day_of(at_ms))))


def idle_row(ledger: Ledger, day_start_ms: int, now_ms: int) -> Entry | None:
    """Return the idle row of the day that begins at `day_start_ms`, None if nothing was rented on that day."""
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
    """Closes the days that are over; it remembers its progress, so it looks at each day only once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._until_ms: int | None = None

    def close_days(self, now_ms: int) -> int:
        """Write the missing idle rows of the last 40 days; return their number.

        Raises LedgerUnavailableError.
        """
        today_ms = (now_ms - GRACE_MS) // DAY_MS * DAY_MS
        start_ms = today_ms - MOST_DAYS * DAY_MS if self._until_ms is None else self._until_ms
        if start_ms >= today_ms:
            return 0
        rentals = self._ledger.rentals.between(start_ms, today_ms)
        first_ms = min((record.started_ms for record in rentals), default=today_ms)
        count = 0
        for day_ms in range(max(start_ms, first_ms // DAY_MS * DAY_MS), today_ms, DAY_MS):
            if is_closed(self._ledger, day_ms):
                continue
            row = idle_row(self._ledger, day_ms, now_ms)
            if row is not None:
                try:
                    self._ledger.append((row,))
                except EntryConflictError:
                    continue  # another router closed the day first, and its row stays
                count += 1
        self._until_ms = today_ms
        return count
