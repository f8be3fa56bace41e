"""Rented time on the books: no gap, no overlap, cut at every quarter hour, exact in sum, the same whoever writes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import SPAN_MS, BookedRental, accrued, billed_nano, booked, due
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DAY = 20_000 * DAY_MS
HOUR = 3_600_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


def rental(
    start: int, stop: int | None, nano: int = 1_390_000_000, count: int = 1, name: str = "rent_1"
) -> RentalRecord:
    return RentalRecord(
        id=name,
        gpu="a100-80",
        count=count,
        price_nano_per_hour=nano,
        kind="reserved",
        started_ms=start,
        stopped_ms=stop,
        source="cli",
    )


rentals = st.builds(
    lambda start, length, nano, count: rental(DAY + start, DAY + start + length, nano, count),
    st.integers(0, DAY_MS),
    st.integers(0, 3 * DAY_MS // 10),
    st.integers(0, 10**11),
    st.integers(1, 8),
)


@given(rentals)
def test_rows_cover_the_time_once_and_sum_to_its_price(record: RentalRecord) -> None:
    assert record.stopped_ms is not None
    rows = list(due(record, record.stopped_ms))
    at = record.started_ms
    for number, row in enumerate(rows):
        assert (row.kind, row.request_id, row.attempt_no, row.ts) == ("gpu_hour", record.id, number, at)
        at += row.gpu_us // 1000 // record.count
        assert row.ts // SPAN_MS == (at - 1) // SPAN_MS, "no row crosses a quarter hour, so none a midnight"
    assert at == record.stopped_ms
    exact = record.price_nano_per_hour * record.count * (record.stopped_ms - record.started_ms) // HOUR
    assert sum(row.amount_nano for row in rows) == exact


@given(rentals, st.integers(0, 400), st.lists(st.integers(-DAY_MS, 3 * DAY_MS), max_size=6), st.integers(0, DAY_MS))
def test_what_is_written_and_what_is_not_yet_sum_to_the_whole(
    record: RentalRecord, on_books: int, cuts: list[int], later: int
) -> None:
    assert record.stopped_ms is not None
    now = record.stopped_ms + later
    parts = {row.attempt_no: row for row in due(record, now) if row.attempt_no < on_books}
    last = parts.get(len(parts) - 1)
    until = record.started_ms if last is None else last.ts + last.gpu_us // 1000 // record.count
    booked = BookedRental(parts, len(parts), until)
    edges = sorted({DAY - DAY_MS, DAY + 3 * DAY_MS, *((DAY + cut) // SPAN_MS * SPAN_MS for cut in cuts)})
    hours = [
        part for a, b in itertools.pairwise(edges) for part in accrued(record, booked, start_ms=a, end_ms=b, now_ms=now)
    ]
    assert sum(part.billed_nano for part in hours) == billed_nano(record, record.started_ms, record.stopped_ms)
    assert sum(part.gpu_us for part in hours) == (record.stopped_ms - record.started_ms) * 1000 * record.count


def test_a_running_rental_has_a_row_for_every_part_that_is_over() -> None:
    rows = list(due(rental(DAY + 60_000, None), DAY + 2 * SPAN_MS + 5))
    assert [(row.ts - DAY, row.gpu_us // 1000) for row in rows] == [(60_000, SPAN_MS - 60_000), (SPAN_MS, SPAN_MS)]


def test_an_hour_of_two_gpus() -> None:
    rows = list(due(rental(DAY, DAY + HOUR, count=2), DAY + HOUR))
    assert sum(row.amount_nano for row in rows) == 2_780_000_000
    assert sum(row.gpu_us for row in rows) == 7_200_000_000


def test_books_catch_up_after_nobody_wrote(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY + 7, None))
    assert RentalBooks(ledger).write_due(DAY + DAY_MS) == 96
    books = RentalBooks(ledger)
    assert books.write_due(DAY + DAY_MS + SPAN_MS) == 1
    assert books.write_due(DAY + DAY_MS + SPAN_MS) == 0
    ledger.rentals.stop("rent_1", DAY + DAY_MS + SPAN_MS + 10)
    assert books.write_due(DAY + 2 * DAY_MS) == 1
    assert ledger.rented(0, DAY * 2).billed_nano == 1_390_000_000 * (DAY_MS + SPAN_MS + 10 - 7) // HOUR
    (record,) = ledger.rentals.between(0, DAY * 2)
    assert booked(ledger, record).until_ms == DAY + DAY_MS + SPAN_MS + 10


def test_two_processes_write_the_same_rows_once(tmp_path: Path) -> None:
    opened = [SqliteLedger.open(tmp_path / "spillway.db") for _ in range(2)]
    opened[0].rentals.add(rental(DAY, DAY + 3 * DAY_MS))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda ledger: RentalBooks(ledger).write_due(DAY * 2), opened))
    assert len(opened[0].entries_of("rent_1")) == 3 * 96
    assert opened[0].rented(0, DAY * 2).billed_nano == 1_390_000_000 * 72
    for ledger in opened:
        ledger.close()
