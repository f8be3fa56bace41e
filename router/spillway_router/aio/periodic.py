"""One piece of work, repeated in the background until it is stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from spillway_router.aio.tasks import end
from spillway_router.aio.unexpected import UNEXPECTED

STOP_S = 10.0
"""How long `stop` waits for work that does not end when it is cancelled."""

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
    follows after the usual pause either way.
    """

    def __init__(
        self,
        name: str,
        rhythm: Rhythm,
        work: Callable[[], Awaitable[object]],
        on_error: OnError | None = None,
        time_source: TimeSource = SYSTEM_TIME,
    ) -> None:
        self._name = name
        self._rhythm = rhythm
        self._work = work
        self._on_error = on_error or self._log_error
        self._time_source = time_source
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._task is not None

    def start(self) -> None:
        """Run in a task of its own; harmless when repeated."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.run(), name=self._name)

    async def stop(self, limit_s: float = STOP_S) -> None:
        """Cancel the run in progress and end; harmless when repeated.

        Raises TimeoutError if the work does not end within `limit_s` seconds, and what `on_error` raised.
        """
        task, self._task = self._task, None
        await end(task, limit_s=limit_s)

    async def run(self) -> None:
        """Repeat the work until cancelled."""
        clock, sleep = self._time_source.clock, self._time_source.sleep
        if self._rhythm.wait_first:
            await sleep(self._rhythm.pause_s())
        while True:
            started = clock()
            try:
                await self._work()
            except Exception as error:
                self._on_error(error)
            pause_s = self._rhythm.pause_s()
            await sleep(max(0.0, started + pause_s - clock()) if self._rhythm.from_start else pause_s)

    def _log_error(self, error: Exception) -> None:
        UNEXPECTED.note("background", error, "%s failed and will be repeated", self._name)
