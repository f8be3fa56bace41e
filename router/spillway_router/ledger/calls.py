"""Blocking calls of the ledger for coroutines.

A ledger that hangs keeps the threads that call it, for minutes perhaps. These have threads of their own, therefore: the
pool of `asyncio.to_thread` is small and serves others too, and a process waits for its threads when it ends. Whoever
answers a client gives a limit, after which the call is left behind. What hangs is bounded by `most`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from spillway_router.ledger.errors import LedgerUnavailableError

_T = TypeVar("_T")

MOST_CALLS = 64
CLIENT_LIMIT_S = 2.0
"""For calls that a client waits for."""


class LedgerCalls:
    """Runs calls, each on a daemon thread. Use it from one event loop at a time."""

    def __init__(self, most: int = MOST_CALLS) -> None:
        self._most = most
        self.running = 0

    async def run(self, work: Callable[..., _T], *arguments: Any, limit_s: float | None = None) -> _T:
        """Return what `work` returns, or raise what it raises.

        Raises LedgerUnavailableError if it takes longer than the limit, or if too many calls hang already. A result
        that is there when the limit is noticed counts: after a pause of the whole process, both come together.
        """
        if self.running >= self._most:
            raise LedgerUnavailableError(f"{self.running} calls are waiting for the ledger already")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_T] = loop.create_future()
        self.running += 1
        Thread(
            target=self._work, args=(loop, result, partial(work, *arguments)), name="ledger-call", daemon=True
        ).start()
        try:
            await asyncio.wait({result}, timeout=limit_s)
            if not result.done():
                raise LedgerUnavailableError(f"the ledger has not answered for {limit_s:g} s")
            return result.result()
        finally:
            result.cancel()

    def _work(self, loop: asyncio.AbstractEventLoop, result: asyncio.Future[_T], work: Callable[[], _T]) -> None:
        value: _T | None = None
        failure: BaseException | None = None
        try:
            value = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(self._finish, result, value, failure)

    def _finish(self, result: asyncio.Future[Any], value: object, failure: BaseException | None) -> None:
        self.running -= 1
        if result.done():
            return
        if failure is None:
            result.set_result(value)
        else:
            result.set_exception(failure)


LEDGER_CALLS = LedgerCalls()
"""One per process, like the threads of `asyncio.to_thread`."""
