"""A lock for work that is too long to be done twice within one turn of an event loop."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary


class LoopLock:
    """One asyncio.Lock per event loop, made when it is first asked for."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def lock(self) -> asyncio.Lock:
        """Return the lock of the running loop."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
