"""Background tasks: their end, and work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel the task and wait until it has ended; nothing to do for None. An error it ended with is raised."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def unless_gone(
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    work: Awaitable[_T],
    on_gone: Callable[[], None] = lambda: None,
) -> _T | None:
    """The work's result; None where the client of this ASGI `receive` leaves before. Then the work is cancelled, as a
    GPU or a cloud would otherwise be paid for nobody, and has ended when this returns; `on_gone` is called before."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        on_gone()
        return None
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
