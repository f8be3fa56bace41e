"""Background tasks: how they end, and work that is cancelled when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


async def end(*tasks: asyncio.Task[Any] | None, limit_s: float | None = None) -> None:
    """Cancel the tasks and wait until they have ended; None stands for a task that was never started.

    Raises the first error that a task ended with, and TimeoutError if a task still runs after `limit_s` seconds.
    """
    started = [task for task in tasks if task is not None]
    if not started:
        return
    for task in started:
        task.cancel()
    # asyncio.wait, not `await task`: a task that swallows its cancellation must not hold the caller beyond the limit.
    ended, running = await asyncio.wait(started, timeout=limit_s)
    errors = [error for task in ended if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise errors[0]
    if running:
        raise TimeoutError(f"{', '.join(sorted(task.get_name() for task in running))} still running")


def was_asked_to_end() -> bool:
    """Return whether somebody cancelled the running task. A CancelledError may also come out of what it awaits."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def unless_gone(
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    work: Awaitable[_T],
    on_gone: Callable[[], None] = lambda: None,
) -> _T | None:
    """Return the work's result, or None if the client of this ASGI `receive` leaves first.

    When the client leaves, `on_gone` is called and the work is cancelled, because a GPU or a cloud would otherwise be
    paid for an answer that nobody reads. The work has ended when this function returns.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        on_gone()
        return None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
