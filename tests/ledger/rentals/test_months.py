"""Prices per month: every calendar month sums to exactly its price, and other fixed costs are never a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from spillway_router.ledger.calendar import DAY_MS, days_of, utc_days
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import billed_nano
from spillway_router.ledger.rentals.fixed_cost import other_costs, rent
from spillway_router.ledger.rentals.keeper import Books
from spillway_router.ledger.rentals.other_costs import OtherCostTerms, keep_other_costs
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DOLLAR = 10**9


def ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type]


NOVEMBER = utc_days(ms(2026, 11, 1), ms(2026, 12, 1))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


def reserved(start: int, stop: int | None, count: int = 1) -> RentalRecord:
    return RentalRecord(
        id="rent_1",
        gpu="a100-80",
        count=count,
        price_nano_per_hour=342_465_753,
        kind="reserved",
        started_ms=start,
        stopped_ms=stop,
        source="cli",
        price_nano_per_month=250 * DOLLAR,
    )


@pytest.mark.parametrize("year", [2027, 2028])
def test_every_month_costs_its_price_whatever_its_days_and_the_start(ledger: SqliteLedger, year: int) -> None:
    start = ms(year - 1, 12, 11, 7, 13, 17)
    ledger.rentals.add(reserved(start, None))
    now = ms(year + 1, 1, 1)
    Books(ledger).settle(now)
    for month in range(1, 13):
        first, after = ms(year, month, 1), ms(year + month // 12, month % 12 + 1, 1)
        assert ledger.rented(first, after).billed_nano == 250 * DOLLAR
    december = ledger.rented(start, ms(year, 1, 1)).billed_nano
    assert december == 250 * DOLLAR * (ms(year, 1, 1) - start) // (31 * DAY_MS)


def test_half_of_february_and_two_gpus() -> None:
    assert billed_nano(reserved(ms(2027, 2, 1), None, 2), ms(2027, 2, 1), ms(2027, 2, 15)) == 250 * DOLLAR


def test_other_costs_are_booked_by_the_month_and_are_no_gpu(ledger: SqliteLedger) -> None:
    wanted = (
        OtherCostTerms("database", 50 * DOLLAR, ms(2026, 10, 1)),
        OtherCostTerms("hosting", 50 * DOLLAR, ms(2026, 11, 16)),
    )
    keep_other_costs(ledger, wanted, ms(2026, 11, 20))
    keep_other_costs(ledger, wanted, ms(2026, 11, 21))
    now = ms(2026, 12, 5)
    for _ in range(2):
        november = other_costs(ledger, NOVEMBER, now)
        assert [(cost.name, nano) for cost, nano in november.costs] == [
            ("database", 50 * DOLLAR),
            ("hosting", 25 * DOLLAR),
        ]
        assert sum(november.days.values()) == november.nano == 75 * DOLLAR
        Books(ledger).settle(now)
    assert rent(ledger, ms(2026, 11, 1), ms(2026, 12, 1), now).days == {}
    assert ledger.rented(0, now).billed_nano == 0


def test_other_costs_on_the_days_of_another_time_zone(ledger: SqliteLedger) -> None:
    keep_other_costs(ledger, (OtherCostTerms("disk", 31 * DOLLAR, ms(2026, 10, 1)),), ms(2026, 10, 1))
    days = days_of(date(2026, 10, 24), date(2026, 10, 27), ZoneInfo("Europe/Berlin"))
    costs = other_costs(ledger, days, ms(2026, 12, 1))
    hours = [round(nano / DOLLAR * 24) for nano in costs.days.values()]
    assert hours == [24, 25, 24], "the clock went back on 25 October"


def test_a_cost_that_leaves_the_configuration_ends_and_another_price_begins(ledger: SqliteLedger) -> None:
    keep_other_costs(ledger, (OtherCostTerms("disk", 30 * DOLLAR, ms(2026, 11, 1)),), ms(2026, 11, 1))
    keep_other_costs(ledger, (OtherCostTerms("disk", 60 * DOLLAR, ms(2026, 11, 1)),), ms(2026, 11, 11))
    keep_other_costs(ledger, (), ms(2026, 11, 21))
    november = other_costs(ledger, NOVEMBER, ms(2026, 12, 1))
    assert [nano for _, nano in november.costs] == [10 * DOLLAR, 20 * DOLLAR]


def test_two_routers_begin_a_cost_once(tmp_path: Path) -> None:
    opened = [SqliteLedger.open(tmp_path / "spillway.db") for _ in range(2)]
    wanted = (OtherCostTerms("database", 50 * DOLLAR),)
    for ledger in opened:
        keep_other_costs(ledger, wanted, ms(2026, 11, 20, 12))
    (cost,) = opened[0].other_costs.all()
    assert cost.started_ms == ms(2026, 11, 20), "a day is paid for whole"
    for ledger in opened:
        ledger.close()
