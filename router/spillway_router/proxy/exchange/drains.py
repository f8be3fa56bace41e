"""Drains: paid answers whose client has left and whose provider goes on are read to their usage in the background.

The provider bills all of such an answer, and tells how much that was only at its end. The client is let go at once; the
connection, the hold and the ledger's row wait for the usage. The number of drains, their bytes and their time are
bounded, so is what they keep in memory, and so is their pace: providers that send as fast as they can must not keep the
router from those who wait for an answer. What doesn't fit, breaks or is cut off at the router's stop is charged by an
estimate.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.model import Attempt, Outcome, RequestFacts
from spillway_router.http_client.connection import TooLargeError, TransportError
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace
from spillway_router.proxy.exchange.unread import DrainedAttempt, UnreadAnswer

DrainResult = Literal["usage", "no_usage", "refused", "broken", "limit", "stopped", "full"]
"""How a drain ended: with the usage; whole, but without one; with an error status; the connection broke; its bytes or
its time were used up; the router stopped. `full`: it never began, as there were too many."""
BYTES_PER_S = 8 * 1024 * 1024
"""Of all drains together, so that they take a tenth of a core at most. As many as there may be, each from a model that
writes 200 tokens a second, need as much."""
RESULTS: tuple[DrainResult, ...] = get_args(DrainResult)
_CUT_OFF = Outcome("cancelled", billed=True, detail="the client left")
"""The outcome of an answer whose end nobody saw."""


_End = tuple[Outcome, DrainResult]
_STOPPED: _End = (_CUT_OFF, "stopped")


class Drains:
    """The drains of this process. `on_settled` is called with the facts of the request and the record of each attempt
    that was drained."""

    def __init__(self, limits: Callable[[], DrainLimits], on_settled: Callable[[RequestFacts, Attempt], None]) -> None:
        self._limits = limits
        self._on_settled = on_settled
        self._tasks: set[asyncio.Task[_End]] = set()
        self._closed = False
        self._paced_until_s = 0.0
        self.results: Counter[tuple[str, DrainResult]] = Counter()
        """How many ended how, by backend."""

    @property
    def in_progress(self) -> int:
        """The number of answers that are being read."""
        return len(self._tasks)

    def take(self, attempt: DrainedAttempt, unread: UnreadAnswer, outcome: Outcome) -> bool:
        """Read the rest of an answer in the background; see `DrainSink`."""
        limits = self._limits()
        if self._closed or len(self._tasks) >= limits.count:
            self._count(attempt, "stopped" if self._closed else "full")
            return False
        attempt.let_go(outcome)
        task = asyncio.get_running_loop().create_task(_read(unread, limits, self._pace), name="drain")
        self._tasks.add(task)
        # A callback, because a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(lambda done: self._finish(done, attempt, unread))
        return True

    async def _pace(self, size: int) -> None:
        """Wait until `size` bytes more may have been read, at BYTES_PER_S. An idle second before them counts."""
        now_s = asyncio.get_running_loop().time()
        self._paced_until_s = max(self._paced_until_s, now_s - 1.0) + size / BYTES_PER_S
        if self._paced_until_s > now_s:
            await asyncio.sleep(self._paced_until_s - now_s)

    def _finish(self, task: asyncio.Task[_End], attempt: DrainedAttempt, unread: UnreadAnswer) -> None:
        """Settle the attempt, however reading on ended."""
        self._tasks.discard(task)
        outcome, result = _STOPPED if task.cancelled() else task.result()
        unread.close()
        settled = attempt.settle_drained(outcome)
        self._count(attempt, result)
        self._on_settled(attempt.facts, settled)

    def _count(self, attempt: DrainedAttempt, result: DrainResult) -> None:
        self.results[attempt.backend.name, result] += 1

    async def close(self) -> None:
        """Wait for the drains for as long as the limits say, and settle the others by an estimate. None begins from
        now on."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits().stop_s)
        running = tuple(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _read(unread: UnreadAnswer, limits: DrainLimits, pace: Pace) -> _End:
    """Return how the answer ended, and the drain with it."""
    try:
        async with asyncio.timeout(limits.within_s):
            outcome = await unread.read(limits, pace)
    except TimeoutError:
        return _CUT_OFF, "limit"
    except TooLargeError:
        return _CUT_OFF, "limit"
    except TransportError:
        return _CUT_OFF, "broken"
    except Exception as error:
        UNEXPECTED.note("background", error, "unexpected error while an answer was read to its usage")
        return _CUT_OFF, "broken"
    return outcome, _result(outcome)


def _result(outcome: Outcome) -> DrainResult:
    if outcome.kind == "ok":
        return "no_usage" if outcome.usage is None else "usage"
    return "limit" if outcome.kind == "cancelled" else "broken" if outcome.billed else "refused"
