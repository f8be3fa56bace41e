"""Work that must not end: an error of it is logged and counted, and the work begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from spillway_router.aio.periodic import STOP_S, SYSTEM_TIME, TimeSource
from spillway_router.aio.tasks import end, was_asked_to_end
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.aio.watched import WATCHED

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""Work that ran this long begins again after the first pause."""


async def enduring(name: str, work: Callable[[], Awaitable[object]], time_source: TimeSource = SYSTEM_TIME) -> None:
    """Do the work until it returns or this task is cancelled.

    An exception of the work, a cancellation that nobody asked for included, is logged and counted. The work begins
    again after a pause that doubles from one second to 30.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        started = time_source.clock()
        failure: BaseException
        try:
            await work()
            return
        except asyncio.CancelledError as error:
            if was_asked_to_end():
                raise
            failure = error
        except Exception as error:
            failure = error
        UNEXPECTED.note("background", failure, "%s failed and begins again", name)
        if time_source.clock() - started >= STEADY_S:
            pause_s = FIRST_PAUSE_S
        await time_source.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


class Enduring:
    """Work that must not end, in a task of its own which the watchdog knows.

    Call `start` inside the event loop and `stop` when done. The work may return, which ends it in order.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], time_source: TimeSource = SYSTEM_TIME) -> None:
        self.name = name
        self._work = work
        self._time_source = time_source
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """Begin the work; harmless when repeated."""
        if self._task is None:
            work = enduring(self.name, self._work, self._time_source)
            self._task = asyncio.get_running_loop().create_task(work, name=self.name)
            WATCHED.add(self)

    async def stop(self, limit_s: float = STOP_S) -> None:
        """Cancel the work and wait for its end; harmless when repeated.

        Raises TimeoutError if it does not end within `limit_s` seconds.
        """
        task, self._task = self._task, None
        WATCHED.discard(self)
        await end(task, limit_s=limit_s)

    def trouble(self) -> str:
        """Return why the work is not done: somebody else ended its task."""
        task = self._task
        if task is None or not task.done() or not (task.cancelled() or task.exception() is not None):
            return ""
        return "its task was ended from outside"

    def revive(self) -> None:
        """Begin the work again if its task has ended."""
        if self.trouble():
            self._task = None
            self.start()
