"""One piece of work, repeated in the background until it is stopped, whatever it raises."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from spillway_router.aio.tasks import end, was_asked_to_end
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.aio.watched import WATCHED

STOP_S = 10.0
"""How long `stop` waits for work that does not end when it is cancelled."""
SPARE_PAUSE_S = 10.0
"""The pause where the function that should say it fails."""
LATE_S = 30.0
"""How much later than planned the next run may begin before the watchdog says that the task has stopped."""

OnError = Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When the runs follow each other.

    `every_s` is the pause in seconds, or a function that is asked for it after each run. The pause counts from the end
    of a run; with `from_start` it counts from the beginning, so that runs keep their rhythm and one that takes longer
    than the pause is followed at once. The first run begins at once, or after a pause with `wait_first`.
    """

    every_s: float | Callable[[], float]
    from_start: bool = False
    wait_first: bool = False
    longest_run_s: float = 600.0
    """A run that takes longer counts as stopped; the watchdog says so."""

    def pause_s(self) -> float:
        """Return the pause after the latest run."""
        return self.every_s if isinstance(self.every_s, (int, float)) else self.every_s()


@dataclass(frozen=True, slots=True)
class TimeSource:
    """The clock, in monotonic seconds, and the sleep that goes by it."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


SYSTEM_TIME = TimeSource()


class Periodic:
    """Runs `work` again and again. Call `start` inside the event loop and `stop` when done, or await `run`.

    `on_error` is called with every exception that the work raises; without it the exception is logged. The next run
    follows after the usual pause either way, also if `on_error` or the function of the pause fails, or something that
    the work awaits was cancelled.
    """

    def __init__(
        self,
        name: str,
        rhythm: Rhythm,
        work: Callable[[], Awaitable[object]],
        on_error: OnError | None = None,
        time_source: TimeSource = SYSTEM_TIME,
    ) -> None:
        self.name = name
        self._rhythm = rhythm
        self._work = work
        self._on_error = on_error or self._log_error
        self._time_source = time_source
        self._task: asyncio.Task[None] | None = None
        self._due_at = math.inf
        """By the clock of the time source: when the next sign of life is due at the latest."""

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._task is not None

    def start(self) -> None:
        """Run in a task of its own; harmless when repeated."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.run(), name=self.name)
            WATCHED.add(self)

    async def stop(self, limit_s: float = STOP_S) -> None:
        """Cancel the run in progress and end; harmless when repeated.

        Raises TimeoutError if the work does not end within `limit_s` seconds.
        """
        task, self._task = self._task, None
        WATCHED.discard(self)
        await end(task, limit_s=limit_s)

    async def run(self) -> None:
        """Repeat the work until cancelled."""
        WATCHED.add(self)
        try:
            await self._repeat()
        finally:
            self._due_at = math.inf
            if self._task is None:
                WATCHED.discard(self)

    def trouble(self) -> str:
        """Return why the work is not repeated any more: its task has ended, or there was no sign of life for long."""
        if self._task is not None and self._task.done():
            return "its task was ended from outside"
        late_s = self._time_source.clock() - self._due_at
        return f"its run should have ended {late_s:.0f} s ago" if late_s > 0 else ""

    def revive(self) -> None:
        """Run again if the task has ended; one that hangs is left alone, because the work may still go on."""
        if self._task is not None and self._task.done():
            self._task = None
            self.start()

    async def _repeat(self) -> None:
        clock, sleep = self._time_source.clock, self._time_source.sleep
        if self._rhythm.wait_first:
            pause_s = self._pause_s()
            self._due_at = clock() + pause_s + LATE_S
            await sleep(pause_s)
        while True:
            started = clock()
            self._due_at = started + self._rhythm.longest_run_s
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if was_asked_to_end():
                    raise
                self._log_error(error)
            except Exception as error:
                self._report(error)
            pause_s = self._pause_s()
            if self._rhythm.from_start:
                pause_s = max(0.0, started + pause_s - clock())
            self._due_at = clock() + pause_s + LATE_S
            await sleep(pause_s)

    def _pause_s(self) -> float:
        """Return the pause after the latest run. Never raises."""
        try:
            pause_s = self._rhythm.pause_s()
        except Exception as error:
            self._log_error(error)
            return SPARE_PAUSE_S
        return pause_s if math.isfinite(pause_s) else SPARE_PAUSE_S

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception as second:
            self._log_error(second)

    def _log_error(self, error: BaseException) -> None:
        UNEXPECTED.note("background", error, "%s failed and will be repeated", self.name)
