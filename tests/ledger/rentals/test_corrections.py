"""What was booked wrongly is put right by signed rows, on the days that they belong to, to the nano-dollar."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import billed_nano
from spillway_router.ledger.rentals.closed_days import idle_id, idle_times
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.rentals.fixed_cost import rent
from spillway_router.ledger.rentals.keeper import Books
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing.books import local_work

DAY = 20_000 * DAY_MS
HOUR = 3_600_000
MINUTE = 60_000
CENT = 10**7


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


def rental(start: int, nano: int, name: str = "rent_1", count: int = 1) -> RentalRecord:
    return RentalRecord(
        id=name,
        gpu="a100-80",
        count=count,
        price_nano_per_hour=nano,
        kind="interruptible",
        started_ms=start,
        stopped_ms=None,
        source="cli",
    )


def billed(ledger: SqliteLedger, start: int, end: int, now: int) -> int:
    return sum(day.billed_nano for day in rent(ledger, start, end, now).days.values())


def closed_idle(ledger: SqliteLedger, day: int) -> int:
    return sum(row.amount_nano for row in ledger.entries_of(idle_id(day_of(day))))


def test_a_spot_machine_outbid_at_three_and_noticed_the_next_day_costs_ninety_cents(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 30 * CENT))
    ledger.append((local_work("r1", DAY + HOUR, 60_000_000),))
    books, next_day = Books(ledger), DAY + DAY_MS + 27 * MINUTE
    books.settle(next_day)
    books.close_days(next_day)
    assert billed(ledger, DAY, DAY + 2 * DAY_MS, next_day) == 7_335_000_000
    ledger.rentals.move_stop("rent_1", DAY + 3 * HOUR)
    Books(ledger).settle(next_day)
    assert billed(ledger, DAY, DAY + DAY_MS, next_day) == 90 * CENT
    assert billed(ledger, DAY, DAY + 2 * DAY_MS, next_day) == 90 * CENT
    assert ledger.rented(DAY, DAY + 2 * DAY_MS).billed_nano == 90 * CENT
    assert closed_idle(ledger, DAY) == 90 * CENT - 30 * CENT // 60
    kinds = [(row.kind, row.decision, row.attempt_no) for row in ledger.entries_of("rent_1") if row.amount_nano < 0]
    assert kinds == [("fixed_adjusted", "gpu_hour", 0), ("fixed_adjusted", "gpu_hour", 1)]
    assert verify(ledger).faults == ()


def test_a_rental_forgotten_for_a_month_is_put_right_after_another_was_stopped(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 139 * CENT, "rent_forgotten"))
    ledger.rentals.add(rental(DAY + 10 * DAY_MS, 164 * CENT, "rent_other"))
    now = DAY + 28 * DAY_MS
    ledger.rentals.stop("rent_other", now)
    Books(ledger).settle(now)
    ledger.rentals.move_stop("rent_forgotten", DAY + HOUR)
    Books(ledger).settle(now)
    assert billed(ledger, DAY, now, now) == 139 * CENT + 164 * CENT * 24 * 18


def test_a_later_end_is_put_right_too(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 60 * CENT))
    ledger.rentals.stop("rent_1", DAY + 7 * MINUTE)
    Books(ledger).settle(DAY + DAY_MS)
    ledger.rentals.move_stop("rent_1", DAY + 2 * HOUR)
    Books(ledger).settle(DAY + DAY_MS)
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == 120 * CENT


def test_a_process_that_writes_on_an_old_view_is_corrected(ledger: SqliteLedger) -> None:
    record = rental(DAY, 60 * CENT)
    ledger.rentals.add(record)
    stale = RentalBooks(ledger)
    stale.write_due(DAY + HOUR)
    ledger.rentals.move_stop("rent_1", DAY + 20 * MINUTE)
    Books(ledger).settle(DAY + HOUR)
    # The stale process has read the rental before its end moved, and writes one more row.
    stale._write(record, DAY + HOUR + 15 * MINUTE)
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == 35 * CENT
    stale.write_due(DAY + HOUR + 16 * MINUTE)
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == 20 * CENT


def test_processes_that_correct_at_once_correct_once(tmp_path: Path) -> None:
    opened = [SqliteLedger.open(tmp_path / "spillway.db") for _ in range(4)]
    opened[0].rentals.add(rental(DAY, 123_456_789))
    now = DAY + 5 * DAY_MS
    RentalBooks(opened[0]).write_due(now)
    opened[0].rentals.move_stop("rent_1", DAY + 1234 * MINUTE + 7)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda ledger: Books(ledger).settle(now), opened))
    whole = 123_456_789 * (1234 * MINUTE + 7) // HOUR
    assert opened[0].rented(DAY, now).billed_nano == whole
    for ledger in opened:
        ledger.close()


def test_a_day_that_lost_its_rental_after_it_was_closed_has_no_idle_time(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 60 * CENT))
    books, now = Books(ledger), DAY + 3 * DAY_MS
    books.settle(now)
    books.close_days(now)
    assert closed_idle(ledger, DAY + DAY_MS) == 24 * 60 * CENT
    ledger.rentals.move_stop("rent_1", DAY)
    books.settle(now)
    assert [closed_idle(ledger, DAY + n * DAY_MS) for n in range(3)] == [0, 0, 0]
    assert verify(ledger).faults == ()


def test_a_closed_day_gets_the_rent_that_was_declared_late(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 60 * CENT))
    books, now = Books(ledger), DAY + 3 * DAY_MS
    books.settle(now)
    books.close_days(now)
    ledger.rentals.add(rental(DAY + HOUR, 10 * CENT, "rent_2"))
    books.settle(now)
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT + 23 * 10 * CENT


def test_a_day_that_had_no_rent_when_it_was_over_is_closed_once_it_has(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY + 2 * DAY_MS, 60 * CENT))
    books, now = Books(ledger), DAY + 4 * DAY_MS
    books.settle(now)
    books.close_days(now)
    assert closed_idle(ledger, DAY) == 0
    ledger.rentals.add(rental(DAY + HOUR, 10 * CENT, "rent_2"))
    books.settle(now)
    assert closed_idle(ledger, DAY) == 23 * 10 * CENT


def test_a_day_that_was_closed_on_time_without_rows_is_corrected(ledger: SqliteLedger) -> None:
    """A router was seen last at 23:50, and is taken for alive when the day is closed at 00:12."""
    record = replace(rental(DAY, 60 * CENT), source="router", machine="pod-0", seen_ms=DAY + DAY_MS - 10 * MINUTE)
    ledger.rentals.add(record)
    books = Books(ledger)
    books.settle(DAY + DAY_MS + 12 * MINUTE)
    books.close_days(DAY + DAY_MS + 12 * MINUTE)
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT
    ledger.rentals.stop(record.id, DAY + DAY_MS - 10 * MINUTE)
    Books(ledger).settle(DAY + DAY_MS + 40 * MINUTE)
    assert ledger.rented(DAY, DAY + 2 * DAY_MS).billed_nano == 23 * 60 * CENT + 50 * CENT
    assert closed_idle(ledger, DAY) == 23 * 60 * CENT + 50 * CENT


def test_work_whose_row_comes_after_its_day_was_closed_is_no_idle_time(ledger: SqliteLedger) -> None:
    """It waited in the journal of a router that could not reach the ledger."""
    ledger.rentals.add(rental(DAY, 60 * CENT))
    books, now = Books(ledger), DAY + DAY_MS + 30 * MINUTE
    books.settle(now)
    books.close_days(now)
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT
    ledger.append((local_work("r1", DAY + 23 * HOUR, 60_000_000),))
    books.close_days(now + MINUTE)
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT
    books.close_days(now + HOUR)
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT - CENT
    assert verify(ledger).faults == ()


def test_a_correction_that_a_crash_left_half_done_is_finished_by_the_next_start(ledger: SqliteLedger) -> None:
    ledger.rentals.add(rental(DAY, 60 * CENT))
    books, now = Books(ledger), DAY + 2 * DAY_MS
    books.settle(now)
    books.close_days(now)
    ledger.rentals.move_stop("rent_1", DAY + HOUR)
    RentalBooks(ledger).write_due(now)  # the rows are corrected, the idle time is not
    assert closed_idle(ledger, DAY) == 24 * 60 * CENT
    Books(ledger).close_days(now)
    assert closed_idle(ledger, DAY) == 60 * CENT


@given(st.integers(0, 2**32), st.integers(1, 10**11))
@settings(max_examples=40, deadline=None)
def test_after_any_ends_and_any_writers_the_books_are_the_rental(seed: int, nano: int) -> None:
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        ledgers = [SqliteLedger.open(Path(folder) / "spillway.db") for _ in range(2)]
        record = rental(DAY + rng.randint(0, DAY_MS), nano, count=rng.randint(1, 3))
        ledgers[0].rentals.add(record)
        writers = [Books(ledger) for ledger in ledgers]
        for number in range(4):
            ledgers[0].append((local_work(f"r{number}", DAY + rng.randint(0, 3 * DAY_MS), rng.randint(0, 10**10)),))
        now = record.started_ms
        for _ in range(8):
            now += rng.randint(0, 6 * HOUR)
            act = rng.choice(("settle", "settle", "close", "stop"))
            if act == "stop":
                ledgers[0].rentals.move_stop(record.id, rng.randint(record.started_ms, now))
            elif act == "settle":
                rng.choice(writers).settle(now)
            else:
                rng.choice(writers).close_days(now)
        stop = rng.randint(record.started_ms, now)
        ledgers[0].rentals.move_stop(record.id, stop)
        for writer in writers:
            writer.settle(now)
            writer.close_days(now)
        ended = replace(record, stopped_ms=stop)
        assert ledgers[0].rented(0, DAY * 2).billed_nano == billed_nano(ended, ended.started_ms, stop)
        for day in range(DAY, now // DAY_MS * DAY_MS, DAY_MS):
            begin, end = max(day, ended.started_ms), min(day + DAY_MS, stop)
            expected = billed_nano(ended, begin, end) if begin < end else 0
            assert ledgers[0].rented(day, day + DAY_MS).billed_nano == expected
            idle = idle_times(ledgers[0], day, day + DAY_MS, now).get(day_of(day))
            if now - day > DAY_MS + 10 * MINUTE:
                assert closed_idle(ledgers[0], day) == (idle.nano if idle else 0)
        assert verify(ledgers[0]).faults == ()
        for ledger in ledgers:
            ledger.close()
