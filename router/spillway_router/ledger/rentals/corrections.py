"""Putting right what is on the books: rows that follow what turned out later, in place of rows that would change.

A rental that ended at 03:00 and is noticed the next day has rows for hours that nobody billed. `RentalBooks` writes the
rows that are due, compares the rows of each day with what the rental costs on that day, and writes the difference as a
row of the kind `fixed_adjusted`. It belongs to the day that it corrects, so that the report of that day becomes right.

The corrections of a rental are numbered from 0 and written together. If two processes correct at once, the number that
both would give makes one of them fail, which then reads again and finds nothing left to do. A process that has not
heard of the new end yet and writes one more row is corrected in the next round by whoever hears of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Write
from spillway_router.ledger.rentals.books import (
    BookedRental,
    FixedCost,
    Meter,
    booked,
    certain_until,
    due,
    meter_of,
    write_rows,
)

_RECENT_MS = 2 * DAY_MS
_MOST_ROUNDS = 20
"""More than as many processes as correct one rental at the same moment."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """A cost whose rows were compared with it, and the first number that has no row yet."""

    meter: Meter
    first_missing: int


def corrections(cost: FixedCost, on_books: BookedRental) -> list[Entry]:
    """Return the rows that make the books of a cost right, at most one per day."""
    meter = meter_of(cost)
    wrong: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in on_books.rows:
        wrong[row.ts // DAY_MS][0] -= row.amount_nano
        wrong[row.ts // DAY_MS][1] -= row.gpu_us
    begin = meter.started_ms
    while begin < on_books.until_ms:
        until = min(on_books.until_ms, (begin // DAY_MS + 1) * DAY_MS)
        wrong[begin // DAY_MS][0] += meter.billed_nano(begin, until)
        wrong[begin // DAY_MS][1] += meter.gpu_us(begin, until)
        begin = until
    days = [(day, *difference) for day, difference in sorted(wrong.items()) if any(difference)]
    return [
        Entry(
            kind="fixed_adjusted",
            request_id=meter.id,
            attempt_no=number,
            ts=max(day * DAY_MS, meter.started_ms),
            local=meter.kind == "gpu_hour",
            decision=meter.kind,
            gpu_us=gpu_us,
            amount_nano=nano,
        )
        for number, (day, nano, gpu_us) in enumerate(days, len(on_books.corrections))
    ]


class RentalBooks:
    """Writes the due rows and the corrections of all rentals and other costs.

    It remembers its progress, so it reads the rows of each cost only once, and again after the cost changed.
    `touched` are the days (since the epoch) whose rented GPU time changed; whoever closes days takes them out.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._settled: dict[str, _Settled] = {}
        self.touched: set[int] = set()

    def write_due(self, now_ms: int) -> int:
        """Write the rows that are due, and the corrections; return the number of rows.

        Raises LedgerUnavailableError; rows written before that stay.
        """
        costs: list[FixedCost] = [*self._ledger.rentals.between(0, now_ms + 1)]
        costs += self._ledger.other_costs.all()
        return sum(self._write(cost, certain_until(cost, now_ms)) for cost in costs)

    def _write(self, cost: FixedCost, now_ms: int) -> int:
        settled = self._settled.get(cost.id)
        if settled is None or settled.meter != meter_of(cost):
            return self._settle(cost, now_ms)
        rows = list(due(cost, now_ms, settled.first_missing))
        if not rows:
            return 0
        if not write_rows(self._ledger, rows):
            return self._settle(cost, now_ms)
        self._touch(rows)
        self._settled[cost.id] = _Settled(settled.meter, settled.first_missing + len(rows))
        return len(rows)

    def _settle(self, cost: FixedCost, now_ms: int) -> int:
        """Make the books of a cost right: its due rows, then corrections until nothing is left to correct."""
        count = 0
        if cost.stopped_ms is not None and cost.stopped_ms > now_ms - _RECENT_MS and isinstance(cost, RentalRecord):
            # It may have ended before time that was counted without rows when its day was closed.
            self.touched.update(range(cost.stopped_ms // DAY_MS, now_ms // DAY_MS + 1))
        for _ in range(_MOST_ROUNDS):
            on_books = booked(self._ledger, cost)
            rows = list(due(cost, now_ms, on_books.first_missing))
            if rows:
                write_rows(self._ledger, rows)
                on_books = booked(self._ledger, cost)
            fixes = corrections(cost, on_books)
            self._touch([*rows, *fixes])
            count += len(rows)
            if not fixes:
                self._settled[cost.id] = _Settled(meter_of(cost), on_books.first_missing)
                return count
            if self._ledger.commit((Write(tuple(fixes)),))[0] is None:
                count += len(fixes)
        raise LedgerError(f"the books of {cost.id} changed {_MOST_ROUNDS} times while they were corrected")

    def _touch(self, rows: list[Entry]) -> None:
        self.touched.update(row.ts // DAY_MS for row in rows if row.local)
