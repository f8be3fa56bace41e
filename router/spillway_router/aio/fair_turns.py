"""Turns at work that is too long to be done twice at once: one after the other, and each owner's in its own line.

Whoever has many pieces of work waits behind the next one of everybody else, so that nobody keeps others from it. And
work on the event loop gives its turn away now and then: a body of a few MB may take seconds.

A short request needs several turns of the event loop, from its connection to its answer. After a long step the loop
therefore gets all of them at once: otherwise such a request would wait for as many long steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

Made = TypeVar("Made")
SHARE_S = 0.05
"""Seconds after which work that goes on step by step lets others have the turn."""
LONG_STEP_S = 0.003
TURNS_OF_A_REQUEST = 5
"""Turns of the event loop that a short request takes on a new connection."""


@dataclass(slots=True)
class _Line:
    """The work of one owner: `count` pieces are under way or wait."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0


class _LoopTurns:
    """The turns of one event loop."""

    __slots__ = ("_lines", "_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        """Owners that wait for the turn."""
        self._lines: dict[str, _Line] = {}

    async def begin(self, owner: str) -> None:
        line = self._lines.setdefault(owner, _Line())
        line.count += 1
        try:
            await line.lock.acquire()
            try:
                await self._take()
            except BaseException:
                line.lock.release()
                raise
        except BaseException:
            self._leave(owner, line)
            raise

    async def pass_on(self, owner: str) -> None:
        """Let everybody have the turn who waits for it. If the caller is cancelled meanwhile, its turn has ended."""
        if not self._waiting:
            return
        self._lock.release()
        try:
            await self._take()
        except BaseException:
            self._end_line(owner)
            raise

    def end(self, owner: str) -> None:
        self._lock.release()
        self._end_line(owner)

    async def _take(self) -> None:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1

    def _end_line(self, owner: str) -> None:
        line = self._lines[owner]
        line.lock.release()
        self._leave(owner, line)

    def _leave(self, owner: str, line: _Line) -> None:
        line.count -= 1
        if not line.count:
            del self._lines[owner]


class Turn:
    """A turn of one owner, for work that goes on step by step on the event loop."""

    __slots__ = ("_began_s", "_clock", "_is_held", "_owner", "_step_began_s", "_turns")

    def __init__(self, turns: _LoopTurns, owner: str, clock: Callable[[], float]) -> None:
        self._turns = turns
        self._owner = owner
        self._clock = clock
        self._began_s = self._step_began_s = clock()
        self._is_held = True

    async def step(self) -> None:
        """Give the event loop its turns between two steps; after `SHARE_S` everybody else, too, who waits for this."""
        now_s = self._clock()
        loop_turns = TURNS_OF_A_REQUEST if now_s - self._step_began_s > LONG_STEP_S else 1
        if now_s - self._began_s >= SHARE_S:
            self._is_held = False  # unless it comes back
            await self._turns.pass_on(self._owner)
            self._is_held = True
            self._began_s = self._clock()
        for _ in range(loop_turns):
            await asyncio.sleep(0)
        self._step_began_s = self._clock()

    def end(self) -> None:
        """End the turn, if it has not ended by a cancellation."""
        if self._is_held:
            self._turns.end(self._owner)


class FairTurns:
    """The turns at one kind of work. Owners are named by any text, such as the id of a key."""

    __slots__ = ("_by_loop", "_clock")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopTurns] = WeakKeyDictionary()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[Turn]:
        """Wait for the turn of an owner, and hold it."""
        turns = self._turns()
        await turns.begin(owner)
        turn = Turn(turns, owner, self._clock)
        try:
            yield turn
        finally:
            turn.end()

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
