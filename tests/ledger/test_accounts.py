"""Accounts: caps are judged by the database, holds never leak, and what ends a hold is never given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.core.scenes import GROQ, LOCAL, facts
from tests.ledger.helpers import (
    CHEAP,
    DAY_MS,
    NOON,
    OVERFLOW,
    T0,
    WAIT_S,
    FaultyDisk,
    entry,
    requests_in,
    router_accounts,
)

from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold, HoldRefused
from spillway_router.ledger.orphans import SILENT_MS, close_orphans, unknown_charge
from spillway_router.ledger.records import Balance
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.writer import LedgerWriter

DAY = BudgetLine("all", "day", 1000, (Decimal("0.5"), Decimal(1)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FaultyDisk]:
    opened = FaultyDisk.open(tmp_path / "spillway.db")
    assert isinstance(opened, FaultyDisk)
    opened.prepare()
    yield opened
    opened.allowed.set()
    opened.close()


async def test_a_hold_is_on_disk_and_its_settlement_replaces_it(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        assert router.balance() == Balance(0, 100_000)
        assert ledger.open_reservations(0, 2**62)[0].router_id == "me"
        assert await router.settle(hold, CHEAP) == 70_000
        assert router.balance() == Balance(70_000, 0)
        hold = await router.held("r2", 5)
        assert await router.settle(hold, AttemptResult("error", None, billed=True)) == 5
        hold = await router.held("r3", 5)
        assert await router.settle(hold, AttemptResult("error", None, billed=False)) == 0
        hold = await router.held("r4", 5)
        router.accounts.release(hold)
        assert [e.kind for e in ledger.entries_of("r3")] == ["reserved", "released"]
    assert [(e.kind, e.status) for e in ledger.entries_of("r2")] == [("reserved", ""), ("charged", "unknown")]
    assert ledger.open_reservations(0, 2**62) == ()


async def test_a_local_attempt_has_one_row_and_no_hold(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, BudgetLine("all", "day", 0)) as router:
        hold = await router.accounts.hold(facts(request_id="r1"), LOCAL, AttemptReason("local", ()), 1, 0)
        assert isinstance(hold, Hold)
        router.accounts.release(hold)
        assert await router.settle(hold, CHEAP) == 0
    (row,) = ledger.entries_of("r1")
    assert (row.kind, row.local, row.amount_nano, row.gpu_us > 0) == ("charged", True, 0, True)


async def test_the_database_has_the_last_word_though_the_state_here_is_stale(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        other = unknown_charge(entry_of_groq("else")._replace(reserved_nano=900))
        ledger.append((other,))  # another process; nothing here knows of it
        assert router.accounts.headroom(facts(), GROQ) == 1000
        refused = await router.hold("r1", 101)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "budget"
        assert "day budget" in refused.message
        assert ledger.entries_of("r1") == ()
        assert router.accounts.headroom(facts(), GROQ) == 100  # learnt from the refusal
        assert isinstance(await router.hold("r2", 100), Hold)
        assert router.balance() == Balance(900, 100)


async def test_many_holds_at_once_never_pass_the_cap(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        holds = await asyncio.gather(*(router.hold(f"r{i}", 70) for i in range(64)))
        assert sum(isinstance(hold, Hold) for hold in holds) == 1000 // 70
        assert router.balance() == Balance(0, 1000 // 70 * 70)


async def test_caps_cover_the_caller_and_a_clock_that_goes_back_opens_no_second_day(ledger: FaultyDisk) -> None:
    async with router_accounts(
        ledger, BudgetLine("key:k1", "day", 500), BudgetLine("backend:openai", "day", 0)
    ) as router:
        assert isinstance(await router.hold("r1", 400, key_id="k1"), Hold)
        assert isinstance(await router.hold("r2", 200, key_id="k1"), HoldRefused)
        assert isinstance(await router.hold("r3", 200, key_id="k2"), Hold)
        router.wall_s = NOON - 86_400
        assert isinstance(await router.hold("r4", 200, key_id="k1"), HoldRefused)
        router.wall_s = NOON + 86_400
        assert isinstance(await router.hold("r5", 200, key_id="k1"), Hold)


async def test_a_client_that_leaves_while_its_hold_is_on_the_way_leaves_none_behind(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        ledger.allowed.clear()
        task = asyncio.ensure_future(router.hold("r1", 300))
        assert await asyncio.to_thread(ledger.reached.wait, WAIT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ledger.allowed.set()
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "released"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(0, 0)


async def test_a_broken_disk_stops_paid_calls_and_owes_what_ends_a_hold(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        ledger.broken = True
        assert await router.settle(hold, CHEAP) == 70_000
        assert router.accounts.owed_rows == 1
        refused = await router.hold("r2", 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        free = await router.accounts.hold(facts(request_id="free"), LOCAL, OVERFLOW, 1, 0)
        assert isinstance(free, Hold)
        assert await router.settle(free, CHEAP) == 0
        assert router.accounts.lost_rows == 1
        ledger.broken = False
        await router.upkeep.tend()
        assert router.accounts.owed_rows == 0
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert ledger.open_reservations(0, 2**62) == ()


async def test_upkeep_sums_up_new_rows_and_of_a_long_ledger_a_bounded_part(ledger: FaultyDisk) -> None:
    def left() -> int:
        return int(ledger._read("SELECT (SELECT max(seq) FROM entries) - summed_seq FROM marks", ())[0][0])

    for part in range(3):
        ledger.append([entry("charged", f"r{part}-{i}", local=True, status="ok") for i in range(100)])
    async with router_accounts(ledger) as router:
        router.upkeep.rows_to_sum, router.upkeep.chunks_per_round = 50, 5
        await router.upkeep.sum_up()
        assert left() == 50
        await router.upkeep.sum_up()
        assert left() == 0
    assert requests_in(ledger, 0, T0 * 2) == 300


async def test_a_full_queue_refuses_holds_but_takes_what_ends_them(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        small = LedgerWriter(ledger, max_rows=1)
        accounts = Accounts(
            writer=small,
            lines=(),
            coefficients=WorkCoefficients(),
            wall=lambda: NOON,
            on_alert=router.alerts.append,
            router_id="me",
        )
        hold = await accounts.hold(facts(request_id="r1"), GROQ, OVERFLOW, 1, 5)
        assert isinstance(hold, Hold)
        ledger.allowed.clear()
        waiting = asyncio.ensure_future(accounts.hold(facts(request_id="r2"), GROQ, OVERFLOW, 1, 5))
        await asyncio.sleep(0)
        refused = await accounts.hold(facts(request_id="r3"), GROQ, OVERFLOW, 1, 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        accounts.release(hold)
        ledger.allowed.set()
        assert isinstance(await waiting, Hold)
        assert await small.close(WAIT_S)
    assert [e.request_id for e in ledger.open_reservations(0, 2**62)] == ["r2"]


async def test_alerts_are_told_once_whoever_spent(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        hold = await router.held("r1", 600)
        assert [alert.at for alert in router.alerts] == [Decimal("0.5")]
        router.accounts.release(hold)
        await router.held("r2", 600)
        assert len(router.alerts) == 1
        ledger.append((unknown_charge(entry_of_groq("else")._replace(reserved_nano=400)),))
        await router.upkeep.tend()
        assert [alert.at for alert in router.alerts] == [Decimal("0.5"), Decimal(1)]
        router.wall_s += 86_400
        await router.held("r3", 600)
        assert [alert.at for alert in router.alerts] == [Decimal("0.5"), Decimal(1), Decimal("0.5")]


async def test_a_crashed_router_is_charged_its_bound_once_however_many_find_it(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, router_id="gone") as router:
        await router.upkeep.tend()
        await router.held("r1", 300)

    async with router_accounts(ledger) as router:
        router.wall_s = NOON + SILENT_MS / 1000 - 1
        await router.upkeep.tend()
        assert router.balance() == Balance(0, 300)
        router.wall_s += 6
        other = SqliteLedger.open(ledger.path)
        now_ms = int(router.wall_s * 1000)
        _, orphans = await asyncio.gather(router.upkeep.tend(), asyncio.to_thread(close_orphans, other, now_ms))
        assert len(orphans) <= 1
        assert close_orphans(other, now_ms) == ()
        other.close()
        assert router.balance() == Balance(300, 0)
    assert [(e.kind, e.status) for e in ledger.entries_of("r1")] == [("reserved", ""), ("charged", "unknown")]


async def test_a_router_that_was_taken_for_dead_corrects_the_charge(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        paid, unsent = await router.held("r1", 100_000), await router.held("r2", 40)
        assert len(close_orphans(ledger, int(NOON * 1000) + SILENT_MS)) == 2
        assert router.balance() == Balance(100_040, 0)
        assert await router.settle(paid, CHEAP) == 70_000
        router.accounts.release(unsent)
        while len(ledger.entries_of("r2")) < 3:
            await router.settle(
                await router.held(f"next{router.writer.health.stored_rows}", 0), AttemptResult("error", None)
            )
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert [e.kind for e in ledger.entries_of("r2")] == ["reserved", "charged", "adjusted"]


def entry_of_groq(request_id: str) -> Entry:
    return Entry(kind="reserved", request_id=request_id, attempt_no=1, ts=int(NOON * 1000), backend="groq")


async def test_a_closing_row_has_every_value_in_its_place(ledger: FaultyDisk) -> None:
    """The row is made by position."""

    async with router_accounts(ledger) as router:
        asked = facts(request_id="req_1", caller=Caller(key_id="k1", tier="gold"), task="code", document=True)
        hold = await router.accounts.hold(asked, LOCAL, AttemptReason("fallback", ("queue", "slo")), 3, 0)
        assert isinstance(hold, Hold)
        await router.settle(
            hold,
            AttemptResult(
                "aborted",
                Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=5, reasoning_tokens=2),
                confidence=0.5,
            ),
        )
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
