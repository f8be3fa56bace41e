"""Stored answers in the router's own memory: the answer that was not used for longest makes room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from spillway_router.caching.interface import AnswerStore

ENTRY_BYTES = 512
"""What an entry takes besides its value, with room to spare."""


class MemoryStore(AnswerStore):
    """At most `most_bytes`, gone with the process. `clock` is monotonic seconds."""

    leaves_process = False

    def __init__(self, most_bytes: int, clock: Callable[[], float]) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self.size_bytes = 0

    async def get(self, key: bytes) -> bytes | None:
        """Return what is stored and not over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Store a value, and forget those that were not used for longest until there is room."""
        self._forget(key)
        if len(value) + ENTRY_BYTES > self._most_bytes:
            return
        self._entries[key] = (self._clock() + ttl_s, value)
        self.size_bytes += len(value) + ENTRY_BYTES
        while self.size_bytes > self._most_bytes:
            self._forget(next(iter(self._entries)))

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.size_bytes = 0

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= len(entry[1]) + ENTRY_BYTES
