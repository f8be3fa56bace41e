"""Rented time on the books: no gap, no overlap, cut at midnight, exact in sum."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.attribution import GpuRental
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.gpu_hours import metered, repriced, started

DAY_MS = 86_400_000
BEGIN = 20_000 * DAY_MS + 80_000_000
RENTAL = GpuRental(Decimal("1.39"), 2)


@given(st.lists(st.integers(-1000, 40_000_000), max_size=20), st.decimals(0, 50, places=3), st.integers(1, 4))
def test_rows_cover_the_time_once_and_sum_to_its_price(steps: list[int], price: Decimal, gpus: int) -> None:
    rental = GpuRental(price, gpus)
    meter = started("b1", rental, BEGIN)
    rows: list[Entry] = []
    now = latest = BEGIN
    for step in steps:
        now += step
        latest = max(latest, now)
        meter, more = metered(meter, now)
        rows += more
    at = BEGIN
    for number, row in enumerate(rows):
        length = row.gpu_us // 1000 // gpus
        assert (row.ts, row.attempt_no, row.request_id) == (at, number, "gpu-b1")
        assert row.ts // DAY_MS == (row.ts + length - 1) // DAY_MS
        at += length
    assert at == latest
    assert sum(row.amount_nano for row in rows) == rental.span_nano(0, (latest - BEGIN) * 1000)


def test_an_hour_of_two_gpus() -> None:
    _, rows = metered(started("b1", RENTAL, 0), 3_600_000)
    assert [(row.kind, row.amount_nano, row.gpu_us) for row in rows] == [("gpu_hour", 2_780_000_000, 7_200_000_000)]


def test_a_meter_that_was_not_taken_gives_the_span_again_and_longer() -> None:
    meter = started("b1", RENTAL, 0)
    _, lost = metered(meter, 60_000)
    _, again = metered(meter, 120_000)
    assert lost[0].key == again[0].key
    assert again[0].gpu_us == 2 * lost[0].gpu_us


def test_a_new_price_counts_from_the_last_row() -> None:
    meter, first = metered(started("b1", RENTAL, 0), 3_600_000)
    meter, second = metered(repriced(meter, GpuRental(Decimal(10))), 7_200_000)
    assert [row.amount_nano for row in (*first, *second)] == [2_780_000_000, 10_000_000_000]
    assert [row.attempt_no for row in (*first, *second)] == [0, 1]
