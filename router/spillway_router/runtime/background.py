"""The services that run in the background: one list gives the order of their start and, in reverse, of their stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from spillway_router.aio.unexpected import UNEXPECTED

log = logging.getLogger("spillway")

STOP_S = 15.0
"""Longer than the services themselves wait when they stop: the ledger's last flush takes up to 10 s."""


@dataclass(frozen=True, slots=True)
class Service:
    """Something that has to be stopped, and perhaps started. `start` runs inside the event loop and doesn't wait."""

    name: str
    stop: Callable[[], Awaitable[object]]
    start: Callable[[], None] = lambda: None


class Background:
    """Services in the order of their start. Each may take `stop_s` seconds to stop."""

    def __init__(self, services: Sequence[Service], stop_s: float = STOP_S) -> None:
        self._services = services
        self._stop_s = stop_s

    def start(self) -> None:
        """Start all services in order."""
        for service in self._services:
            service.start()

    async def stop(self) -> None:
        """Stop all services, the last one first.

        A service that fails, hangs or is cancelled is logged and does not prevent the others from stopping.
        """
        async with AsyncExitStack() as stack:
            for service in self._services:
                stack.push_async_callback(self._stop, service)

    async def _stop(self, service: Service) -> None:
        try:
            async with asyncio.timeout(self._stop_s):
                await service.stop()
        except TimeoutError:
            log.exception("%s did not stop within %g s and is left behind", service.name, self._stop_s)
        except Exception as error:
            UNEXPECTED.note("background", error, "%s stopped with an error", service.name)
