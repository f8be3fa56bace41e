"""Rented time as ledger rows: how the fixed cost of hours gets on the books.

The router keeps a `GpuMeter` from its start and asks it every minute (and once when it stops) for the rows
since the last time. A row is `gpu_hour` of `gpu-<boot id>` with a running attempt number; `ts` is the start
of its span, `amount_nano` what the span cost, `gpu_us` the GPU time in it (length x GPUs). Spans never
overlap, leave no gap and are cut at midnight UTC, so a day's rows are that day's bill. What is billed is
therefore the time the router ran: a GPU that is rented while the router is down costs money that these rows
don't know, and a crash loses at most the last unwritten minute.

Pure. Take the new meter only once its rows are durable: until then the old one gives the same span again,
longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_router.core.attribution import GpuRental
from spillway_router.ledger.entries import Entry

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class GpuMeter:
    """Billing state of one router process: epoch milliseconds of its begin and of the last row's end."""

    boot_id: str
    rental: GpuRental
    since_ms: int
    billed_until_ms: int
    next_no: int = 0


def started(boot_id: str, rental: GpuRental, now_ms: int) -> GpuMeter:
    """A meter that starts now. `boot_id` must differ between starts and replicas."""
    return GpuMeter(boot_id, rental, now_ms, now_ms)


def repriced(meter: GpuMeter, rental: GpuRental) -> GpuMeter:
    """The meter from its last row on at another price or number of GPUs (config reload)."""
    return replace(meter, rental=rental, since_ms=meter.billed_until_ms)


def metered(meter: GpuMeter, now_ms: int) -> tuple[GpuMeter, tuple[Entry, ...]]:
    """Rows for the time since the last ones, one per day touched; none if the clock stands or went back."""
    entries: list[Entry] = []
    while meter.billed_until_ms < now_ms:
        begin = meter.billed_until_ms
        end = min(now_ms, (begin // _DAY_MS + 1) * _DAY_MS)
        entries.append(
            Entry(
                kind="gpu_hour",
                request_id=f"gpu-{meter.boot_id}",
                attempt_no=meter.next_no,
                ts=begin,
                local=True,
                gpu_us=(end - begin) * 1000 * meter.rental.count,
                amount_nano=meter.rental.span_nano((begin - meter.since_ms) * 1000, (end - meter.since_ms) * 1000),
            )
        )
        meter = replace(meter, billed_until_ms=end, next_no=meter.next_no + 1)
    return meter, tuple(entries)
