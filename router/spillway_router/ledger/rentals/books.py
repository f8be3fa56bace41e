"""Fixed cost on the books: what rented GPUs and other fixed costs cost, row by row.

A rental (`RentalRecord`: so many GPUs at a price from a start to a stop) is cut at every quarter of an hour in UTC, and
so also at midnight; another fixed cost (`OtherCost`) is cut at midnights. Each part is one row, `gpu_hour` or `fixed`:
the id of the rental is its request id, the number of the part is its attempt number.

    part n of a rental   [max(start, edge n), min(stop, edge n + 1)),  edge n = n-th quarter hour after the start's own
    amount               floor(cost until its end) - floor(cost until its start)                    [nano-dollars]

The cost until a time is rate x hours, or price x calendar months, of which a full one counts 1 whatever its days. The
content of a row therefore follows from the rental alone: any process may write it, even two of them, and adjacent rows
sum exactly to the cost of the whole time. A row is written when its part is over, and never changes after that. A
rental that turns out to have ended earlier is put right by rows of the kind `fixed_adjusted` (corrections.py).
`accrued` returns what a range costs: its rows, and by the same arithmetic the time that has no row yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spillway_router.ledger.calendar import DAY_MS, MONTH_UNITS, months_until
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import OtherCost, RentalRecord, Write

SPAN_MS = 900_000
ROUTER = "router"
"""The source of rentals that routers open by themselves."""
CONTINUE_MS = 30 * 60_000
"""How long a router may be silent before its machine is taken for switched off."""
_HOUR_MS = 3_600_000
_ROWS_PER_COMMIT = 500

FixedCost = RentalRecord | OtherCost
"""What is paid for by the time, used or not."""


@dataclass(frozen=True, slots=True)
class RentedSpan:
    """Rented time from `start_ms` (epoch) on: nano-dollars, and microseconds of GPU time (length x number of GPUs)."""

    start_ms: int
    billed_nano: int
    gpu_us: int


@dataclass(frozen=True, slots=True)
class Meter:
    """How the rows of a fixed cost follow from it: their kind and length, the number of GPUs (0 for other costs), and
    the nano-dollars that all of it costs per hour or per calendar month."""

    id: str
    kind: Literal["gpu_hour", "fixed"]
    span_ms: int
    gpus: int
    rate_nano: int
    per: Literal["hour", "month"]
    started_ms: int
    stopped_ms: int | None

    def billed_nano(self, start_ms: int, end_ms: int) -> int:
        """Return the nano-dollars of [start, end), rounded on the running total since the start."""
        return self._until(end_ms) - self._until(start_ms)

    def gpu_us(self, start_ms: int, end_ms: int) -> int:
        """Return the GPU time of [start, end)."""
        return (end_ms - start_ms) * 1000 * self.gpus

    def edge(self, number: int) -> int:
        """Return the time (epoch ms) at which part `number` ends unless the stop comes first."""
        return (self.started_ms // self.span_ms + number + 1) * self.span_ms

    def _until(self, at_ms: int) -> int:
        if self.per == "month":
            return self.rate_nano * (months_until(at_ms) - months_until(self.started_ms)) // MONTH_UNITS
        return self.rate_nano * (at_ms - self.started_ms) // _HOUR_MS


def meter_of(cost: FixedCost) -> Meter:
    """Return how the rows of a rental or another fixed cost follow from it."""
    if isinstance(cost, OtherCost):
        kind: Literal["gpu_hour", "fixed"] = "fixed"
        span_ms, gpus, rate_nano, monthly = DAY_MS, 0, cost.price_nano_per_month, True
    else:
        kind, span_ms, gpus = "gpu_hour", SPAN_MS, cost.count
        monthly = cost.price_nano_per_month is not None
        rate_nano = cost.count * (cost.price_nano_per_month or 0) if monthly else cost.all_nano_per_hour
    return Meter(
        id=cost.id,
        kind=kind,
        span_ms=span_ms,
        gpus=gpus,
        rate_nano=rate_nano,
        per="month" if monthly else "hour",
        started_ms=cost.started_ms,
        stopped_ms=cost.stopped_ms,
    )


def billed_nano(cost: FixedCost, start_ms: int, end_ms: int) -> int:
    """Return the nano-dollars of a fixed cost in [start, end), rounded on the running total since its start."""
    return meter_of(cost).billed_nano(start_ms, end_ms)


def certain_until(cost: FixedCost, now_ms: int) -> int:
    """Return until when a running cost is known to run. The rental of a router goes as far as the router was seen."""
    if isinstance(cost, OtherCost) or cost.source != ROUTER or cost.seen_ms is None or cost.stopped_ms is not None:
        return now_ms
    return min(now_ms, max(cost.seen_ms, cost.started_ms))


def accrues_until(cost: FixedCost, now_ms: int) -> int:
    """Return until when a running cost counts in reports: the present, or for the rental of a router that was not seen
    for half an hour, when it was seen last."""
    certain_ms = certain_until(cost, now_ms)
    return now_ms if now_ms - certain_ms <= CONTINUE_MS else certain_ms


def due(cost: FixedCost, now_ms: int, first: int = 0) -> Iterator[Entry]:
    """Yield the rows of the parts that are over, from part `first` on."""
    meter = meter_of(cost)
    number = first
    while True:
        begin = max(meter.started_ms, meter.edge(number - 1))
        edge = meter.edge(number)
        until = edge if meter.stopped_ms is None else min(edge, meter.stopped_ms)
        if until > now_ms or begin >= until:
            return
        yield Entry(
            kind=meter.kind,
            request_id=meter.id,
            attempt_no=number,
            ts=begin,
            local=meter.kind == "gpu_hour",
            gpu_us=meter.gpu_us(begin, until),
            amount_nano=meter.billed_nano(begin, until),
        )
        number += 1


@dataclass(frozen=True, slots=True)
class BookedRental:
    """The rows of a rental or another cost that are on the books: by number, the first missing number, the time that
    they speak of up to (epoch ms), and their corrections."""

    parts: Mapping[int, Entry]
    first_missing: int
    until_ms: int
    corrections: Sequence[Entry] = ()

    @property
    def rows(self) -> tuple[Entry, ...]:
        """All rows, the corrections last."""
        return (*self.parts.values(), *self.corrections)


def booked(ledger: Ledger, cost: FixedCost) -> BookedRental:
    """Read the rows of a rental or another fixed cost."""
    meter = meter_of(cost)
    rows = ledger.entries_of(cost.id)
    parts = {row.attempt_no: row for row in rows if row.kind == meter.kind}
    first = 0
    while first in parts:
        first += 1
    until = meter.edge(first - 1) if first else meter.started_ms
    if meter.stopped_ms is not None:
        until = min(until, meter.stopped_ms)
    return BookedRental(parts, first, until, tuple(row for row in rows if row.kind == "fixed_adjusted"))


def accrued(cost: FixedCost, on_books: BookedRental, start_ms: int, end_ms: int, now_ms: int) -> list[RentedSpan]:
    """Return what a fixed cost was in [start, end) until now: its rows there, then the rest, cut at midnights."""
    meter = meter_of(cost)
    spans = [RentedSpan(row.ts, row.amount_nano, row.gpu_us) for row in on_books.rows if start_ms <= row.ts < end_ms]
    begin = max(on_books.until_ms, start_ms)
    end = min(end_ms, accrues_until(cost, now_ms) if cost.stopped_ms is None else min(now_ms, cost.stopped_ms))
    while begin < end:
        until = min(end, (begin // DAY_MS + 1) * DAY_MS)
        spans.append(RentedSpan(begin, meter.billed_nano(begin, until), meter.gpu_us(begin, until)))
        begin = until
    return spans


def write_rows(ledger: Ledger, rows: Sequence[Entry]) -> bool:
    """Write rows; return whether all of them are on the books as they are here.

    A row that another process wrote first with other content stays. Raises LedgerUnavailableError; rows written before
    that stay.
    """
    whole = True
    for at in range(0, len(rows), _ROWS_PER_COMMIT):
        results = ledger.commit([Write((row,)) for row in rows[at : at + _ROWS_PER_COMMIT]])
        whole = whole and not any(results)
    return whole
