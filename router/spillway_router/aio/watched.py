"""Background tasks that somebody notices if they stop: a registry of them, and the watchdog that looks at it.

A task that dies or hangs in the background makes no noise, and what it did simply no longer happens. Every periodic
and every enduring task therefore registers here when it starts. The watchdog looks at all of them every few seconds.
It is a timer, not a task, so that nothing which ends tasks can end it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from spillway_router.aio.unexpected import UNEXPECTED

log = logging.getLogger("spillway")

LOOK_S = 5.0
"""Seconds between two looks of the watchdog."""
BLOCKED_S = 1.0
"""A look that comes so much too late says nothing: the loop was blocked, and so were the tasks."""


class Watched(Protocol):
    """A task in the background."""

    @property
    def name(self) -> str:
        """The task's name in the log and the metrics."""

    def trouble(self) -> str:
        """Return in words why the task does no work although it should; empty if it does."""

    def revive(self) -> None:
        """Start the task again if it has ended; a task that hangs is left alone."""


class WatchedTasks:
    """The background tasks that run, by event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Watched, asyncio.AbstractEventLoop] = {}

    def add(self, task: Watched) -> None:
        """Register a task of the running loop; harmless when repeated."""
        self._tasks[task] = asyncio.get_running_loop()

    def discard(self, task: Watched) -> None:
        """Forget a task that was stopped; harmless when repeated."""
        self._tasks.pop(task, None)

    def of(self, loop: asyncio.AbstractEventLoop) -> list[Watched]:
        """Return the tasks of a loop, and forget those of loops that are closed."""
        for task, its_loop in tuple(self._tasks.items()):
            if its_loop.is_closed():
                del self._tasks[task]
        return [task for task, its_loop in self._tasks.items() if its_loop is loop]


WATCHED = WatchedTasks()
"""One per process, like the log and UNEXPECTED, because tasks start where no service reaches."""


class Watchdog:
    """Looks at every watched task of its loop each `every_s` seconds. Call `start` inside the loop and `close` at the
    end.

    A task in trouble is logged once, counted, reported to `on_stopped` with its name and the trouble, and started again
    if it has ended. When it works again, that is logged too.
    """

    def __init__(self, on_stopped: Callable[[str, str], None], every_s: float = LOOK_S) -> None:
        self._on_stopped = on_stopped
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self.stopped: dict[str, str] = {}
        """The tasks in trouble now, with the trouble."""
        self.counts: dict[str, int] = {}
        """How often each task was in trouble; a task that never was has 0."""

    def start(self) -> None:
        """Begin to look; harmless when repeated."""
        if self._timer is None:
            self._rearm(asyncio.get_running_loop())

    async def close(self) -> None:
        """Stop to look."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _rearm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_at = loop.time() + self._every_s
        self._timer = loop.call_later(self._every_s, self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if loop.time() - self._due_at < BLOCKED_S:
                self.look(loop)
        finally:
            if self._timer is not None:
                self._rearm(loop)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every task once. Never raises."""
        seen = set()
        for task in WATCHED.of(loop):
            try:
                seen.add(task.name)
                self._judge(task)
            except Exception as error:
                UNEXPECTED.note("background", error, "the watchdog could not look at %s", task.name)
        for name in tuple(self.stopped):
            if name not in seen:
                del self.stopped[name]

    def _judge(self, task: Watched) -> None:
        self.counts.setdefault(task.name, 0)
        trouble = task.trouble()
        if not trouble:
            if self.stopped.pop(task.name, ""):
                log.warning("background task %s works again", task.name)
            return
        if task.name not in self.stopped:
            self.stopped[task.name] = trouble
            self.counts[task.name] += 1
            log.error("background task %s has stopped: %s", task.name, trouble)
            self._on_stopped(task.name, trouble)
        task.revive()
