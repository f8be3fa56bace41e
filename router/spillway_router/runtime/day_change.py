"""Tell when a UTC day begins: prices, withdrawals and staleness go by days, and a router runs for many of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime

log = logging.getLogger("spillway")

LONGEST_SLEEP_S = 600.0
"""The wall clock is looked at this often, as it may be set, and a machine may sleep over midnight."""
DAY_S = 86_400


def utc_day(wall: float) -> date:
    """The UTC day of epoch seconds."""
    return datetime.fromtimestamp(wall, UTC).date()


class DayChange:
    """Calls `on_day` with every new day, once. An error of it is logged and doesn't end the watch.

    `wall` gives epoch seconds.
    """

    def __init__(
        self, on_day: Callable[[date], Awaitable[None]], wall: Callable[[], float], longest_s: float = LONGEST_SLEEP_S
    ) -> None:
        self._on_day = on_day
        self._wall = wall
        self._longest_s = longest_s
        self._day = utc_day(wall())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; harmless when repeated."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="days")

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._longest_s, DAY_S - self._wall() % DAY_S))
            today = utc_day(self._wall())
            if today != self._day:
                self._day = today
                try:
                    await self._on_day(today)
                except Exception:
                    log.exception("the prices of %s could not be taken up; those of before stay", today)
