"""Writes that leave together, when the event loop has done what was ready.

A write wakes whoever reads the socket, and to wake a sleeping process costs more than the write: on a virtual machine
an interrupt of another processor, 5 to 15 us. What one turn of the loop has to say is therefore written in one go after
it: the reader is woken by the first write and awake for the others (8 of 180 us per request with 32 in flight).
Nothing waits for what is not ready; a turn is as long as the work of the sockets that had something.

Whoever writes to one of these transports past the outbox calls `flush` first.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """See the module docstring. For one event loop."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def put(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` soon, before any callback that is scheduled from now on."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Write what waits now. What is for a connection that was closed meanwhile is left out."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
