"""Opens the cache that a configuration asks for, and keeps it over reloads that don't change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spillway_router.caching.cache import AnswerCache
from spillway_router.caching.interface import AnswerStore
from spillway_router.caching.memory_store import MemoryStore
from spillway_router.caching.sqlite_store import SqliteStore
from spillway_router.caching.urls import MEMORY, SQLITE
from spillway_router.core.caching.rules import CacheRules


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where answers are stored, how many bytes of them, how long a request waits for the store, and by which rules.

    `store` is MEMORY or a URL, which may hold a password.
    """

    store: str = field(repr=False)
    most_bytes: int
    timeout_s: float
    rules: CacheRules


class OpenCache:
    """The cache in force. `clock` is monotonic seconds, `wall` epoch seconds."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._settings: CacheSettings | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.cache: AnswerCache | None = None

    def configure(self, settings: CacheSettings | None) -> AnswerCache | None:
        """Return the cache with these settings: the same one if they have not changed, else an empty one."""
        if settings == self._settings:
            return self.cache
        left, self._settings = self.cache, settings
        self.cache = None
        if settings is not None:
            self.cache = AnswerCache(self._store(settings), settings.rules, settings.timeout_s, self._clock)
        if left is not None:
            task = asyncio.get_running_loop().create_task(left.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self.cache

    async def close(self) -> None:
        """Store what waits, and close every store that is still open."""
        await asyncio.gather(*self._closing)
        if self.cache is not None:
            await self.cache.close()

    def _store(self, settings: CacheSettings) -> AnswerStore:
        if settings.store == MEMORY:
            return MemoryStore(settings.most_bytes, self._clock)
        if settings.store.startswith(SQLITE):
            return SqliteStore(Path(settings.store.removeprefix(SQLITE)), settings.most_bytes, self._wall)
        # Few routers have one, and none without it should need the library.
        from spillway_router.caching.redis_store import RedisStore

        return RedisStore(settings.store, settings.timeout_s)
