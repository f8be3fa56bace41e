"""The cache as requests see it: a store that is down, slow or full is a miss, and never an error.

After a call that failed or took too long the store is left alone for a moment, so that an outage delays one request in
a second, and not all of them. The log hears of an outage once, and of its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from spillway_router.caching.interface import AnswerStore, StoreUnavailableError
from spillway_router.caching.similar import SimilarQuestions
from spillway_router.core.caching.rules import CacheRules

log = logging.getLogger("spillway.cache")

PAUSE_S = 1.0
"""How long a store that failed is left alone."""
MOST_PENDING = 64
"""Answers that wait to be stored; further ones are dropped and counted."""
PUT_LIMIT_S = 5.0
"""The longest time that storing one answer may take, for which nobody waits."""


class AnswerCache:
    """A store with limits. `timeout_s` is how long a request waits for it; `clock` is monotonic seconds."""

    def __init__(self, store: AnswerStore, rules: CacheRules, timeout_s: float, clock: Callable[[], float]) -> None:
        self.rules = rules
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._away_until = 0.0
        self._is_away = False
        self._pending: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        """Look-ups by result (hit, semantic, miss, bypass, refresh), and answers that were stored or dropped."""
        self.similar = None if rules.semantic is None else SimilarQuestions(rules.semantic, clock)
        """The questions of stored answers, for those that are similar; None if these get no stored answer."""
        self.saved_nano = 0
        """What the answers had cost that were given again, in nano-dollars."""

    @property
    def leaves_process(self) -> bool:
        """Whether what is stored leaves this process."""
        return self._store.leaves_process

    @property
    def is_up(self) -> bool:
        """Whether the last call of the store succeeded."""
        return not self._is_away

    async def get(self, key: bytes) -> bytes | None:
        """Return what is stored; None if nothing is, or if the store doesn't answer in time."""
        if self._clock() < self._away_until:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._store.get(key)
        except (StoreUnavailableError, TimeoutError) as error:
            self._failed(error)
            return None
        self._answered()
        return value

    def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Store a value soon. Nobody waits for it, and what finds no place is dropped."""
        if len(self._pending) >= MOST_PENDING or self._clock() < self._away_until:
            self.counts["dropped"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._put(key, value, ttl_s))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        try:
            async with asyncio.timeout(PUT_LIMIT_S):
                await self._store.put(key, value, ttl_s)
        except (StoreUnavailableError, TimeoutError) as error:
            self.counts["dropped"] += 1
            self._failed(error)
            return
        self.counts["stored"] += 1
        self._answered()

    async def settled(self) -> None:
        """Wait until everything that was given to `put` is stored or dropped."""
        await asyncio.gather(*self._pending)

    async def close(self) -> None:
        """Store what waits, and close the store."""
        await self.settled()
        await self._store.close()

    def _failed(self, error: Exception) -> None:
        self.counts["failed"] += 1
        self._away_until = self._clock() + PAUSE_S
        if not self._is_away:
            self._is_away = True
            reason = str(error) or f"no answer within {self._timeout_s * 1000:g} ms"
            log.warning("the cache is unreachable, and requests go to their backends: %s", reason)

    def _answered(self) -> None:
        if self._is_away:
            self._is_away = False
            log.warning("the cache is reachable again")
