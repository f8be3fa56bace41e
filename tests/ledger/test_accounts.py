"""Accounts: caps are judged by the database, holds never leak, and what ends a hold is never given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.core.scenes import GROQ, LOCAL, facts

from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_router.core.money.budget import BudgetAlert, BudgetLine
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold, HoldRefused
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.orphans import SILENT_MS, close_orphans, unknown_charge
from spillway_router.ledger.records import Balance, Write, WriteResult
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.writer import LedgerWriter

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()
DAY_MS = int(NOON - 12 * 3600) * 1000
WAIT_S = 20
WHY = AttemptReason("overflow", ("queue",))
DAY = BudgetLine("all", "day", 1000, (Decimal("0.5"), Decimal(1)))


class Disk(SqliteLedger):
    """A real ledger whose disk can be stopped or fail when a test says so."""

    def prepare(self) -> None:
        self.allowed = Event()
        self.allowed.set()
        self.reached = Event()
        self.broken = False

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        self.reached.set()
        assert self.allowed.wait(WAIT_S)
        if self.broken:
            raise LedgerUnavailableError("disk full")
        return super().commit(writes)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Disk]:
    opened = Disk.open(tmp_path / "spillway.db")
    assert isinstance(opened, Disk)
    opened.prepare()
    yield opened
    opened.allowed.set()
    opened.close()


@dataclass
class Desk:
    """One router's accounts over a ledger, at a time that the test sets."""

    ledger: Disk
    accounts: Accounts
    writer: LedgerWriter
    upkeep: Upkeep
    told: list[BudgetAlert]
    now: list[float]

    async def hold(self, request_id: str, bound: int, attempt: int = 1, **who: Any) -> Hold | HoldRefused:
        asked = facts(request_id=request_id, caller=Caller(**who))
        return await self.accounts.hold(asked, GROQ, WHY, attempt, bound)

    async def held(self, request_id: str, bound: int) -> Hold:
        hold = await self.hold(request_id, bound)
        assert isinstance(hold, Hold), hold
        return hold

    async def settle(self, hold: Hold, ended: AttemptResult) -> int:
        amount, durable = self.accounts.settle(hold, hold.backend, ended)
        await self.accounts.durable(durable)
        return amount

    def balance(self) -> Balance:
        return self.ledger.balance("all", "day", DAY_MS)


async def at_a_desk(
    ledger: Disk, scenario: Callable[[Desk], Awaitable[None]], *lines: BudgetLine, router_id: str = "me"
) -> None:
    """Run a scenario inside a loop, with a writer that is closed in the end."""
    now, told = [NOON], list[BudgetAlert]()
    writer = LedgerWriter(ledger, probe_every_s=0.01)
    accounts = Accounts(writer, (), WorkCoefficients(), lambda: now[0], told.append, router_id)
    accounts.load(ledger, lines)
    upkeep = Upkeep(ledger, accounts, router_id, lambda: now[0])
    await asyncio.wait_for(scenario(Desk(ledger, accounts, writer, upkeep, told, now)), WAIT_S)
    assert await writer.close(WAIT_S)


CHEAP = AttemptResult("ok", Usage(1000, 100))
"""70,000 nano-dollars at GROQ's price."""


def test_a_hold_is_on_disk_and_its_settlement_replaces_it(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 100_000)
        assert desk.balance() == Balance(0, 100_000)
        assert ledger.open_reservations(0, 2**62)[0].router_id == "me"
        assert await desk.settle(hold, CHEAP) == 70_000
        assert desk.balance() == Balance(70_000, 0)
        hold = await desk.held("r2", 5)
        assert await desk.settle(hold, AttemptResult("error", None, billed=True)) == 5
        hold = await desk.held("r3", 5)
        assert await desk.settle(hold, AttemptResult("error", None, billed=False)) == 0
        hold = await desk.held("r4", 5)
        desk.accounts.release(hold)
        assert [e.kind for e in ledger.entries_of("r3")] == ["reserved", "released"]

    at_a_desk(ledger, scenario)
    assert [(e.kind, e.status) for e in ledger.entries_of("r2")] == [("reserved", ""), ("charged", "unknown")]
    assert ledger.open_reservations(0, 2**62) == ()


def test_a_local_attempt_has_one_row_and_no_hold(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.accounts.hold(facts(request_id="r1"), LOCAL, AttemptReason("local", ()), 1, 0)
        assert isinstance(hold, Hold)
        desk.accounts.release(hold)
        assert await desk.settle(hold, CHEAP) == 0

    at_a_desk(ledger, scenario, BudgetLine("all", "day", 0))
    (row,) = ledger.entries_of("r1")
    assert (row.kind, row.local, row.amount_nano, row.gpu_us > 0) == ("charged", True, 0, True)


def test_the_database_has_the_last_word_though_the_state_here_is_stale(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        other = unknown_charge(entry_of_groq("else")._replace(reserved_nano=900))
        ledger.append((other,))  # another process; nothing here knows of it
        assert desk.accounts.headroom(facts(), GROQ) == 1000
        refused = await desk.hold("r1", 101)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "budget"
        assert "day budget" in refused.message
        assert ledger.entries_of("r1") == ()
        assert desk.accounts.headroom(facts(), GROQ) == 100  # learnt from the refusal
        assert isinstance(await desk.hold("r2", 100), Hold)
        assert desk.balance() == Balance(900, 100)

    at_a_desk(ledger, scenario, DAY)


def test_many_holds_at_once_never_pass_the_cap(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        holds = await asyncio.gather(*(desk.hold(f"r{i}", 70) for i in range(64)))
        assert sum(isinstance(hold, Hold) for hold in holds) == 1000 // 70
        assert desk.balance() == Balance(0, 1000 // 70 * 70)

    at_a_desk(ledger, scenario, DAY)


def test_caps_cover_the_caller_and_a_clock_that_goes_back_opens_no_second_day(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        assert isinstance(await desk.hold("r1", 400, key_id="k1"), Hold)
        assert isinstance(await desk.hold("r2", 200, key_id="k1"), HoldRefused)
        assert isinstance(await desk.hold("r3", 200, key_id="k2"), Hold)
        desk.now[0] = NOON - 86_400
        assert isinstance(await desk.hold("r4", 200, key_id="k1"), HoldRefused)
        desk.now[0] = NOON + 86_400
        assert isinstance(await desk.hold("r5", 200, key_id="k1"), Hold)

    at_a_desk(ledger, scenario, BudgetLine("key:k1", "day", 500), BudgetLine("backend:openai", "day", 0))


def test_a_client_that_leaves_while_its_hold_is_on_the_way_leaves_none_behind(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        ledger.allowed.clear()
        task = asyncio.ensure_future(desk.hold("r1", 300))
        assert await asyncio.to_thread(ledger.reached.wait, WAIT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ledger.allowed.set()

    at_a_desk(ledger, scenario, DAY)
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "released"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(0, 0)


def test_a_broken_disk_stops_paid_calls_and_owes_what_ends_a_hold(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 100_000)
        ledger.broken = True
        assert await desk.settle(hold, CHEAP) == 70_000
        assert desk.accounts.owed_rows == 1
        refused = await desk.hold("r2", 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        free = await desk.accounts.hold(facts(request_id="free"), LOCAL, WHY, 1, 0)
        assert isinstance(free, Hold)
        assert await desk.settle(free, CHEAP) == 0
        assert desk.accounts.lost_rows == 1
        ledger.broken = False
        await desk.upkeep.tend()
        assert desk.accounts.owed_rows == 0

    at_a_desk(ledger, scenario)
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert ledger.open_reservations(0, 2**62) == ()


def test_a_full_queue_refuses_holds_but_takes_what_ends_them(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        small = LedgerWriter(ledger, max_rows=1)
        accounts = Accounts(small, (), WorkCoefficients(), lambda: NOON, desk.told.append, "me")
        hold = await accounts.hold(facts(request_id="r1"), GROQ, WHY, 1, 5)
        assert isinstance(hold, Hold)
        ledger.allowed.clear()
        waiting = asyncio.ensure_future(accounts.hold(facts(request_id="r2"), GROQ, WHY, 1, 5))
        await asyncio.sleep(0)
        refused = await accounts.hold(facts(request_id="r3"), GROQ, WHY, 1, 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        accounts.release(hold)
        ledger.allowed.set()
        assert isinstance(await waiting, Hold)
        assert await small.close(WAIT_S)

    at_a_desk(ledger, scenario)
    assert [e.request_id for e in ledger.open_reservations(0, 2**62)] == ["r2"]


def test_alerts_are_told_once_whoever_spent(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        hold = await desk.held("r1", 600)
        assert [alert.at for alert in desk.told] == [Decimal("0.5")]
        desk.accounts.release(hold)
        await desk.held("r2", 600)
        assert len(desk.told) == 1
        ledger.append((unknown_charge(entry_of_groq("else")._replace(reserved_nano=400)),))
        await desk.upkeep.tend()
        assert [alert.at for alert in desk.told] == [Decimal("0.5"), Decimal(1)]
        desk.now[0] += 86_400
        await desk.held("r3", 600)
        assert [alert.at for alert in desk.told] == [Decimal("0.5"), Decimal(1), Decimal("0.5")]

    at_a_desk(ledger, scenario, DAY)


def test_a_crashed_router_is_charged_its_bound_once_however_many_find_it(ledger: Disk) -> None:
    async def crash(desk: Desk) -> None:
        await desk.upkeep.tend()
        await desk.held("r1", 300)

    at_a_desk(ledger, crash, router_id="gone")

    async def find(desk: Desk) -> None:
        desk.now[0] = NOON + SILENT_MS / 1000 - 1
        await desk.upkeep.tend()
        assert desk.balance() == Balance(0, 300)
        desk.now[0] += 6
        other = SqliteLedger.open(ledger.path)
        now_ms = int(desk.now[0] * 1000)
        _, found = await asyncio.gather(desk.upkeep.tend(), asyncio.to_thread(close_orphans, other, now_ms))
        assert len(found) <= 1
        assert close_orphans(other, now_ms) == ()
        other.close()
        assert desk.balance() == Balance(300, 0)

    at_a_desk(ledger, find)
    assert [(e.kind, e.status) for e in ledger.entries_of("r1")] == [("reserved", ""), ("charged", "unknown")]


def test_a_router_that_was_taken_for_dead_corrects_the_charge(ledger: Disk) -> None:
    async def scenario(desk: Desk) -> None:
        paid, unsent = await desk.held("r1", 100_000), await desk.held("r2", 40)
        assert len(close_orphans(ledger, int(NOON * 1000) + SILENT_MS)) == 2
        assert desk.balance() == Balance(100_040, 0)
        assert await desk.settle(paid, CHEAP) == 70_000
        desk.accounts.release(unsent)
        while len(ledger.entries_of("r2")) < 3:
            await desk.settle(await desk.held(f"next{desk.writer.health.stored_rows}", 0), AttemptResult("error", None))

    at_a_desk(ledger, scenario)
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert [e.kind for e in ledger.entries_of("r2")] == ["reserved", "charged", "adjusted"]


def entry_of_groq(request_id: str) -> Entry:
    return Entry(kind="reserved", request_id=request_id, attempt_no=1, ts=int(NOON * 1000), backend="groq")


def test_a_closing_row_has_every_value_in_its_place(ledger: Disk) -> None:
    """The row is made by position."""

    async def scenario(desk: Desk) -> None:
        asked = facts(request_id="req_1", caller=Caller(key_id="k1", tier="gold"), task="code", document=True)
        hold = await desk.accounts.hold(asked, LOCAL, AttemptReason("fallback", ("queue", "slo")), 3, 0)
        assert isinstance(hold, Hold)
        await desk.settle(hold, AttemptResult("aborted", Usage(11, 7, 5, 2), confidence=0.5))
        (row,) = ledger.entries_of("req_1")
        assert row == Entry(
            kind="charged",
            request_id="req_1",
            attempt_no=3,
            ts=int(NOON * 1000),
            backend=LOCAL.name,
            provider=LOCAL.provider,
            model=LOCAL.model,
            local=True,
            key_id="k1",
            tier="gold",
            decision="fallback",
            reasons="queue,slo",
            status="aborted",
            prompt_tokens=11,
            completion_tokens=7,
            cached_tokens=5,
            reasoning_tokens=2,
            gpu_us=work_share_us(6, 11, 7, WorkCoefficients()),
            confidence=0.5,
            task="code",
            document=True,
            router_id="me",
        )

    at_a_desk(ledger, scenario)
