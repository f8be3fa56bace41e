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
write the writer is `degraded`: the futures of that batch carry the error, nothing of it is stored, and `may_spend` is
False until a write succeeds again (later entries try, and the thread probes once per `probe_every_s`). Meanwhile paid
calls are refused, because their reservation can't be made durable; local answers continue without a row and are
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread

from spillway_router.core.frozen import fast_frozen
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerClosedError, LedgerError, LedgerFullError, LedgerUnavailableError
from spillway_router.ledger.interface import Ledger
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


@fast_frozen(frozen=True, slots=True)
class WriterHealth:
    """The state of the writer: whether and why it is `degraded`, and how many rows are stored, failed and queued."""

    degraded: bool = False
    reason: str = ""
    stored_rows: int = 0
    failed_rows: int = 0
    queued_rows: int = 0


OnFailure = Callable[[LedgerError], None]
_Submission = tuple[Write, asyncio.Future[CapReached | None], OnFailure | None]
_Batch = list[_Submission]
_Result = CapReached | LedgerError | None


class LedgerWriter:
    """Group commit for one event loop. Create it inside the loop; all methods belong to the loop's thread.

    `on_change` is called on the loop with the new health whenever `degraded` changes.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_rows: int = MAX_ROWS,
        probe_every_s: float = PROBE_EVERY_S,
        pace_s: float = PACE_S,
        on_change: Callable[[WriterHealth], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._max_rows = max_rows
        self._probe_every_s = probe_every_s
        self._pace_s = pace_s
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._gathered: _Batch = []
        self._leaving = False
        """True while the gathered batch is to be handed over at the end of this turn of the loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._handed_at = -pace_s
        self._handed_writes = 0
        self._in_flight = 0
        """Attempts that have begun and not yet ended, whose rows may still come."""
        self._handed_over: deque[_Batch] = deque()
        """The batches that the thread has not acknowledged yet, oldest first."""
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
        """False while a reservation could not be made durable: degraded, full or closed."""
        return self._reason is None and not self._closed and self._queued_rows < self._max_rows

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
        on_failure: OnFailure | None = None,
    ) -> asyncio.Future[CapReached | None]:
        """Queue entries, to be stored together under these caps; return a future.

        The future resolves to None when the entries are on disk, or to the cap that stopped them. It raises
        EntryRejectedError, EntryConflictError or LedgerUnavailableError, and then nothing is stored. `submit` itself
        raises LedgerFullError or LedgerClosedError at once if the entries can't be queued.

        `closing` entries end a stored hold. They may be queued when others can't, because there are at most as many of
        them as attempts in flight. `urgent` entries send their batch to the disk without waiting for more rows.
        `on_failure` is called on the loop with the error, whether or not anybody still waits for the future; unlike a
        callback of the future it costs nothing on success.
        """
        if self._closed:
            raise LedgerClosedError("the ledger writer is closed")
        if self._queued_rows + len(entries) > self._max_rows + (SPARE_ROWS if closing else 0):
            self._failed_rows += len(entries)
            raise LedgerFullError(
                f"{self._queued_rows} ledger rows are waiting to be written, the limit is {self._max_rows}"
            )
        future: asyncio.Future[CapReached | None] = self._loop.create_future()
        self._queued_rows += len(entries)
        self._gathered.append((Write(entries, caps), future, on_failure))
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
            self._handed_over.append(self._gathered)
            self._queue.put(self._gathered)
            self._gathered = []

    async def close(self, timeout_s: float) -> bool:
        """Accept no more entries, write what is queued, and stop the thread.

        Return False if that took longer than the timeout. Futures that are still open then raise
        LedgerUnavailableError; their rows may or may not be stored.
        """
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
        done, _ = await asyncio.wait({self._stopped}, timeout=timeout_s)
        for batch in self._handed_over:
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(LedgerUnavailableError(f"the ledger did not finish within {timeout_s} s"))
        return bool(done)

    # The loop's side of a finished batch.

    def _acknowledge(self, batches: int, batch: _Batch, results: Sequence[_Result]) -> None:
        for _ in range(batches):
            self._handed_over.popleft()
        rows = stored = 0
        for (write, future, on_failure), result in zip(batch, results, strict=True):
            rows += len(write.entries)
            if isinstance(result, LedgerError):
                self._failed_rows += len(write.entries)
                self._fail(future, result, on_failure)
                continue
            if result is None:
                stored += len(write.entries)
            if not future.done():  # the request may have been cancelled meanwhile
                future.set_result(result)
        self._queued_rows -= rows
        self._stored_rows += stored
        last = results[-1]
        self._set_degraded(str(last) if isinstance(last, LedgerUnavailableError) else None)

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
        self._reason = reason
        if changed and self._on_change is not None:
            self._on_change(self.health)

    # The thread's side. It touches only the queue and the ledger, and calls back on the loop.

    def _run(self) -> None:
        degraded = False
        closing = False
        while not closing:
            batches, closing = self._take(self._probe_every_s if degraded else None)
            if batches:
                batch = batches[0] if len(batches) == 1 else list(chain.from_iterable(batches))
                results = self._store(batch)
                degraded = isinstance(results[-1], LedgerUnavailableError)
                self._call_on_loop(self._acknowledge, len(batches), batch, results)
            elif not closing and self._probe():
                degraded = False
                self._call_on_loop(self._set_degraded, None)
        self._call_on_loop(self._finish)

    def _take(self, timeout_s: float | None) -> tuple[list[_Batch], bool]:
        """Wait for a batch and return all that are queued, up to a limit, and whether the writer is closing."""
        batches: list[_Batch] = []
        writes = 0
        try:
            item = self._queue.get(timeout=timeout_s)
            while item is not None:
                batches.append(item)
                writes += len(item)
                if writes >= MAX_BATCH_WRITES:
                    return batches, False
                item = self._queue.get_nowait()
        except Empty:
            return batches, False
        return batches, True

    def _store(self, batch: _Batch) -> Sequence[_Result]:
        try:
            return self._ledger.commit([write for write, _, _ in batch])
        except LedgerError as error:
            reason = str(error)
        except Exception as unexpected:
            # The thread must survive any fault; otherwise requests would wait for their rows for ever.
            reason = f"writing failed: {type(unexpected).__name__}: {unexpected}"
        # Each write gets its own exception: one that several tasks raise would collect all their tracebacks.
        return [LedgerUnavailableError(reason) for _ in batch]

    def _probe(self) -> bool:
        try:
            self._ledger.probe()
        except Exception:
            return False
        return True

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        # A closed loop raises RuntimeError; nobody waits for the callback then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _finish(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)
