"""The books follow what providers say of machines: ended, outbid, gone, running again, at another price."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.keeper import Books
from spillway_router.ledger.rentals.watch import PriceStep, Sighting, follow, followed, next_rental_id, split_price
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DAY = 20_000 * DAY_MS
HOUR = 3_600_000
DOLLAR = 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    opened.rentals.add(machine(opened))
    yield opened
    opened.close()


def machine(ledger: SqliteLedger, name: str = "777", nano: int = DOLLAR) -> RentalRecord:
    return RentalRecord(
        id=next_rental_id(ledger, "vast", name, DAY),
        gpu="a100-80",
        count=1,
        price_nano_per_hour=nano,
        kind="interruptible",
        started_ms=DAY,
        stopped_ms=None,
        source="vast",
        machine=name,
        seen_ms=DAY,
    )


def look(ledger: SqliteLedger, sighting: Sighting, at: float) -> list[tuple[str, float]]:
    now = DAY + round(at * HOUR)
    changes = [change for record in followed(ledger, now) for change in follow(ledger, record, sighting, now)]
    Books(ledger).settle(now)
    return [(change.act, (change.at_ms - DAY) / HOUR) for change in changes]


def dollars(ledger: SqliteLedger) -> float:
    return ledger.rented(0, DAY * 2).billed_nano / DOLLAR


RUNNING = Sighting("running", "running")


def test_a_machine_that_was_outbid_ends_at_the_time_that_the_provider_tells(ledger: SqliteLedger) -> None:
    assert look(ledger, RUNNING, 2) == []
    assert look(ledger, Sighting("stopped", "outbid", since_ms=DAY + 3 * HOUR), 27) == [("ended", 3)]
    assert dollars(ledger) == 3
    assert look(ledger, Sighting("stopped", "outbid"), 28) == []


def test_a_machine_that_is_gone_ends_when_it_was_seen_last(ledger: SqliteLedger) -> None:
    look(ledger, RUNNING, 2)
    assert look(ledger, Sighting("gone", "gone"), 27) == [("ended", 2)]
    assert dollars(ledger) == 2


def test_a_machine_that_runs_again_is_billed_again(ledger: SqliteLedger) -> None:
    look(ledger, Sighting("stopped", "outbid", since_ms=DAY + 3 * HOUR), 4)
    assert look(ledger, Sighting("running", "running", since_ms=DAY + 5 * HOUR), 6) == [("began", 5)]
    assert look(ledger, RUNNING, 8) == []
    assert dollars(ledger) == 3 + 3


def test_a_machine_that_was_started_anew_between_two_looks_has_a_gap(ledger: SqliteLedger) -> None:
    look(ledger, RUNNING, 2)
    assert look(ledger, Sighting("running", "running", since_ms=DAY + 5 * HOUR), 6) == [("ended", 2), ("began", 5)]
    assert dollars(ledger) == 2 + 1


def test_the_price_follows_from_the_time_that_the_provider_tells(ledger: SqliteLedger) -> None:
    prices = (
        PriceStep(2 * DOLLAR, DAY - HOUR),
        PriceStep(3 * DOLLAR, DAY + HOUR),
        PriceStep(4 * DOLLAR, DAY + 2 * HOUR),
    )
    acts = look(ledger, Sighting("running", "running", prices=prices), 3)
    assert [act for act in acts if act[0] == "began"] == [("began", 0), ("began", 1), ("began", 2)]
    assert look(ledger, Sighting("running", "running", prices=prices), 4) == []
    assert dollars(ledger) == 2 + 3 + 2 * 4


def test_a_price_without_a_time_counts_from_now_on(ledger: SqliteLedger) -> None:
    sighting = Sighting("running", "running", prices=(PriceStep(3 * DOLLAR),))
    assert look(ledger, sighting, 2) == [("ended", 2), ("began", 2)]
    assert look(ledger, sighting, 3) == []
    assert dollars(ledger) == 2 + 3


def test_three_gpus_for_a_dollar_cost_a_dollar() -> None:
    assert split_price(DOLLAR, 3) == (333_333_333, DOLLAR)
    assert split_price(3 * DOLLAR, 3) == (DOLLAR, None)


def test_two_watchers_that_see_the_same_at_once_begin_one_rental(tmp_path: Path) -> None:
    opened = [SqliteLedger.open(tmp_path / "spillway.db") for _ in range(4)]
    opened[0].rentals.add(machine(opened[0]))
    sightings = (
        Sighting("running", "running", prices=(PriceStep(3 * DOLLAR),)),
        Sighting("stopped", "outbid", since_ms=DAY + 4 * HOUR),
        Sighting("running", "running", since_ms=DAY + 5 * HOUR, prices=(PriceStep(3 * DOLLAR),)),
    )
    with ThreadPoolExecutor(4) as pool:
        for number, sighting in enumerate(sightings, 2):
            list(pool.map(lambda ledger, s=sighting, at=number * 2: look(ledger, s, at), opened))
    starts = sorted((r.started_ms - DAY) / HOUR for r in opened[0].rentals.between(0, DAY * 2))
    assert starts == [0, 4, 5]
    Books(opened[0]).settle(DAY + 8 * HOUR)
    assert dollars(opened[0]) == 4 * 1 + 3 * 3
    for ledger in opened:
        ledger.close()


def test_only_machines_of_providers_are_followed_and_a_month_after_their_end(ledger: SqliteLedger) -> None:
    look(ledger, Sighting("stopped", "outbid", since_ms=DAY + HOUR), 2)
    assert len(followed(ledger, DAY + 29 * DAY_MS)) == 1
    assert followed(ledger, DAY + 32 * DAY_MS) == ()


def test_a_machine_that_was_never_seen_running_is_followed_all_the_same(ledger: SqliteLedger) -> None:
    assert look(ledger, Sighting("stopped", "outbid at once"), 2) == [("ended", 0)]
    assert look(ledger, RUNNING, 5) == [("began", 5)]
    look(ledger, RUNNING, 7)
    assert dollars(ledger) == 2
