"""Rented time on the days of a time zone: nothing is lost where the days of UTC are cut."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest

from spillway_router.ledger.calendar import DAY_MS, days_of, start_of
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import RentedSpan, billed_nano
from spillway_router.ledger.rentals.local_days import on_days

FIRST = date(2026, 10, 24)
BERLIN = ZoneInfo("Europe/Berlin")


def rental(started_ms: int, count: int = 1) -> RentalRecord:
    return RentalRecord(
        id="rent",
        gpu="t4",
        count=count,
        price_nano_per_hour=1_390_000_001,
        kind="reserved",
        started_ms=started_ms,
        stopped_ms=None,
        source="cli",
    )


def test_a_day_of_25_hours_costs_25_hours() -> None:
    days = days_of(FIRST, FIRST + timedelta(days=3), BERLIN)
    record = rental(start_of(FIRST) - DAY_MS)
    spans = [
        RentedSpan(at, billed_nano(record, at, at + DAY_MS), DAY_MS * 1000)
        for at in range(start_of(FIRST) - DAY_MS, start_of(FIRST) + 4 * DAY_MS, DAY_MS)
    ]
    by_day = dict.fromkeys(days.names, 0)
    for span in on_days(record, spans, days):
        by_day[days.name_at(span.start_ms)] += span.gpu_us
    assert by_day == {"2026-10-24": 24 * 3600 * 10**6, "2026-10-25": 25 * 3600 * 10**6, "2026-10-26": 24 * 3600 * 10**6}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu", "Pacific/Chatham"])
def test_what_is_left_after_a_correction_is_spread_over_the_time_that_is_left(zone: str) -> None:
    """A machine was gone at 03:00, after 24 hours were booked; 21 hours are taken off in one row for the UTC day."""
    midnight = start_of(FIRST)
    record = rental(midnight, count=2)
    hour = DAY_MS // 24
    whole, right = billed_nano(record, midnight, midnight + DAY_MS), billed_nano(record, midnight, midnight + 3 * hour)
    booked = RentedSpan(midnight, whole, DAY_MS * 2000)
    correction = RentedSpan(midnight, right - whole, -21 * hour * 2000)
    days = days_of(FIRST - timedelta(days=1), FIRST + timedelta(days=2), ZoneInfo(zone))
    spans = on_days(record, [booked, correction], days)
    assert (sum(span.billed_nano for span in spans), sum(span.gpu_us for span in spans)) == (right, 3 * hour * 2000)
    assert all(span.billed_nano >= 0 and span.gpu_us >= 0 for span in spans)
    for span in spans:
        expected = billed_nano(record, span.start_ms, span.start_ms + span.gpu_us // 2000)
        assert abs(span.billed_nano - expected) <= 1


def test_each_utc_day_keeps_its_sum() -> None:
    rng = Random(1)
    for _ in range(200):
        midnight = start_of(FIRST)
        record = rental(midnight + rng.randint(0, DAY_MS // 2), rng.choice((1, 3)))
        length = rng.randint(1, midnight + DAY_MS - record.started_ms)
        nano = billed_nano(record, record.started_ms, record.started_ms + length) + rng.choice((0, 0, -5, 7))
        span = RentedSpan(record.started_ms, nano, length * 1000 * record.count)
        zone = ZoneInfo(rng.choice(("Asia/Kolkata", "America/St_Johns", "Pacific/Auckland")))
        days = days_of(FIRST - timedelta(days=1), FIRST + timedelta(days=3), zone)
        placed = on_days(record, [span], days)
        assert (sum(p.billed_nano for p in placed), sum(p.gpu_us for p in placed)) == (span.billed_nano, span.gpu_us)
