"""A ledger that hangs: nobody waits for it who need not, and afterwards it has every row once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import LOCAL, facts
from tests.ledger.helpers import (
    CHEAP,
    DAY_MS,
    OVERFLOW,
    WAIT_S,
    FaultyDisk,
    RouterAccounts,
    entry,
    faulty_disk,
    router_accounts,
    until,
)

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.holds import Hold, HoldRefused
from spillway_router.ledger.journal import NO_HOLD, Journal
from spillway_router.ledger.records import Balance
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.ledger.writer import AWAY_AFTER_S, PATIENCE_S, LedgerWriter


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path) as opened:
        yield opened


async def answer(router: RouterAccounts, request_id: str) -> None:
    """Do the books of a local answer, and wait as its client does."""
    hold = await router.accounts.hold(facts(request_id=request_id), LOCAL, OVERFLOW, 1, 0)
    assert isinstance(hold, Hold)
    await router.settle(hold, CHEAP)


@asynccontextmanager
async def hanging(router: RouterAccounts) -> AsyncIterator[None]:
    """Hang the ledger within a commit, until the writer has noticed."""
    ledger = router.ledger
    ledger.reached.clear()
    ledger.allowed.clear()
    await answer(router, "first")
    await until(lambda: router.writer.health.degraded)
    try:
        yield
    finally:
        ledger.allowed.set()


async def test_local_answers_end_while_the_ledger_hangs_and_it_gets_their_rows_later(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        async with hanging(router):
            assert "has not answered" in router.writer.health.reason
            for number in range(50):
                await answer(router, f"r{number}")
            assert len(router.writer.journal) == 51
        await until(lambda: not router.writer.health.degraded and not len(router.writer.journal))
        assert router.accounts.lost_rows == 0
    rows = [row.request_id for row in ledger.entries_between(0, 2**62)]
    assert rows == ["first", *(f"r{number}" for number in range(50))]
    assert verify(ledger).holds


async def test_a_paid_call_waits_for_a_ledger_that_only_stumbles(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        async with hanging(router):
            late = asyncio.create_task(router.hold("late", 5))
            await asyncio.sleep(0)
            assert not late.done()
        assert isinstance(await late, Hold)


async def test_the_ledger_is_not_to_blame_for_a_pause_of_the_whole_process(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        ledger.reached.clear()
        ledger.allowed.clear()
        paid = asyncio.create_task(router.hold("paid", 5))
        await until(ledger.reached.is_set)
        local = asyncio.create_task(answer(router, "local"))
        looks = asyncio.get_running_loop().create_future()
        await until(lambda: router.writer.health.queued_rows == 2)
        asyncio.get_running_loop().call_later(PATIENCE_S, looks.set_result, None)
        Event().wait(2 * AWAY_AFTER_S)  # the loop stands still, and the commit with it
        await looks
        assert not router.writer.health.degraded
        assert not len(router.writer.journal)
        ledger.allowed.set()
        assert isinstance(await paid, Hold)
        await local
        assert isinstance(await router.hold("next", 5), Hold)


async def test_paid_calls_go_on_as_soon_as_the_call_that_stumbled_ends(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router, hanging(router):
        ledger.allowed.set()
        Event().wait(0.05)  # the thread ends the commit, and the loop has not seen it yet
        assert router.writer.health.degraded
        assert router.writer.may_spend
        assert isinstance(await router.hold("late", 5), Hold)


async def test_paid_calls_are_refused_and_those_under_way_keep_their_cost(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        under_way = await router.held("paid", 100_000)
        async with hanging(router):
            refused = await router.hold("late", 5)
            assert isinstance(refused, HoldRefused)
            assert refused.code == "ledger"
            assert await router.settle(under_way, CHEAP) == 70_000
            assert router.accounts.owed_rows == 2  # the cost, and the end of the hold that waited in vain
        await until(lambda: not len(router.writer.journal))
        assert isinstance(await router.hold("again", 5), Hold)
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 5)


async def test_a_hold_that_the_hung_ledger_stores_after_all_is_released(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        ledger.allowed.clear()
        refused = await router.hold("r1", 300)
        assert isinstance(refused, HoldRefused)
        assert "has not answered" in refused.message
        ledger.allowed.set()
        await until(lambda: not len(router.writer.journal))
    assert [row.kind for row in ledger.entries_of("r1")] == ["reserved", "released"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(0, 0)


async def test_a_router_that_ends_meanwhile_leaves_its_rows_in_its_file(ledger: FaultyDisk, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "waiting")
    writer = LedgerWriter(ledger, away_after_s=0.01, journal=journal)
    ledger.allowed.clear()
    for number in range(3):
        await asyncio.wait_for(
            writer.submit((entry("charged", f"r{number}", local=True, backend="l"),), bound_nano=NO_HOLD), WAIT_S
        )
    assert not await writer.close(0.01)
    assert (tmp_path / "waiting").read_bytes().count(b"charged") == 3
    ledger.allowed.set()
    assert await writer.close(WAIT_S)


async def test_a_row_that_nobody_can_store_is_dropped_and_the_others_are_not(ledger: FaultyDisk) -> None:
    class Picky(SqliteLedger):
        def commit(self, writes):  # type: ignore[no-untyped-def]
            if any(row.request_id == "r7" for write in writes for row in write.entries):
                raise RuntimeError("no such row")
            return super().commit(writes)

    picky = Picky.open(ledger.path)
    writer = LedgerWriter(picky, probe_every_s=0.001)
    for number in range(20):
        writer.submit((entry("charged", f"r{number}", local=True, backend="l"),), bound_nano=NO_HOLD)
    async with asyncio.timeout(WAIT_S):
        await until(lambda: writer.journal.lost_rows == 1 and not len(writer.journal))
        await until(lambda: not writer.health.degraded)
    assert await writer.close(WAIT_S)
    assert len(list(picky.entries_between(0, 2**62))) == 19
    picky.close()


@pytest.mark.parametrize("what", ["file", "folder", "replaced", "wal"])
async def test_a_ledger_that_was_deleted_or_replaced_is_away(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    ledger = SqliteLedger.open(folder / "spillway.db")
    writer = LedgerWriter(ledger, probe_every_s=0.01)
    await asyncio.wait_for(writer.submit((entry("charged", "r1", amount_nano=1),)), WAIT_S)
    kept = tmp_path / "kept"
    gone = {"file": ledger.path, "folder": folder, "replaced": ledger.path, "wal": Path(f"{ledger.path}-wal")}[what]
    gone.rename(kept)
    if what == "replaced":
        shutil.copy(kept, ledger.path)
    async with asyncio.timeout(WAIT_S):
        await until(lambda: writer.health.degraded)  # without a row: the idle writer looks
    assert "deleted or replaced" in writer.health.reason
    assert not writer.may_spend
    with pytest.raises(LedgerUnavailableError, match="deleted or replaced"):
        ledger.append((entry("charged", "r2", amount_nano=1),))
    if what == "replaced":
        ledger.path.unlink()
    kept.rename(gone)
    async with asyncio.timeout(WAIT_S):
        await until(lambda: not writer.health.degraded)
    assert await writer.close(WAIT_S)
    ledger.close()


_steps = st.lists(st.sampled_from(["hang", "break", "mend", "free", "paid", "settle", "turn"]), max_size=25)


@settings(max_examples=25, deadline=None)
@given(steps=_steps)
def test_whatever_the_ledger_does_no_row_is_lost_or_doubled(steps: list[str]) -> None:
    async def trial(folder: str) -> None:
        ledger = FaultyDisk.open(Path(folder) / "l.db")
        assert isinstance(ledger, FaultyDisk)
        ledger.prepare()
        free, charged_nano = 0, 0
        holds: list[Hold] = []
        async with router_accounts(ledger) as router:
            router.writer._away_after_s = 0.02
            for number, step in enumerate(steps):
                if step == "hang":
                    ledger.allowed.clear()
                elif step == "break":
                    ledger.broken = True
                elif step == "mend":
                    ledger.broken = False
                    ledger.allowed.set()
                elif step == "free":
                    await answer(router, f"free{number}")
                    free += 1
                elif step == "paid" and ledger.allowed.is_set():
                    hold = await router.hold(f"paid{number}", 100_000)
                    holds += [hold] if isinstance(hold, Hold) else []
                elif step == "settle" and holds:
                    charged_nano += await router.settle(holds.pop(), CHEAP)
                else:
                    await asyncio.sleep(0.01)
            ledger.broken = False
            ledger.allowed.set()
            for hold in holds:
                charged_nano += await router.settle(hold, CHEAP)
            await until(lambda: not router.writer.health.degraded and not len(router.writer.journal))
        rows = [row for row in ledger.entries_between(0, 2**62) if row.kind == "charged"]
        assert sum(row.local for row in rows) == free
        assert ledger.balance("all", "day", DAY_MS) == Balance(charged_nano, 0)
        assert verify(ledger).holds
        ledger.close()

    with TemporaryDirectory() as folder:
        asyncio.run(trial(folder))
