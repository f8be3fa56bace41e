"""Group commit: durable rows for an event loop. One thread commits together what many requests submit.

    submit()   adds a write to the current batch and returns a future                    (event loop)
    hand over  queues the batch for the thread, at most once per turn of the loop        (event loop)
    commit     takes all queued batches, commits them in one transaction, synced to disk (thread)
    done       resolves all futures of the batch in one callback                         (event loop)

While one commit is on its way to the disk, the next batch gathers, so under load all waiting requests share a sync.
Writes of one turn of the loop go together. Queued one by one, the first of them would wake the thread and get a sync of
its own, and the others would wait behind it.

A commit costs as much as twenty rows. So when requests follow each other closely, a batch waits for more rows: until
`PACE_S` after the batch before it, while attempts that may end soon are in flight. It goes at once if the last batch
was longer ago, if no attempt is left that could add a row, if it fills a statement, or if one of its writes is
`urgent`: a hold, whose call has yet to leave. Right after a batch of several writes, the next one waits `PACE_S` from
its own first row. A single request at a time therefore never waits for this, and neither does the first of many.

When the ledger can't keep up: above `max_rows` queued rows, `submit` raises LedgerFullError at once. After a failed
write, and while one call of the ledger takes longer than `away_after_s`, the writer is `degraded`: `may_spend` is False
until a write succeeds in time (the thread probes once per `probe_every_s`). Meanwhile paid calls are refused, because
their reservation can't be made durable. Futures of a failed batch carry the error, those of one that hangs after
`HOLD_PATIENCE_S`. Pauses of the whole process don't count as time that the ledger took.

Rows of finished attempts never wait for a ledger that is away. Such a `deferrable` row goes to the journal
(journal.py), and its future resolves as soon as it is on disk there, or after `JOURNAL_S` at the latest. Already
a row that the ledger has not stored within `PATIENCE_S` is put there too, so that the first answers after a disk froze
don't wait either. When the ledger is back, the waiting rows are stored before the journal forgets them; a row that was
stored after all is stored again without effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread

from spillway_router.core.frozen import fast_frozen
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import (
    LedgerClosedError,
    LedgerError,
    LedgerFaultError,
    LedgerFullError,
    LedgerUnavailableError,
)
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.journal import EntryKey, Journal, OnFailure, WaitingRow
from spillway_router.ledger.records import Cap, CapReached, Write

MAX_ROWS = 20_000
SPARE_ROWS = 20_000
"""Room above that limit for entries that close a hold."""
MAX_BATCH_WRITES = 1_024
PACE_S = 0.005
"""The least time between two batches that could have been one: 200 syncs per second, which any disk can do."""
MANY_WRITES = 4
STEADY_PACES = 4
"""After a batch of MANY_WRITES, the next one waits for the whole pace if it begins within STEADY_PACES paces."""
FULL_WRITES = 64
"""A batch of this many writes doesn't wait: one statement of the SQLite ledger stores as many rows."""
PROBE_EVERY_S = 1.0
AWAY_AFTER_S = 0.25
"""A ledger that needs longer for one call counts as away."""
HOLD_PATIENCE_S = 1.0
"""How long a hold that was queued before that waits on: a disk that stumbles shall not refuse the calls at hand."""
PATIENCE_S = 0.03
"""How long a deferrable row waits for the ledger before it goes to the journal: far longer than a commit takes."""
JOURNAL_S = 0.015
"""How long an answer waits for its row to be on disk in the journal, which may be on the disk that hangs."""
REPLAYED_AT_ONCE = 256
JOURNAL_CLOSE_S = 3.0
MOST_FAULTS = 5


@fast_frozen(frozen=True, slots=True)
class WriterHealth:
    """The state of the writer: whether and why it is `degraded`, and how many rows are stored, failed and queued."""

    degraded: bool = False
    reason: str = ""
    stored_rows: int = 0
    failed_rows: int = 0
    queued_rows: int = 0


_Submission = tuple[Write, asyncio.Future[CapReached | None], OnFailure | None, int | None]
"""The last value is the `bound_nano` of a deferrable row (journal.WaitingRow), None for a write that can't wait."""


class _Batch:
    """Writes that go to the thread together, at `handed_s` in loop time. `in_journal` says that its deferrable rows are
    in the journal too, `replayed` that they come from there."""

    __slots__ = ("handed_s", "in_journal", "replayed", "submissions")

    def __init__(
        self, submissions: list[_Submission], handed_s: float, *, in_journal: bool = False, replayed: bool = False
    ) -> None:
        self.submissions = submissions
        self.handed_s = handed_s
        self.in_journal = in_journal
        self.replayed = replayed


_Result = CapReached | LedgerError | None


class LedgerWriter:
    """Group commit for one event loop. Create it inside the loop; all methods belong to the loop's thread.

    `on_change` is called on the loop with the new health whenever `degraded` changes. The `journal` keeps deferrable
    rows while the ledger is away, by default in memory only.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_rows: int = MAX_ROWS,
        probe_every_s: float = PROBE_EVERY_S,
        pace_s: float = PACE_S,
        away_after_s: float = AWAY_AFTER_S,
        journal: Journal | None = None,
        on_change: Callable[[WriterHealth], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._max_rows = max_rows
        self._probe_every_s = probe_every_s
        self._pace_s = pace_s
        self._away_after_s = away_after_s
        self.journal = Journal() if journal is None else journal
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._gathered: list[_Submission] = []
        self._leaving = False
        """True while the gathered batch is to be handed over at the end of this turn of the loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._handed_at = -pace_s
        self._handed_writes = 0
        self._in_flight = 0
        """Attempts that have begun and not yet ended, whose rows may still come."""
        self._handed_over: deque[_Batch] = deque()
        """The batches that the thread has not acknowledged yet, oldest first."""
        self._acknowledged = 0
        self._finished = 0
        """Batches that the thread is done with; the loop may not have seen some of them yet."""
        self._replayed_at_once = REPLAYED_AT_ONCE
        self._faults = 0
        """How often in a row the ledger failed unexpectedly over the first row of the journal alone."""
        self._call_began_s = 0.0
        """When the thread's present call of the ledger began (monotonic), 0 outside of calls."""
        self._stumbled_s = 0.0
        """When the call began that alone made the ledger count as away, 0 once the ledger has answered."""
        self._looking = False
        self._look_due_s = 0.0
        self._paused_call_s = 0.0
        """When the call began during which the whole process stood still for `_paused_s` seconds."""
        self._paused_s = 0.0
        self._queued_rows = 0
        self._stored_rows = 0
        self._failed_rows = 0
        self._reason: str | None = None
        self._closed = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._worker = Thread(target=self._run, name="ledger-writer", daemon=True)
        self._worker.start()

    @property
    def health(self) -> WriterHealth:
        """The current state."""
        return WriterHealth(
            degraded=self._reason is not None,
            reason=self._reason or "",
            stored_rows=self._stored_rows,
            failed_rows=self._failed_rows,
            queued_rows=self._queued_rows,
        )

    @property
    def may_spend(self) -> bool:
        """False while a reservation could not be made durable: degraded, full or closed.

        A busy machine or a disk that stumbles needs longer than `away_after_s` now and then. So a first call that hangs
        refuses no hold before HOLD_PATIENCE_S: the hold waits behind it for the rest of that time.
        """
        is_away = self._reason is not None and not self._may_be_stumble()
        return not is_away and not self._closed and self._queued_rows < self._max_rows

    def _may_be_stumble(self) -> bool:
        return self._stumbled_s > 0.0 and time.monotonic() - self._stumbled_s < HOLD_PATIENCE_S

    def attempt_began(self) -> None:
        """Count an attempt that has begun; a batch may wait for its row."""
        self._in_flight += 1

    def attempt_ended(self) -> None:
        """Uncount an attempt that has ended. Call this before submitting its last row, which then need not wait."""
        self._in_flight -= 1

    def submit(
        self,
        entries: tuple[Entry, ...],
        caps: tuple[Cap, ...] = (),
        *,
        closing: bool = False,
        urgent: bool = False,
        bound_nano: int | None = None,
        on_failure: OnFailure | None = None,
    ) -> asyncio.Future[CapReached | None]:
        """Queue entries, to be stored together under these caps; return a future.

        The future resolves to None when the entries are on disk, or to the cap that stopped them. It raises
        EntryRejectedError, EntryConflictError or LedgerUnavailableError, and then nothing is stored. `submit` itself
        raises LedgerFullError or LedgerClosedError at once if the entries can't be queued.

        `closing` entries end a stored hold. They may be queued when others can't, because there are at most as many of
        them as attempts in flight. `urgent` entries send their batch to the disk without waiting for more rows.
        `bound_nano` makes one entry deferrable: it is the bound of the hold that the entry ends, or NO_HOLD. Such an
        entry is never refused for want of a ledger or of room, and its future may resolve while it is in the journal.
        `on_failure` is called on the loop with the error, whether or not anybody still waits for the future; unlike a
        callback of the future it costs nothing on success.
        """
        if self._closed:
            raise LedgerClosedError("the ledger writer is closed")
        is_full = self._queued_rows + len(entries) > self._max_rows + (SPARE_ROWS if closing else 0)
        if bound_nano is not None and (is_full or self._reason is not None):
            deferred: asyncio.Future[CapReached | None] = self._loop.create_future()
            self._defer([(Write(entries, caps), deferred, on_failure, bound_nano)])
            return deferred
        if is_full:
            self._failed_rows += len(entries)
            raise LedgerFullError(
                f"{self._queued_rows} ledger rows are waiting to be written, the limit is {self._max_rows}"
            )
        future: asyncio.Future[CapReached | None] = self._loop.create_future()
        self._queued_rows += len(entries)
        self._gathered.append((Write(entries, caps), future, on_failure, bound_nano))
        if not self._leaving:
            self._schedule(urgent)
        return future

    def _schedule(self, urgent: bool) -> None:
        """Schedule the gathered batch for the end of this turn of the loop, or for later."""
        if not urgent and self._in_flight > 0 and len(self._gathered) < FULL_WRITES:
            if self._timer is not None:
                return
            wait_s = self._handed_at + self._pace_s - self._loop.time()
            if self._handed_writes >= MANY_WRITES and wait_s > -STEADY_PACES * self._pace_s:
                wait_s = (
                    self._pace_s
                )  # the traffic is dense: the first row would go alone, and all others wait behind it
            if wait_s > 0:
                self._timer = self._loop.call_later(wait_s, self._hand_over)
                return
        self._leaving = True
        self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._leaving = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            self._handed_at, self._handed_writes = self._loop.time(), len(self._gathered)
            self._send(_Batch(self._gathered, self._handed_at))
            self._gathered = []

    def _send(self, batch: _Batch) -> None:
        self._handed_over.append(batch)
        self._queue.put(batch)
        if not self._looking:
            self._looking = True
            self._look_again()

    def _look_again(self) -> None:
        self._look_due_s = self._loop.time() + PATIENCE_S
        self._loop.call_later(PATIENCE_S, self._look)

    def _look(self) -> None:
        """Look after the batches that the thread is not done with, until there are none."""
        waiting = list(islice(self._handed_over, self._finished - self._acknowledged, None))
        self._looking = bool(waiting)
        if not waiting:
            return
        now_s = self._loop.time()
        late_s = now_s - self._look_due_s
        for batch in waiting:
            # After a pause of the whole process, the ledger gets the time until the next look.
            if not batch.in_journal and batch.handed_s <= now_s - PATIENCE_S and late_s < PATIENCE_S:
                batch.in_journal = True
                self._defer(batch.submissions)
        began_s = self._call_began_s
        call_s = self._call_s(began_s, late_s)
        if call_s >= self._away_after_s and self._reason is None:
            self._set_degraded(self._no_answer())
            self._stumbled_s = began_s
        if call_s >= max(self._away_after_s, HOLD_PATIENCE_S):
            self._give_up(waiting)
        self._look_again()

    def _call_s(self, began_s: float, late_s: float) -> float:
        """Return how long the ledger's present call has taken, without the time in which the whole process stood still.

        A paused machine or a starved container stops the loop and the thread alike, and the ledger is not to blame. The
        loop notices because it looks `late_s` seconds later than planned.
        """
        if not began_s:
            return 0.0
        now_s = time.monotonic()
        if began_s != self._paused_call_s:
            self._paused_call_s, self._paused_s = began_s, 0.0
        if late_s >= PATIENCE_S:
            self._paused_s += min(late_s, now_s - began_s)
        return now_s - began_s - self._paused_s

    def _give_up(self, waiting: Sequence[_Batch]) -> None:
        """Let nobody wait any longer for a ledger that doesn't answer; whatever it stores after all is stored."""
        for batch in waiting:
            for _, future, _, bound_nano in batch.submissions:
                if bound_nano is None and not future.done():
                    future.set_exception(LedgerUnavailableError(self._no_answer()))

    def _no_answer(self) -> str:
        return f"the ledger {self._ledger.name} has not answered for {self._away_after_s * 1000:.0f} ms"

    def _defer(self, submissions: Sequence[_Submission]) -> None:
        """Put the deferrable rows into the journal, and let their requests go on once they are on disk there."""
        rows = list[WaitingRow]()
        futures = list[asyncio.Future[CapReached | None]]()
        for write, future, on_failure, bound_nano in submissions:
            if bound_nano is not None:
                rows.append(WaitingRow(write.entries[0], bound_nano, on_failure))
                futures.append(future)
        if not rows:
            return
        self.journal.put(rows, lambda: self._call_on_loop(self._release, futures))
        if self.journal.is_stuck:
            self._release(futures)
        else:
            self._loop.call_later(JOURNAL_S, self._release, futures)

    @staticmethod
    def _release(futures: Sequence[asyncio.Future[CapReached | None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    def _on_probe(self, problem: str | None) -> None:
        if problem is None and self._reason is not None and len(self.journal):
            self._replay(self._replayed_at_once)  # paid calls go on once the waiting rows can be stored, too
        else:
            self._set_degraded(problem)

    def _replay(self, most: int) -> None:
        """Send rows of the journal to the ledger; they stay in the journal until it has them."""
        if any(batch.in_journal for batch in self._handed_over):
            return  # rows of the journal are on their way, and their acknowledgement comes back here
        rows = self.journal.first(most)
        if rows:
            self._queued_rows += len(rows)
            self._send(
                _Batch(
                    [(Write((row.entry,)), self._loop.create_future(), row.on_failure, row.bound_nano) for row in rows],
                    self._loop.time(),
                    in_journal=True,
                    replayed=True,
                )
            )

    def _judge_replay(self, batch: _Batch, result: _Result) -> None:
        """After a fault, send fewer rows at a time, until the row is found that nobody can store."""
        if not isinstance(result, LedgerFaultError):
            self._faults, self._replayed_at_once = 0, REPLAYED_AT_ONCE
            return
        rows = len(batch.submissions)
        self._replayed_at_once = max(1, rows // 2)
        if rows == 1:
            self._faults += 1
        if self._faults >= MOST_FAULTS:
            self._faults = 0
            self.journal.drop(batch.submissions[0][0].entries[0].key, str(result))

    async def close(self, timeout_s: float) -> bool:
        """Accept no more entries, write what is queued, and stop the thread.

        Return False if that took longer than the timeout. Futures that are still open then raise
        LedgerUnavailableError; their rows may or may not be stored. Deferrable rows are left in the journal's file.
        """
        if not self._closed:
            self._closed = True
            self._hand_over()
            if self._reason is None:
                self._replay(len(self.journal))
            self._queue.put(None)
        done, _ = await asyncio.wait({self._stopped}, timeout=timeout_s)
        for batch in self._handed_over:
            if not batch.in_journal:
                batch.in_journal = True
                self._defer(batch.submissions)
            for _, future, _, bound_nano in batch.submissions:
                if bound_nano is None and not future.done():
                    future.set_exception(LedgerUnavailableError(f"the ledger did not finish within {timeout_s} s"))
        await asyncio.to_thread(self.journal.close, min(JOURNAL_CLOSE_S, timeout_s))
        return bool(done)

    # The loop's side of a finished batch.

    def _acknowledge(self, batches: int, results: Sequence[_Result], problem: str | None) -> None:
        self._acknowledged += batches
        position = 0
        for _ in range(batches):
            batch = self._handed_over.popleft()
            end = position + len(batch.submissions)
            self._acknowledge_batch(batch, results[position:end])
            position = end
            if batch.replayed:
                self._judge_replay(batch, results[end - 1])
        self._set_degraded(problem)

    def _acknowledge_batch(self, batch: _Batch, results: Sequence[_Result]) -> None:
        deferred, ended = list[_Submission](), list[EntryKey]()
        for submission, result in zip(batch.submissions, results, strict=True):
            write, future, on_failure, bound_nano = submission
            rows = len(write.entries)
            self._queued_rows -= rows
            if isinstance(result, LedgerUnavailableError) and bound_nano is not None:
                deferred.append(submission)
                continue
            if bound_nano is not None and batch.in_journal:
                ended.append(write.entries[0].key)
            if isinstance(result, LedgerError):
                self._failed_rows += rows
                self._fail(future, result, on_failure)
                continue
            if result is None:
                self._stored_rows += rows
            if not future.done():  # the request may have been cancelled meanwhile
                future.set_result(result)
        if ended:
            self.journal.forget(ended)
        if deferred and not batch.in_journal:
            self._defer(deferred)

    @staticmethod
    def _fail(future: asyncio.Future[CapReached | None], error: LedgerError, on_failure: OnFailure | None) -> None:
        if not future.done():
            future.set_exception(error)
            if on_failure is not None:
                future.exception()  # mark it as retrieved: on_failure handles it, even if nobody waits
        if on_failure is not None:
            on_failure(error)

    def _set_degraded(self, reason: str | None) -> None:
        changed = (reason is None) != (self._reason is None)
        self._reason, self._stumbled_s = reason, 0.0
        if changed and self._on_change is not None:
            self._on_change(self.health)
        if reason is None and not self._closed and len(self.journal):
            self._replay(self._replayed_at_once)

    # The thread's side. It touches only the queue and the ledger, and calls back on the loop.

    def _run(self) -> None:
        degraded = False
        closing = False
        while not closing:
            batches, closing = self._take(self._probe_every_s)
            if batches:
                writes = [write for batch in batches for write, _, _, _ in batch.submissions]
                results, problem = self._store(writes)
                degraded = problem is not None
                self._finished += len(batches)
                self._call_on_loop(self._acknowledge, len(batches), results, problem)
            elif not closing:
                problem = self._problem() if degraded else self._problem_when_idle()
                if degraded or problem is not None:
                    self._call_on_loop(self._on_probe, problem)
                degraded = problem is not None
        self._call_on_loop(self._finish)

    def _take(self, timeout_s: float) -> tuple[list[_Batch], bool]:
        """Wait for a batch and return all that are queued, up to a limit, and whether the writer is closing."""
        batches: list[_Batch] = []
        writes = 0
        try:
            item = self._queue.get(timeout=timeout_s)
            while item is not None:
                batches.append(item)
                writes += len(item.submissions)
                if writes >= MAX_BATCH_WRITES:
                    return batches, False
                item = self._queue.get_nowait()
        except Empty:
            return batches, False
        return batches, True

    def _store(self, writes: Sequence[Write]) -> tuple[Sequence[_Result], str | None]:
        """Return the results, and why the ledger is away, None if it is not."""
        began_s = self._call_began_s = time.monotonic()
        try:
            results: Sequence[_Result] = self._ledger.commit(writes)
        except LedgerError as error:
            reason, kind = str(error), LedgerUnavailableError
        except Exception as unexpected:
            # The thread must survive any fault; otherwise requests would wait for their rows for ever.
            reason, kind = f"writing failed: {type(unexpected).__name__}: {unexpected}", LedgerFaultError
        else:
            self._call_began_s = 0.0
            last = results[-1]
            if isinstance(last, LedgerUnavailableError):
                return results, str(last)
            is_slow = time.monotonic() - began_s >= self._away_after_s
            return results, self._problem() if is_slow else None
        self._call_began_s = 0.0
        # Each write gets its own exception: one that several tasks raise would collect all their tracebacks.
        return [kind(reason) for _ in writes], reason

    def _problem(self) -> str | None:
        """Return why the ledger can't be written in time; None if it can."""
        began_s = self._call_began_s = time.monotonic()
        try:
            self._ledger.probe()
        except Exception as error:
            return str(error)
        finally:
            self._call_began_s = 0.0
        needed_s = time.monotonic() - began_s
        return None if needed_s < self._away_after_s else f"the ledger needed {needed_s * 1000:.0f} ms for one row"

    def _problem_when_idle(self) -> str | None:
        """Return why the ledger can't be used any more, without writing to it; None if nothing has changed."""
        try:
            self._ledger.check_place()
        except LedgerError as error:
            return str(error)
        return None

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        # A closed loop raises RuntimeError; nobody waits for the callback then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _finish(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)
