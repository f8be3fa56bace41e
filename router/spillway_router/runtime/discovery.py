"""Looks for the engines of discovered backends, and has the router use them when they change.

A lookup that fails changes nothing: the engines that were found before stay, since a name server or a file that is away
says nothing of them. Engines that are no longer listed get no new requests, and their answers end. New ones get
requests once the prober had a token from them (signals/prober.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.config.discovery import DiscoveryError, Engines, engine_urls
from spillway_router.config.settings import BackendPart, Settings

log = logging.getLogger("spillway.discovery")

LOOKUP_S = 5.0
"""Longest time of one lookup, in seconds."""


class Discovery:
    """Calls `on_engines` with all engines whenever they have changed. `written` returns the settings as they are
    written; `on_engines` says whether it could use them, and is called again if not."""

    def __init__(self, written: Callable[[], Settings], on_engines: Callable[[Engines], Awaitable[bool]]) -> None:
        self._written = written
        self._on_engines = on_engines
        self._engines: dict[str, tuple[str, ...]] = {}
        self._failing: dict[str, str] = {}
        self._periodic = Periodic("discovery", Rhythm(self._pause_s), self.look)

    def start(self) -> None:
        """Start to look; harmless when repeated."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop to look; harmless when repeated."""
        await self._periodic.stop()

    async def look(self) -> None:
        """Look once for the engines of every discovered backend."""
        engines = dict(self._engines)
        parts = [part for part in self._written().backends if part.discover is not None]
        for part in parts:
            try:
                async with asyncio.timeout(LOOKUP_S):
                    engines[part.name] = await _listed_engines(part)
            except (OSError, UnicodeDecodeError, DiscoveryError) as error:
                self._note(part, str(error) or type(error).__name__)
            else:
                self._failing.pop(part.name, None)
        engines = {part.name: engines[part.name] for part in parts if part.name in engines}
        if engines != self._engines and await self._on_engines(engines):
            self._engines = engines

    def _note(self, part: BackendPart, reason: str) -> None:
        """Log a failure, once as long as it stays the same."""
        if self._failing.get(part.name) != reason:
            self._failing[part.name] = reason
            log.warning(
                "backend %s: %s was not read, its engines stay as they are: %s", part.name, part.discover_from, reason
            )

    def _pause_s(self) -> float:
        return min((part.discover_every_s for part in self._written().backends if part.discover), default=60.0)


async def _listed_engines(part: BackendPart) -> tuple[str, ...]:
    """Return the base URLs of the engines that a backend's source lists now. Raises OSError and DiscoveryError."""
    if part.discover == "file":
        text = await asyncio.to_thread(Path(part.discover_from).read_text, encoding="utf-8")
        return engine_urls(text.splitlines())
    host, _, port = part.discover_from.rpartition(":")
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in answers})
    return engine_urls(f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts)
