"""The live part of the Now page: one snapshot per second, rendered once for all viewers, and none without a viewer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from spillway_router.aio.periodic import Periodic, Rhythm

EVERY_S = 1.0
KEEP_ALIVE_S = 2.0
"""After so long without a change a comment is sent, by which the router learns that a viewer has left."""
MOST_VIEWERS = 200


class Feed:
    """Sends what `snapshot` returns as server-sent events whenever it changes. Belongs to one event loop."""

    def __init__(self, snapshot: Callable[[], str], every_s: float = EVERY_S) -> None:
        self._snapshot = snapshot
        self._event = b""
        self._changed = asyncio.Event()
        self._closed = False
        self._periodic = Periodic("dashboard feed", Rhythm(every_s), self._look)
        self.viewers = 0

    @property
    def is_full(self) -> bool:
        """Return whether no further viewer is taken."""
        return self._closed or self.viewers >= MOST_VIEWERS

    async def events(self, may_see: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the events of one viewer until they leave, may no longer see them, or the feed is closed."""
        self.viewers += 1
        try:
            if self.viewers == 1:
                self._event = event_of(self._snapshot())
                self._periodic.start()
            yield self._event
            while not self._closed and may_see():
                changed = self._changed
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await changed.wait()
                except TimeoutError:
                    yield b":\n\n"
                    continue
                if not self._closed:
                    yield self._event
        finally:
            self.viewers -= 1
            if not self.viewers:
                await self._periodic.stop()

    def close(self) -> None:
        """End the streams of all viewers, as the router stops."""
        self._closed = True
        self._changed.set()

    async def _look(self) -> None:
        event = event_of(self._snapshot())
        if event != self._event:
            self._event = event
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


def event_of(text: str) -> bytes:
    """Return a text as one server-sent event."""
    return b"".join(b"data: %b\n" % line.encode() for line in text.splitlines()) + b"\n"
