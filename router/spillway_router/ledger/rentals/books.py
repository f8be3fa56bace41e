"""Rentals on the books: what rented GPUs cost, row by row.

A rental (`RentalRecord`: so many GPUs at a price per hour from a start to a stop) is cut at every quarter of an hour in
UTC, and so also at midnight. Each part is one `gpu_hour` row: the rental id is its request id, the number of the part
is its attempt number.

    part n of a rental   [max(start, edge n), min(stop, edge n + 1)),  edge n = n-th quarter hour after the start's own
    amount               floor(rate * time until its end) - floor(rate * time until its start)      [nano-dollars]

The content of a row therefore follows from the rental alone: any process may write it, even two of them, and adjacent
rows sum exactly to the cost of the whole time. A row is written when its part is over, and never changes after that.
`accrued` returns what a range costs: its rows, and by the same arithmetic the time that has no row yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Write

SPAN_MS = 900_000
_HOUR_MS = 3_600_000
_ROWS_PER_COMMIT = 500


@dataclass(frozen=True, slots=True)
class RentedSpan:
    """Rented time from `start_ms` (epoch) on: nano-dollars, and microseconds of GPU time (length x number of GPUs)."""

    start_ms: int
    billed_nano: int
    gpu_us: int


def billed_nano(record: RentalRecord, start_ms: int, end_ms: int) -> int:
    """Return the nano-dollars of a rental in [start, end), rounded on the running total since the rental's start."""
    return _billed_until(record, end_ms) - _billed_until(record, start_ms)


def _billed_until(record: RentalRecord, at_ms: int) -> int:
    return record.price_nano_per_hour * record.count * (at_ms - record.started_ms) // _HOUR_MS


def due(record: RentalRecord, now_ms: int, first: int = 0) -> Iterator[Entry]:
    """Yield the rows of a rental's parts that are over, from part `first` on."""
    base = record.started_ms // SPAN_MS
    number = first
    while True:
        begin = max(record.started_ms, (base + number) * SPAN_MS)
        edge = (base + number + 1) * SPAN_MS
        until = edge if record.stopped_ms is None else min(edge, record.stopped_ms)
        if until > now_ms or begin >= until:
            return
        yield Entry(
            kind="gpu_hour",
            request_id=record.id,
            attempt_no=number,
            ts=begin,
            local=True,
            gpu_us=(until - begin) * 1000 * record.count,
            amount_nano=billed_nano(record, begin, until),
        )
        number += 1


@dataclass(frozen=True, slots=True)
class BookedRental:
    """The rows of a rental that are on the books: by number, the first missing number, and their end (epoch ms)."""

    parts: Mapping[int, Entry]
    first_missing: int
    until_ms: int


def booked(ledger: Ledger, record: RentalRecord) -> BookedRental:
    """Read the rows of a rental."""
    parts = {row.attempt_no: row for row in ledger.entries_of(record.id) if row.kind == "gpu_hour"}
    first = 0
    while first in parts:
        first += 1
    last = parts.get(first - 1)
    until = record.started_ms if last is None else last.ts + last.gpu_us // (1000 * record.count)
    return BookedRental(parts, first, until)


def accrued(record: RentalRecord, on_books: BookedRental, start_ms: int, end_ms: int, now_ms: int) -> list[RentedSpan]:
    """Return what a rental has cost in [start, end) until now: its rows there, then the rest, cut at midnights."""
    rows = on_books.parts.values()
    spans = [RentedSpan(row.ts, row.amount_nano, row.gpu_us) for row in rows if start_ms <= row.ts < end_ms]
    begin = max(on_books.until_ms, start_ms)
    end = min(end_ms, now_ms, now_ms if record.stopped_ms is None else record.stopped_ms)
    while begin < end:
        until = min(end, (begin // DAY_MS + 1) * DAY_MS)
        gpu_us = (until - begin) * 1000 * record.count
        spans.append(RentedSpan(begin, billed_nano(record, begin, until), gpu_us))
        begin = until
    return spans


class RentalBooks:
    """Writes the due rows of all rentals; it remembers its progress, so it reads the rows of each rental only once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next: dict[str, int] = {}

    def write_due(self, now_ms: int) -> int:
        """Write the rows that are due; return their number. Rows that another process wrote first stay.

        Raises LedgerUnavailableError; rows written before that stay.
        """
        count = 0
        for record in self._ledger.rentals.between(0, now_ms + 1):
            first = self._next.get(record.id)
            if first is None:
                first = booked(self._ledger, record).first_missing
            rows = list(due(record, now_ms, first))
            for at in range(0, len(rows), _ROWS_PER_COMMIT):
                part = rows[at : at + _ROWS_PER_COMMIT]
                self._ledger.commit([Write((row,)) for row in part])
                count += len(part)
            self._next[record.id] = first + len(rows)
        return count
