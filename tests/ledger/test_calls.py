"""Calls of a ledger that hangs keep nobody and are bounded."""

from __future__ import annotations

import asyncio
from threading import Event, current_thread

import pytest
from tests.ledger.helpers import WAIT_S, until

from spillway_router.ledger.calls import LedgerCalls
from spillway_router.ledger.errors import LedgerUnavailableError


async def test_a_call_returns_or_raises_what_its_work_does() -> None:
    calls = LedgerCalls()
    assert await calls.run(lambda a, b: (a, b, current_thread().daemon), 1, 2) == (1, 2, True)
    with pytest.raises(ZeroDivisionError):
        await calls.run(lambda: 1 // 0, limit_s=WAIT_S)
    with pytest.raises(TimeoutError, match="its own"):
        await calls.run(_times_out, limit_s=WAIT_S)
    await until(lambda: calls.running == 0)


def _times_out() -> None:
    raise TimeoutError("its own")


async def test_a_result_that_comes_with_the_limit_counts() -> None:
    calls, began = LedgerCalls(), Event()

    def work() -> int:
        began.set()
        return 7

    limit_s = 0.02
    call = asyncio.ensure_future(calls.run(work, limit_s=limit_s))
    await asyncio.sleep(0)
    assert began.wait(WAIT_S)
    Event().wait(5 * limit_s)  # the loop stands still: the result and the limit wait for it together
    assert await call == 7


async def test_a_call_that_hangs_is_left_behind_and_many_are_refused() -> None:
    calls, gate = LedgerCalls(most=2), Event()
    with pytest.raises(LedgerUnavailableError, match="has not answered"):
        await calls.run(gate.wait, limit_s=0.01)
    waiting = asyncio.ensure_future(calls.run(gate.wait))
    await until(lambda: calls.running == 2)
    with pytest.raises(LedgerUnavailableError, match="2 calls are waiting"):
        await calls.run(gate.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await until(lambda: calls.running == 0)
