"""What runs beside the requests: one list gives the order of the start and, in reverse, that of the stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

log = logging.getLogger("spillway")

STOP_S = 15.0
"""Longer than what the services wait for themselves: the ledger's last flush takes up to 10 s."""


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is stopped, and perhaps started. `start` begins inside the event loop and doesn't wait."""

    name: str
    stop: Callable[[], Awaitable[object]]
    start: Callable[[], None] = lambda: None


class Background:
    """Services in the order of their start. Each may take `stop_s` seconds to stop."""

    def __init__(self, *services: Service, stop_s: float = STOP_S) -> None:
        self._services = services
        self._stop_s = stop_s

    def start(self) -> None:
        """Start all, in order."""
        for service in self._services:
            service.start()

    async def stop(self) -> None:
        """Stop all, the last one first. One that fails, hangs or is cancelled keeps none of the others running: the log
        tells of it."""
        async with AsyncExitStack() as stack:
            for service in self._services:
                stack.push_async_callback(self._end, service)

    async def _end(self, service: Service) -> None:
        try:
            async with asyncio.timeout(self._stop_s):
                await service.stop()
        except TimeoutError:
            log.exception("%s: not stopped within %g s, left behind", service.name, self._stop_s)
        except Exception:
            log.exception("%s: stopped with an error", service.name)
