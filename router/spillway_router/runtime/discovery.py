"""Looks for the engines of discovered backends, and has the router use them when they change.

A lookup that fails changes nothing: the engines that were found before stay, since a name server, a file or an API that
is away says nothing of them. Engines that are no longer listed get no new requests, and their answers end. New ones get
requests once the prober had a token from them (signals/prober.py). A list that takes long delays no other one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.aio.tasks import end
from spillway_router.config.discovery import DiscoveryError, Engines
from spillway_router.config.settings import BackendPart, Settings
from spillway_router.runtime.engine_sources import EngineSource, source_of

log = logging.getLogger("spillway.discovery")

LOOKUP_S = 5.0
"""How long one look waits for the lists, in seconds; those that are not there by then are taken by a later look."""
LONGEST_LOOKUP_S = 130.0
"""Longest time of one lookup, in seconds: SkyPilot's server takes two calls of up to a minute."""
EARLY_PAUSE_S = 0.2
"""The pause after a look that a source asked for: an API may end every watch at once."""

Sources = Callable[[BackendPart, Callable[[], None]], EngineSource]


class _Line:
    """One discovered backend: its source, and the lookup that is under way."""

    __slots__ = ("lookup", "part", "source")

    def __init__(self, part: BackendPart, source: EngineSource) -> None:
        self.part = part
        self.source = source
        self.lookup: asyncio.Task[tuple[str, ...]] | None = None

    def begin(self) -> asyncio.Task[tuple[str, ...]]:
        """Return the lookup that is under way, or a new one."""
        if self.lookup is None:
            self.lookup = asyncio.get_running_loop().create_task(self._limited(), name=f"discovery {self.part.name}")
        return self.lookup

    async def _limited(self) -> tuple[str, ...]:
        async with asyncio.timeout(LONGEST_LOOKUP_S):
            return await self.source.engines()

    async def close(self) -> None:
        """End the lookup and the source."""
        lookup, self.lookup = self.lookup, None
        if lookup is not None:
            lookup.cancel()
            await asyncio.gather(lookup, return_exceptions=True)
        await self.source.close()


class Discovery:
    """Calls `on_engines` with all engines whenever they have changed.

    `written` returns the settings as they are written; `on_engines` says whether it could use them, and is called again
    if not. One look waits `patience_s` for the lists.
    """

    def __init__(
        self,
        written: Callable[[], Settings],
        on_engines: Callable[[Engines], Awaitable[bool]],
        sources: Sources = source_of,
        patience_s: float = LOOKUP_S,
    ) -> None:
        self._written = written
        self._on_engines = on_engines
        self._sources = sources
        self._patience_s = patience_s
        self._engines: dict[str, tuple[str, ...]] = {}
        self._failing: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._changed = asyncio.Event()
        self._early: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._periodic = Periodic("discovery", Rhythm(self._pause_s), self.look)

    def start(self) -> None:
        """Start to look; harmless when repeated."""
        self._periodic.start()
        if self._early is None:
            self._early = asyncio.get_running_loop().create_task(self._look_early(), name="discovery, early")

    async def stop(self) -> None:
        """Stop to look; harmless when repeated."""
        early, self._early = self._early, None
        await end(early)
        await self._periodic.stop()
        for line in self._lines.values():
            await line.close()
        self._lines.clear()

    async def look(self) -> None:
        """Look once for the engines of every discovered backend."""
        async with self._looking:
            lines = await self._present_lines()
            tasks = {line.begin(): line for line in lines}
            done, _ = await asyncio.wait(tasks, timeout=self._patience_s) if tasks else (set(), set())
            engines = dict(self._engines)
            for task in done:
                self._take(tasks[task], task, engines)
            engines = {line.part.name: engines[line.part.name] for line in lines if line.part.name in engines}
            if engines != self._engines and await self._on_engines(engines):
                self._engines = engines

    async def _look_early(self) -> None:
        """Look whenever a source says that something changed, without waiting for the next turn."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.look()
            except Exception as error:
                log.warning("a look for engines failed and is repeated: %s", error)
            await asyncio.sleep(EARLY_PAUSE_S)

    async def _present_lines(self) -> list[_Line]:
        """Return a line per discovered backend as the settings have it now."""
        parts = {part.name: part for part in self._written().backends if part.discover is not None}
        for name, line in list(self._lines.items()):
            if parts.get(name) != line.part:
                del self._lines[name]
                await line.close()
        for name, part in parts.items():
            if name not in self._lines:
                self._lines[name] = _Line(part, self._sources(part, self._changed.set))
        return [self._lines[name] for name in parts]

    def _take(self, line: _Line, lookup: asyncio.Task[tuple[str, ...]], engines: dict[str, tuple[str, ...]]) -> None:
        """Take the result of a lookup over into `engines`, or note why there is none."""
        line.lookup = None
        error = None if lookup.cancelled() else lookup.exception()
        if lookup.cancelled() or isinstance(error, (OSError, UnicodeDecodeError, DiscoveryError)):
            self._note(line.part, str(error or "it was ended") or type(error).__name__)
        elif error is not None:
            raise error
        else:
            engines[line.part.name] = lookup.result()
            self._failing.pop(line.part.name, None)

    def _note(self, part: BackendPart, reason: str) -> None:
        """Log a failure, once as long as it stays the same."""
        if self._failing.get(part.name) != reason:
            self._failing[part.name] = reason
            log.warning(
                "backend %s: %s was not read, its engines stay as they are: %s", part.name, part.discover_from, reason
            )

    def _pause_s(self) -> float:
        return min((part.discover_every_s for part in self._written().backends if part.discover), default=60.0)
