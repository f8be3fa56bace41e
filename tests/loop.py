"""The event loop that coroutine tests run on: the router's own kind, and strict about what a test leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

TEST_LIMIT_S = 120.0


def run_test(test: Callable[[], Coroutine[Any, Any, None]], *, limit_s: float = TEST_LIMIT_S) -> None:
    """Run one coroutine test; it fails if it leaves a task running or an exception that nobody retrieved."""
    unretrieved: list[str] = []

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unretrieved.append(str(context)))
        async with asyncio.timeout(limit_s):
            await test()
        for _ in range(3):
            await asyncio.sleep(0)
        remaining = asyncio.all_tasks() - {asyncio.current_task()}
        assert not remaining, f"the test left tasks running: {remaining}"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())
    assert not unretrieved, unretrieved
