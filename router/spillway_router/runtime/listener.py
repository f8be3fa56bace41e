"""Accepts connections only while there is a place for them, where descriptors are few.

The event loop's own listener accepts all that come, and drops those for which no descriptor is left without a word.
This one leaves them in the system's queue until others end, which takes a moment, as requests that find no place are
refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection

AT_ONCE = 32
PAUSE_S = 0.05
"""How long it waits for a place, and after the system had none."""


class ScarceListener:
    """Listens on a socket. `connections` are those that are open, of which there may be `most`.

    It has the methods of `asyncio.Server` that uvicorn needs.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        most: int,
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._connections = connections
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if not self._closed:
            self._closed = True
            if self._timer is None:
                self._loop.remove_reader(self._listening)
            else:
                self._timer.cancel()
            self._listening.close()

    async def wait_closed(self) -> None:
        """Wait until those that were accepted last have begun."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if len(self._connections) + len(self._beginning) >= self._most:
                self._pause()
                return
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()  # no descriptor or no memory is left
                return
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._begin(accepted))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if not self._closed:
            self._loop.add_reader(self._listening, self._accept)
