"""Ends that a database or a clock makes unsure: lost acknowledgements, impossible costs, midnight, billed estimates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.core.scenes import GROQ
from tests.ledger.helpers import CHEAP, DAY_MS, NOON, T0, FaultyDisk, entry, faulty_disk, router_accounts, until

from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage
from spillway_router.ledger.bills import BilledAttempt
from spillway_router.ledger.holds import AttemptResult, Hold, HoldRefused
from spillway_router.ledger.reconcile import reconcile
from spillway_router.ledger.records import Balance
from spillway_router.testing import MemoryLedger

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC).timestamp()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path) as opened:
        yield opened


async def test_a_hold_whose_acknowledgement_was_lost_is_given_back(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        ledger.loses_next_acknowledgement = True
        refused = await router.hold("r1", 500)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        await until(lambda: not ledger.open_reservations(0, 2**62))
        assert router.balance() == Balance(0, 0)
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "released"]


async def test_a_settlement_whose_acknowledgement_was_lost_is_stored_once(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        ledger.loses_next_acknowledgement = True
        await router.settle(hold, CHEAP)
        await until(lambda: not router.accounts.owed_rows)
        assert router.balance() == Balance(70_000, 0)
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "charged"]


async def test_a_cost_that_no_database_can_hold_ends_at_the_bound(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        await router.settle(hold, AttemptResult("ok", Usage(10**18, 10**18)))
        await until(lambda: not ledger.open_reservations(0, 2**62))
        assert router.balance() == Balance(100_000, 0)
    assert [(e.kind, e.status) for e in ledger.entries_of("r1")] == [("reserved", ""), ("charged", "unknown")]


async def test_a_hold_of_the_last_moment_of_a_day_is_that_days_cost(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, BudgetLine("all", "day", 1000)) as router:
        router.wall_s = MIDNIGHT - 0.1
        hold = await router.held("r1", 900)
        router.wall_s = MIDNIGHT + 3600
        held = await router.hold("r2", 1000)  # the new day is untouched
        assert isinstance(held, Hold)
        await router.settle(hold, AttemptResult("error", None, billed=True))
        router.accounts.release(held)
    assert ledger.balance("all", "day", DAY_MS) == Balance(900, 0)
    assert ledger.balance("all", "day", int(MIDNIGHT) * 1000) == Balance(0, 0)


async def test_a_clock_that_goes_back_opens_no_budget_twice(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, BudgetLine("all", "day", 1000)) as router:
        router.wall_s = MIDNIGHT + 1
        assert isinstance(await router.hold("r1", 1000), Hold)
        router.wall_s = NOON  # the day before, whose budget is untouched
        assert isinstance(await router.hold("r2", 1), HoldRefused)


async def test_a_price_that_changes_meanwhile_does_not_touch_a_call_under_way(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        assert hold.backend.tariff == GROQ.tariff
        router.accounts.load(ledger, [BudgetLine("all", "day", 10)])  # a reload, with another cap besides
        assert await router.settle(hold, CHEAP) == 70_000
        assert router.balance() == Balance(70_000, 0)


def test_a_bill_settles_estimates_and_failures_that_were_billed() -> None:
    ledger = MemoryLedger()
    hold = entry("reserved", "broke", reserved_nano=100)
    ledger.append(
        (hold, hold._replace(kind="charged", status="aborted", amount_nano=90, prompt_tokens=7, reserved_nano=0))
    )
    hold = entry("reserved", "failed", reserved_nano=100)
    ledger.append((hold, hold._replace(kind="released", status="error", reserved_nano=0)))
    ledger.append((entry("charged", "whole", amount_nano=5, status="ok"),))
    bills = [
        BilledAttempt("broke", 1, 40),
        BilledAttempt("failed", 1, 30),
        BilledAttempt("whole", 1, 5),
        BilledAttempt("whole", 1, 5),
    ]
    done = reconcile(ledger, bills, T0)
    assert [(one.outcome, one.difference_nano) for one in done] == [
        ("adjusted", -50),
        ("adjusted", 30),
        ("already", 0),
        ("already", 0),
    ]
    assert [(e.amount_nano, e.prompt_tokens) for e in ledger.entries_of("broke")] == [(0, 0), (90, 7), (-50, 0)]
    assert {one.outcome for one in reconcile(ledger, bills, T0)} == {"already"}
    result = reconcile(
        ledger, [BilledAttempt("whole", 1, 6), BilledAttempt("broke", 1, 41), BilledAttempt("broke", 1, 41)], T0
    )
    assert [one.outcome for one in result] == ["not unknown", "adjusted otherwise", "adjusted otherwise"]
