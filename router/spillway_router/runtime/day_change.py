"""Notices when a UTC day begins: prices, model withdrawals and staleness depend on the day, and a router runs for many
days."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime

from spillway_router.aio.periodic import Periodic, Rhythm

log = logging.getLogger("spillway")

LONGEST_SLEEP_S = 600.0
"""The wall clock is read at least this often, because it may be set and a machine may sleep over midnight."""
DAY_S = 86_400


def utc_day(wall_s: float) -> date:
    """Return the UTC day of epoch seconds."""
    return datetime.fromtimestamp(wall_s, UTC).date()


class DayChange:
    """Calls `on_day` once for each new day. An error of `on_day` is logged, and the next day is still noticed.

    `wall` is epoch seconds.
    """

    def __init__(
        self, on_day: Callable[[date], Awaitable[None]], wall: Callable[[], float], longest_s: float = LONGEST_SLEEP_S
    ) -> None:
        self._on_day = on_day
        self._wall = wall
        self._longest_s = longest_s
        self._day = utc_day(wall())
        self._periodic = Periodic("day change", Rhythm(self._pause_s, wait_first=True), self.check, self._on_error)

    def start(self) -> None:
        """Start to watch the clock; harmless when repeated."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop to watch the clock; harmless when repeated."""
        await self._periodic.stop()

    async def check(self) -> None:
        """Call `on_day` if a new day has begun since the last call."""
        today = utc_day(self._wall())
        if today != self._day:
            self._day = today
            await self._on_day(today)

    def _pause_s(self) -> float:
        return min(self._longest_s, DAY_S - self._wall() % DAY_S)

    def _on_error(self, error: Exception) -> None:
        log.error("the prices of %s could not be loaded; the previous prices stay in force", self._day, exc_info=error)
