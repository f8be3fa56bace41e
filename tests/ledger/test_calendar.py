"""Days of time zones: where they start, and the stretches in which SQL can tell them apart by one sum."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from spillway_router.ledger.calendar import DAY_MS, QUARTER_MS, days_of, utc_days

ZONES = sorted(available_timezones())


def local_date(epoch_ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(epoch_ms // 1000, UTC).astimezone(zone).date().isoformat()


@pytest.mark.parametrize("zones", [ZONES[at::10] for at in range(10)], ids=range(10))
def test_days_begin_at_every_zones_midnight_whatever_its_clock_does(zones: list[str]) -> None:
    for name in zones:
        zone = ZoneInfo(name)
        days = days_of(date(2026, 1, 1), date(2027, 1, 1), zone)
        for day, start_ms, end_ms in days.each():
            assert (local_date(start_ms, zone), local_date(end_ms - 1, zone)) == (day, day), name
            assert local_date(start_ms - 1, zone) < day
            assert days.name_at(start_ms) == days.name_at(end_ms - 1) == day
        last_ms = days.start_ms
        for stretch in days.stretches():
            assert stretch.start_ms == last_ms
            assert stretch.start_ms % QUARTER_MS == stretch.shift_ms % QUARTER_MS == 0, name
            for at_ms in (stretch.start_ms, stretch.end_ms - 1):
                number = (at_ms + stretch.shift_ms) // DAY_MS
                assert (date(1970, 1, 1) + timedelta(days=number)).isoformat() == local_date(at_ms, zone), name
            last_ms = stretch.end_ms
        assert last_ms == days.end_ms


def test_utc_days_may_begin_and_end_within_a_day() -> None:
    days = utc_days(5 * QUARTER_MS, DAY_MS + QUARTER_MS)
    assert list(days.each()) == [
        ("1970-01-01", 5 * QUARTER_MS, DAY_MS),
        ("1970-01-02", DAY_MS, DAY_MS + QUARTER_MS),
    ]
    assert (utc_days(0, DAY_MS).is_utc, days.is_utc) == (True, False)
