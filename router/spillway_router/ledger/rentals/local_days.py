"""Rented time on the days of a reader's time zone.

Rows of a rental are at most a quarter of an hour long, so each of them lies within one day of any time zone. A
correction belongs to a whole UTC day, however, and time without rows yet may be longer. Both are cut where the reader's
days start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from spillway_router.ledger.calendar import DAY_MS, Days
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import RentedSpan, billed_nano


def on_days(record: RentalRecord, spans: Sequence[RentedSpan], days: Days) -> list[RentedSpan]:
    """Return the time of a rental within some days, cut where they start.

    `spans` are all of its spans on the UTC days that overlap them. Each UTC day keeps its sums to the nano-dollar.
    """
    by_utc_day: dict[int, list[RentedSpan]] = defaultdict(list)
    for span in spans:
        by_utc_day[span.start_ms // DAY_MS].append(span)
    placed: list[RentedSpan] = []
    for of_day in by_utc_day.values():
        if all(_is_exact(record, span) for span in of_day):
            placed += (piece for span in of_day for piece in _cut(record, span, days))
        else:
            placed += _spread(record, of_day, days)
    return [span for span in placed if days.start_ms <= span.start_ms < days.end_ms]


def _is_exact(record: RentalRecord, span: RentedSpan) -> bool:
    """Return whether a span costs what its time costs; corrections don't."""
    length_ms = span.gpu_us // (1000 * record.count)
    return length_ms > 0 and span.billed_nano == billed_nano(record, span.start_ms, span.start_ms + length_ms)


def _cut(record: RentalRecord, span: RentedSpan, days: Days) -> Iterator[RentedSpan]:
    for start_ms, end_ms in _pieces(span.start_ms, span.gpu_us // (1000 * record.count), days):
        gpu_us = (end_ms - start_ms) * 1000 * record.count
        yield RentedSpan(start_ms, billed_nano(record, start_ms, end_ms), gpu_us)


def _spread(record: RentalRecord, spans: Sequence[RentedSpan], days: Days) -> Iterator[RentedSpan]:
    """Yield what is left of a UTC day after its corrections, evenly over the time that is left."""
    start_ms = min(span.start_ms for span in spans)
    nano, gpu_us = sum(span.billed_nano for span in spans), sum(span.gpu_us for span in spans)
    length_ms = gpu_us // (1000 * record.count)
    if length_ms <= 0:
        yield RentedSpan(start_ms, nano, gpu_us)
        return
    nano_so_far = us_so_far = 0
    for piece_ms, end_ms in _pieces(start_ms, length_ms, days):
        share = end_ms - start_ms
        nano_until, us_until = nano * share // length_ms, gpu_us * share // length_ms
        yield RentedSpan(piece_ms, nano_until - nano_so_far, us_until - us_so_far)
        nano_so_far, us_so_far = nano_until, us_until


def _pieces(start_ms: int, length_ms: int, days: Days) -> Iterator[tuple[int, int]]:
    """Yield the parts of some time (at most a day) between the starts of days."""
    end_ms = start_ms + length_ms
    inner = [edge for edge in days.edges if start_ms < edge < end_ms]
    return zip((start_ms, *inner), (*inner, end_ms), strict=True)
