"""Turns at work that is too long to be done twice at once: one after the other, and each owner's in its own line.

Whoever has many pieces of work waits behind the next one of everybody else, so that nobody keeps others from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

Made = TypeVar("Made")


@dataclass(slots=True)
class _Line:
    """The work of one owner: `count` pieces are under way or wait."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0


class _LoopTurns:
    """The turns of one event loop."""

    __slots__ = ("_lines", "_lock")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._lines: dict[str, _Line] = {}

    async def begin(self, owner: str) -> None:
        line = self._lines.setdefault(owner, _Line())
        line.count += 1
        try:
            await line.lock.acquire()
            try:
                await self._lock.acquire()
            except BaseException:
                line.lock.release()
                raise
        except BaseException:
            self._leave(owner, line)
            raise

    def end(self, owner: str) -> None:
        line = self._lines[owner]
        self._lock.release()
        line.lock.release()
        self._leave(owner, line)

    def _leave(self, owner: str, line: _Line) -> None:
        line.count -= 1
        if not line.count:
            del self._lines[owner]


class FairTurns:
    """The turns at one kind of work. Owners are named by any text, such as the id of a key."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopTurns] = WeakKeyDictionary()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for the turn of an owner, and hold it."""
        turns = self._turns()
        await turns.begin(owner)
        try:
            yield
        finally:
            turns.end(owner)

    async def in_thread(self, owner: str, work: Callable[..., Made], *arguments: object) -> Made:
        """Return what `work` returns, which runs in a thread. Nothing stops a thread: if the caller is cancelled, the
        turn lasts until the work has ended all the same."""
        turns = self._turns()
        await turns.begin(owner)
        try:
            working = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        except BaseException:
            turns.end(owner)
            raise
        working.add_done_callback(lambda _: turns.end(owner))
        return await asyncio.shield(working)

    def _turns(self) -> _LoopTurns:
        return self._by_loop.setdefault(asyncio.get_running_loop(), _LoopTurns())
