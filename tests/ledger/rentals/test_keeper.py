"""GPU time is billed once, whatever starts, stops, crashes or is declared. Times are minutes of one day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.fixed_cost import rent
from spillway_router.ledger.rentals.keeper import RentalKeeper, RentalTerms, supersede
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DAY = 20_000 * DAY_MS
TERMS = RentalTerms("t4", 1, 60_000_000_000, "reserved")  # a dollar a minute
DOLLAR = 10**9
Make = Callable[..., RentalKeeper]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


@pytest.fixture
def router(ledger: SqliteLedger) -> Make:
    ids = count(1)

    def make(terms: RentalTerms | None = TERMS) -> RentalKeeper:
        return RentalKeeper(ledger, terms, lambda: f"rent_{next(ids)}")

    return make


def at(minute: float) -> int:
    return DAY + round(minute * 60_000)


def billed(ledger: SqliteLedger, now: float) -> float:
    """Dollars of the day so far."""
    return sum(day.billed_nano for day in rent(ledger, DAY, DAY + DAY_MS, at(now)).days.values()) / DOLLAR


def periods(ledger: SqliteLedger) -> list[tuple[str, float, float | None]]:
    rentals = ledger.rentals.between(0, DAY + 2 * DAY_MS)
    return [
        (r.id, (r.started_ms - DAY) / 60_000, None if r.stopped_ms is None else (r.stopped_ms - DAY) / 60_000)
        for r in rentals
    ]


def declare(ledger: SqliteLedger, name: str, minute: float) -> None:
    ledger.rentals.add(
        RentalRecord(
            id=name,
            gpu="a100-80",
            count=1,
            price_nano_per_hour=120_000_000_000,
            kind="interruptible",
            started_ms=at(minute),
            stopped_ms=None,
            source="cli",
        )
    )


def test_a_router_bills_its_uptime(ledger: SqliteLedger, router: Make) -> None:
    keeper = router()
    keeper.begin(at(10))
    keeper.tick(at(50))
    assert billed(ledger, 50) == 40
    keeper.end(at(70.5))
    assert periods(ledger) == [("rent_1", 10, 70.5)]
    assert billed(ledger, 500) == 60.5
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == 60.5 * DOLLAR, "all of it is on the books"


def test_a_quick_restart_after_a_crash_goes_on(ledger: SqliteLedger, router: Make) -> None:
    crashed = router()
    crashed.begin(at(0))
    crashed.tick(at(61))
    again = router()
    again.begin(at(62))
    again.end(at(90))
    assert periods(ledger) == [("rent_1", 0, 90)]


def test_long_after_a_crash_the_rental_ends_when_its_router_was_seen_last(ledger: SqliteLedger, router: Make) -> None:
    crashed = router()
    crashed.begin(at(0))
    crashed.tick(at(61))
    again = router()
    again.begin(at(300))
    again.end(at(310))
    assert periods(ledger) == [("rent_1", 0, 61), ("rent_2", 300, 310)]
    assert billed(ledger, 400) == 71


def test_a_declared_rental_runs_whether_or_not_a_router_does(ledger: SqliteLedger, router: Make) -> None:
    declare(ledger, "rent_cli", 0)
    keeper = router()
    keeper.begin(at(100))
    keeper.end(at(110))
    assert billed(ledger, 200) == 400
    ledger.rentals.stop("rent_cli", at(200))
    later = router()
    later.begin(at(300))
    later.tick(at(360))
    later.end(at(400))
    assert periods(ledger) == [("rent_cli", 0, 200)], "who declares rentals declares them all"
    assert billed(ledger, 500) == 400


def test_a_declared_rental_takes_the_place_of_the_routers(ledger: SqliteLedger, router: Make) -> None:
    keeper = router()
    keeper.begin(at(0))
    keeper.tick(at(20))
    declare(ledger, "rent_cli", 25)
    keeper.tick(at(30))
    assert periods(ledger) == [("rent_1", 0, 25), ("rent_cli", 25, None)]
    supersede(ledger, ledger.rentals.between(0, at(40)))
    keeper.end(at(40))
    assert billed(ledger, 40) == 25 + 2 * 15


def test_replicas_share_one_rental_without_gap_or_overlap(ledger: SqliteLedger, router: Make) -> None:
    first, second = router(), router()
    first.begin(at(0))
    second.begin(at(5))
    first.end(at(33))
    second.tick(at(34))
    second.end(at(60))
    assert periods(ledger) == [("rent_1", 0, 33), ("rent_2", 33, 60)]
    assert billed(ledger, 100) == 60


def test_two_that_began_at_once_end_up_with_one(ledger: SqliteLedger, router: Make) -> None:
    for name in ("rent_a", "rent_b"):
        ledger.rentals.add(
            RentalRecord(
                id=name,
                gpu="t4",
                count=1,
                price_nano_per_hour=60_000_000_000,
                kind="reserved",
                started_ms=at(0),
                stopped_ms=None,
                source="router",
            )
        )
    keeper = router()
    keeper.begin(at(1))
    keeper.end(at(10))
    assert billed(ledger, 100) == 10


def test_another_price_counts_from_the_reload_on(ledger: SqliteLedger, router: Make) -> None:
    keeper = router()
    keeper.begin(at(0))
    keeper.reprice(TERMS, at(5))
    keeper.reprice(RentalTerms("t4", 2, 60_000_000_000, "reserved"), at(10))
    keeper.end(at(20))
    assert periods(ledger) == [("rent_1", 0, 10), ("rent_2", 10, 20)]
    assert billed(ledger, 30) == 10 + 20


def test_without_an_engine_or_a_price_nothing_is_billed(ledger: SqliteLedger, router: Make) -> None:
    keeper = router(None)
    keeper.begin(at(0))
    keeper.tick(at(30))
    keeper.end(at(60))
    assert periods(ledger) == []


def test_a_clock_that_went_back_bills_nothing_twice(ledger: SqliteLedger, router: Make) -> None:
    keeper = router()
    keeper.begin(at(10))
    keeper.tick(at(60))
    keeper.tick(at(20))
    keeper.end(at(30))
    assert periods(ledger) == [("rent_1", 10, 60)]
    assert billed(ledger, 100) == 50


def boxed(machine: str) -> RentalTerms:
    return RentalTerms("t4", 1, 60_000_000_000, "reserved", machine=machine)


def test_replicas_with_a_gpu_each_have_a_rental_each(ledger: SqliteLedger, router: Make) -> None:
    first, second = router(boxed("pod-0")), router(boxed("pod-1"))
    first.begin(at(0))
    second.begin(at(10))
    first.tick(at(20))
    second.tick(at(20))
    second.end(at(30))
    first.end(at(40))
    assert billed(ledger, 100) == 40 + 20


def test_replicas_before_the_same_gpus_share_a_rental(ledger: SqliteLedger, router: Make) -> None:
    first, second = router(boxed("engine:8000")), router(boxed("engine:8000"))
    first.begin(at(0))
    second.begin(at(10))
    first.end(at(30))
    second.tick(at(31))
    second.end(at(40))
    assert billed(ledger, 100) == 40


def test_a_replica_that_crashed_is_billed_until_it_was_seen_last_whoever_writes(
    ledger: SqliteLedger, router: Make
) -> None:
    crashed, other = router(boxed("pod-0")), router(boxed("pod-1"))
    crashed.begin(at(0))
    crashed.tick(at(17))
    other.begin(at(0))
    for minute in range(20, 100, 10):
        other.tick(at(minute))
    assert billed(ledger, 100) == 17 + 100
    other.end(at(100))
    assert billed(ledger, 300) == 17 + 100
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == 117 * DOLLAR


def test_a_report_does_not_go_on_billing_a_router_that_nobody_saw_for_hours(ledger: SqliteLedger, router: Make) -> None:
    crashed = router(boxed("pod-0"))
    crashed.begin(at(0))
    crashed.tick(at(17))
    assert billed(ledger, 40) == 40, "it may only be busy"
    assert billed(ledger, 500) == 17


def test_two_gpus_are_billed_as_two(ledger: SqliteLedger, router: Make) -> None:
    keeper = router(RentalTerms("t4", 2, 60_000_000_000, "reserved"))
    keeper.begin(at(0))
    keeper.end(at(10))
    assert billed(ledger, 100) == 20


def test_what_routers_billed_after_the_declared_start_is_taken_back(ledger: SqliteLedger, router: Make) -> None:
    keeper = router()
    keeper.begin(at(0))
    keeper.tick(at(120))
    declare(ledger, "rent_cli", 50)
    keeper.tick(at(121))
    assert periods(ledger) == [("rent_1", 0, 50), ("rent_cli", 50, None)]
    assert ledger.rented(DAY, DAY + DAY_MS).billed_nano == (50 + 2 * 70) * DOLLAR
    assert billed(ledger, 125) == 50 + 2 * 75
