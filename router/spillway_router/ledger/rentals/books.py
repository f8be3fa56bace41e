"""Rental periods on the books: what rented GPUs cost, row by row.

A rental (`RentalRecord`: so many GPUs at a price per hour from a start to a stop) is cut at every quarter of an hour,
UTC, so also at midnight. Each part is one `gpu_hour` row: request id = rental id, attempt number = number of the part.

    part n of a rental   [max(start, edge n), min(stop, edge n + 1)),  edge n = n-th quarter hour after the start's own
    amount               floor(rate * time until its end) - floor(rate * time until its start)      [nano-dollars]

So a row's content follows from the rental alone: any process may write it, or two, and adjacent rows sum to the cost of
the whole time exactly. A row is written when its part is over; what is on the books stands. `accrued` gives what a
range costs: its rows, and by the same arithmetic what has no row yet.
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
class Billed:
    """Rented time from `ts` (epoch ms) on: nano-dollars, and microseconds of GPU time (length x GPUs)."""

    ts: int
    nano: int
    gpu_us: int


def cost_nano(record: RentalRecord, from_ms: int, to_ms: int) -> int:
    """Nano-dollars of a rental from one moment to another, rounded on the running total since its start."""
    return _until(record, to_ms) - _until(record, from_ms)


def _until(record: RentalRecord, at_ms: int) -> int:
    return record.price_nano_per_hour * record.count * (at_ms - record.started_ms) // _HOUR_MS


def due(record: RentalRecord, now_ms: int, first: int = 0) -> Iterator[Entry]:
    """The rows of a rental's parts that are over, from part `first` on."""
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
            amount_nano=cost_nano(record, begin, until),
        )
        number += 1


@dataclass(frozen=True, slots=True)
class Written:
    """What is on the books of a rental: its rows by number, the first number without one, and until when (epoch ms)."""

    parts: Mapping[int, Entry]
    first_missing: int
    until_ms: int


def written(ledger: Ledger, record: RentalRecord) -> Written:
    """What is on the books of a rental."""
    parts = {row.attempt_no: row for row in ledger.entries_of(record.id) if row.kind == "gpu_hour"}
    first = 0
    while first in parts:
        first += 1
    last = parts.get(first - 1)
    until = record.started_ms if last is None else last.ts + last.gpu_us // (1000 * record.count)
    return Written(parts, first, until)


def accrued(record: RentalRecord, known: Written, start_ms: int, end_ms: int, now_ms: int) -> list[Billed]:
    """What a rental costs in [start, end) as far as that is past: its rows there, then the rest cut at midnights."""
    found = [Billed(row.ts, row.amount_nano, row.gpu_us) for row in known.parts.values() if start_ms <= row.ts < end_ms]
    begin = max(known.until_ms, start_ms)
    end = min(end_ms, now_ms, now_ms if record.stopped_ms is None else record.stopped_ms)
    while begin < end:
        until = min(end, (begin // DAY_MS + 1) * DAY_MS)
        found.append(Billed(begin, cost_nano(record, begin, until), (until - begin) * 1000 * record.count))
        begin = until
    return found


class RentalBooks:
    """Writes what is due of all rentals; remembers how far it got, so that it asks for each rental's rows once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next: dict[str, int] = {}

    def write_due(self, now_ms: int) -> int:
        """Write the rows that are due; returns how many. What another process wrote first stands.

        Raises LedgerUnavailableError; what was written until then stays.
        """
        count = 0
        for record in self._ledger.rentals.between(0, now_ms + 1):
            first = self._next.get(record.id)
            if first is None:
                first = written(self._ledger, record).first_missing
            rows = list(due(record, now_ms, first))
            for at in range(0, len(rows), _ROWS_PER_COMMIT):
                part = rows[at : at + _ROWS_PER_COMMIT]
                self._ledger.commit([Write((row,)) for row in part])
                count += len(part)
            self._next[record.id] = first + len(rows)
        return count
