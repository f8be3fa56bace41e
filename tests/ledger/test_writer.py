"""Group commit: durable before the future resolves, bounded, honest when the disk fails, and never stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, current_thread, main_thread

import pytest
from tests.ledger.helpers import AFTER_ALL_MS, entry, requests_in

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import (
    EntryConflictError,
    EntryRejectedError,
    LedgerClosedError,
    LedgerFullError,
    LedgerUnavailableError,
)
from spillway_router.ledger.records import Write, WriteResult
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.writer import FULL_WRITES, MANY_WRITES, STEADY_PACES, LedgerWriter, WriterHealth

WAIT_S = 20


class Gate(SqliteLedger):
    """A real ledger whose disk can be stopped or fail when a test says so; it counts the commits it got."""

    def prepare(self) -> None:
        self.allowed = Event()
        self.allowed.set()
        self.reached = Event()
        self.failure: Exception | None = None
        self.commits = 0

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        assert current_thread() is not main_thread()
        self.commits += 1
        self.reached.set()
        assert self.allowed.wait(WAIT_S)
        self._fail()
        return super().commit(writes)

    def probe(self) -> None:
        self._fail()
        super().probe()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Gate]:
    opened = Gate.open(tmp_path / "spillway.db")
    assert isinstance(opened, Gate)
    opened.prepare()
    yield opened
    opened.allowed.set()
    opened.close()


def row(number: int) -> Entry:
    return entry("charged", f"r{number}", amount_nano=number)


def begin_attempts(writer: LedgerWriter, count: int) -> None:
    for _ in range(count):
        writer.attempt_began()


def finish_attempts(writer: LedgerWriter, count: int) -> None:
    for _ in range(count):
        writer.attempt_ended()


async def reached(ledger: Gate) -> None:
    assert await asyncio.to_thread(ledger.reached.wait, WAIT_S)


async def test_a_row_is_readable_by_others_when_its_future_resolves(ledger: Gate) -> None:
    writer = LedgerWriter(ledger)
    await asyncio.wait_for(writer.submit((row(1), row(2))), WAIT_S)
    other = SqliteLedger.open(ledger.path)
    assert other.entries_of("r1") == (row(1),)
    other.close()
    assert writer.health == WriterHealth(stored_rows=2)
    assert await writer.close(WAIT_S)


async def test_rows_that_wait_for_the_disk_share_one_commit_and_one_callback(ledger: Gate) -> None:
    ledger.allowed.clear()
    writer = LedgerWriter(ledger)
    first = writer.submit((row(0),))
    await reached(ledger)
    rest = [writer.submit((row(i),)) for i in range(1, 101)]
    assert writer.health.queued_rows == 101
    ledger.allowed.set()
    await asyncio.wait_for(first, WAIT_S)
    await asyncio.wait_for(rest[0], WAIT_S)
    assert all(future.done() for future in rest)
    assert ledger.commits == 2
    assert await writer.close(WAIT_S)
    assert requests_in(ledger, 0, AFTER_ALL_MS) == 101


async def test_rows_that_follow_closely_wait_for_those_still_in_flight(ledger: Gate) -> None:
    writer = LedgerWriter(ledger, pace_s=3600)
    begin_attempts(writer, 2)
    await asyncio.wait_for(writer.submit((row(0),)), WAIT_S)  # nothing went before it
    early = writer.submit((row(1),))
    await asyncio.wait_for(asyncio.to_thread(ledger.probe), WAIT_S)  # turns of the loop go by
    assert not early.done()
    finish_attempts(writer, 2)
    last = writer.submit((row(2),))
    await asyncio.wait_for(asyncio.gather(early, last), WAIT_S)
    assert ledger.commits == 2
    assert await writer.close(WAIT_S)


async def test_a_hold_takes_waiting_rows_along_and_the_pace_ends_every_wait(ledger: Gate) -> None:
    writer = LedgerWriter(ledger, pace_s=3600)
    begin_attempts(writer, 5)
    await asyncio.wait_for(writer.submit((row(0),)), WAIT_S)
    waiting = writer.submit((row(1),))
    await asyncio.wait_for(writer.submit((entry("reserved", "r2", reserved_nano=1),), urgent=True), WAIT_S)
    assert waiting.done()
    assert ledger.commits == 2
    full = [writer.submit((row(number),)) for number in range(10, 10 + FULL_WRITES)]
    await asyncio.wait_for(asyncio.gather(*full), WAIT_S)
    assert ledger.commits == 3
    behind = writer.submit((row(3),))
    assert await writer.close(WAIT_S)
    assert behind.done()

    paced = LedgerWriter(ledger, pace_s=0.02)
    begin_attempts(paced, 5)
    for number in range(4, 7):
        await asyncio.wait_for(paced.submit((row(number),)), WAIT_S)
    assert await paced.close(WAIT_S)


async def test_in_dense_traffic_the_first_row_of_a_batch_does_not_go_alone(ledger: Gate) -> None:
    writer = LedgerWriter(ledger, pace_s=3600)
    begin_attempts(writer, 9)
    await asyncio.wait_for(asyncio.gather(*(writer.submit((row(i),)) for i in range(MANY_WRITES))), WAIT_S)
    writer._handed_at -= 1.5 * 3600  # the pace is over, the traffic is not
    first = writer.submit((row(10),))
    await asyncio.wait_for(asyncio.to_thread(ledger.probe), WAIT_S)
    assert not first.done()
    finish_attempts(writer, 9)
    await asyncio.wait_for(asyncio.gather(first, *(writer.submit((row(20 + i),)) for i in range(4))), WAIT_S)
    assert ledger.commits == 2
    begin_attempts(writer, 9)
    writer._handed_at -= 2 * STEADY_PACES * 3600
    await asyncio.wait_for(writer.submit((row(30),)), WAIT_S)  # after a lull the first goes at once
    assert await writer.close(WAIT_S)


async def test_a_full_queue_refuses_at_once_and_stops_spending(ledger: Gate) -> None:
    ledger.allowed.clear()
    writer = LedgerWriter(ledger, max_rows=3)
    waiting = [writer.submit((row(i),)) for i in range(3)]
    assert not writer.may_spend
    with pytest.raises(LedgerFullError, match="3 ledger rows are waiting"):
        writer.submit((row(9),))
    ledger.allowed.set()
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
    assert writer.may_spend
    assert writer.health.failed_rows == 1
    await asyncio.wait_for(writer.submit((row(9),)), WAIT_S)
    assert await writer.close(WAIT_S)


@pytest.mark.parametrize("failure", [LedgerUnavailableError("disk full"), MemoryError("no memory")])
async def test_a_write_error_degrades_until_a_write_works_again(ledger: Gate, failure: Exception) -> None:
    changes: asyncio.Queue[WriterHealth] = asyncio.Queue()
    writer = LedgerWriter(ledger, probe_every_s=0.01, on_change=changes.put_nowait)
    ledger.failure = failure
    with pytest.raises(LedgerUnavailableError, match=str(failure)):
        await asyncio.wait_for(writer.submit((row(1),)), WAIT_S)
    degraded = await asyncio.wait_for(changes.get(), WAIT_S)
    assert degraded.degraded
    assert str(failure) in degraded.reason
    assert not writer.may_spend
    ledger.failure = None
    assert not (await asyncio.wait_for(changes.get(), WAIT_S)).degraded  # by the probe alone
    assert writer.may_spend
    await asyncio.wait_for(writer.submit((row(2),)), WAIT_S)
    assert writer.health == WriterHealth(stored_rows=1, failed_rows=1)
    assert await writer.close(WAIT_S)
    assert ledger.entries_of("r1") == ()
    assert ledger.entries_of("r2") == (row(2),)


async def test_a_bad_entry_fails_alone(ledger: Gate) -> None:
    ledger.allowed.clear()
    writer = LedgerWriter(ledger)
    futures = [writer.submit((row(0),))]
    await reached(ledger)
    bad = entry("charged", "bad", amount_nano=-1)
    futures += [writer.submit((row(1),)), writer.submit((row(2), bad)), writer.submit((row(3),))]
    ledger.allowed.set()
    results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), WAIT_S)
    assert [type(r) for r in results] == [type(None), type(None), EntryRejectedError, type(None)]
    assert writer.may_spend
    assert await writer.close(WAIT_S)
    assert requests_in(ledger, 0, AFTER_ALL_MS) == 3


async def test_a_conflict_is_told_to_the_one_who_made_it(ledger: Gate) -> None:
    writer = LedgerWriter(ledger)
    await asyncio.wait_for(writer.submit((row(1),)), WAIT_S)
    same, other = writer.submit((row(1),)), writer.submit((entry("charged", "r1", amount_nano=99),))
    await asyncio.wait_for(same, WAIT_S)
    with pytest.raises(EntryConflictError, match="attempt 1 of r1"):
        await asyncio.wait_for(other, WAIT_S)
    assert await writer.close(WAIT_S)
    assert ledger.entries_of("r1") == (row(1),)


async def test_a_request_that_stops_waiting_still_has_its_row(ledger: Gate) -> None:
    ledger.allowed.clear()
    writer = LedgerWriter(ledger)
    gone = writer.submit((row(1),))
    gone.cancel()
    ledger.allowed.set()
    await asyncio.wait_for(writer.submit((row(2),)), WAIT_S)
    assert await writer.close(WAIT_S)
    assert ledger.entries_of("r1") == (row(1),)


async def test_closing_writes_what_is_queued_and_takes_no_more(ledger: Gate) -> None:
    writer = LedgerWriter(ledger)
    futures = [writer.submit((row(i),)) for i in range(50)]
    assert await writer.close(WAIT_S)
    assert all(future.done() and not future.exception() for future in futures)
    with pytest.raises(LedgerClosedError):
        writer.submit((row(99),))
    assert not writer.may_spend
    assert await writer.close(WAIT_S)
    assert requests_in(ledger, 0, AFTER_ALL_MS) == 50


async def test_closing_gives_up_on_a_disk_that_hangs(ledger: Gate) -> None:
    ledger.allowed.clear()
    writer = LedgerWriter(ledger)
    future = writer.submit((row(1),))
    await reached(ledger)
    assert not await writer.close(0.01)
    with pytest.raises(LedgerUnavailableError, match="did not finish"):
        await future
    ledger.allowed.set()
    assert await writer.close(WAIT_S)
