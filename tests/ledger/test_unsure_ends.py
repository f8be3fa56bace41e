"""Ends that a database or a clock makes unsure: lost acknowledgements, impossible costs, midnight, billed estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.core.scenes import GROQ
from tests.ledger.contract import T0, entry
from tests.ledger.test_accounts import CHEAP, DAY_MS, NOON, Desk, Disk, at_a_desk

from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.holds import AttemptResult, Hold, HoldRefused
from spillway_router.ledger.reconcile import BilledAttempt, reconcile
from spillway_router.ledger.records import Balance, Write, WriteResult
from spillway_router.testing import MemoryLedger

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC).timestamp()


class Mute(Disk):
    """A ledger whose next commit is stored, but its acknowledgement is lost."""

    mute = False

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        done = super().commit(writes)
        if self.mute:
            self.mute = False
            raise LedgerUnavailableError("the connection broke during COMMIT")
        return done


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Mute]:
    opened = Mute.open(tmp_path / "spillway.db")
    assert isinstance(opened, Mute)
    opened.prepare()
    yield opened
    opened.close()


def test_a_hold_whose_acknowledgement_was_lost_is_given_back(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        ledger.mute = True
        refused = await desk.hold("r1", 500)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        while ledger.open_reservations(0, 2**62):
            await desk.upkeep.tend()
        assert desk.balance() == Balance(0, 0)

    at_a_desk(ledger, scenario)
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "released"]


def test_a_settlement_whose_acknowledgement_was_lost_is_stored_once(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 100_000)
        ledger.mute = True
        await desk.settle(hold, CHEAP)
        while desk.accounts.owed_rows:
            await desk.upkeep.tend()
        assert desk.balance() == Balance(70_000, 0)

    at_a_desk(ledger, scenario)
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "charged"]


def test_a_cost_that_no_database_can_hold_ends_at_the_bound(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 100_000)
        await desk.settle(hold, AttemptResult("ok", Usage(10**18, 10**18)))
        while ledger.open_reservations(0, 2**62):
            await desk.upkeep.tend()
        assert desk.balance() == Balance(100_000, 0)

    at_a_desk(ledger, scenario)
    assert [(e.kind, e.status) for e in ledger.entries_of("r1")] == [("reserved", ""), ("charged", "unknown")]


def test_a_hold_of_the_last_moment_of_a_day_is_that_days_cost(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        desk.now[0] = MIDNIGHT - 0.1
        hold = await desk.held("r1", 900)
        desk.now[0] = MIDNIGHT + 3600
        held = await desk.hold("r2", 1000)  # the new day is untouched
        assert isinstance(held, Hold)
        await desk.settle(hold, AttemptResult("error", None, billed=True))
        desk.accounts.release(held)

    at_a_desk(ledger, scenario, BudgetLine("all", "day", 1000))
    assert ledger.balance("all", "day", DAY_MS) == Balance(900, 0)
    assert ledger.balance("all", "day", int(MIDNIGHT) * 1000) == Balance(0, 0)


def test_a_clock_that_goes_back_opens_no_budget_twice(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        desk.now[0] = MIDNIGHT + 1
        assert isinstance(await desk.hold("r1", 1000), Hold)
        desk.now[0] = NOON  # the day before, whose budget is untouched
        assert isinstance(await desk.hold("r2", 1), HoldRefused)

    at_a_desk(ledger, scenario, BudgetLine("all", "day", 1000))


def test_a_price_that_changes_meanwhile_does_not_touch_a_call_under_way(ledger: Mute) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 100_000)
        assert hold.backend.tariff == GROQ.tariff
        desk.accounts.load(ledger, [BudgetLine("all", "day", 10)])  # a reload, with another cap besides
        assert await desk.settle(hold, CHEAP) == 70_000
        assert desk.balance() == Balance(70_000, 0)

    at_a_desk(ledger, scenario)


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
    told = reconcile(
        ledger, [BilledAttempt("whole", 1, 6), BilledAttempt("broke", 1, 41), BilledAttempt("broke", 1, 41)], T0
    )
    assert [one.outcome for one in told] == ["not unknown", "adjusted otherwise", "adjusted otherwise"]
