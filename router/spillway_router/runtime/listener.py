"""Accepts connections only while there is a place for them, where descriptors are few.

The event loop's own listener accepts all that come, and drops those for which no descriptor is left without a word.
This one leaves them in the system's queue until others end, which takes a moment, as requests that find no place are
refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

AT_ONCE = 32
IDLE_S = 1.0
"""How long a kept connection must have been idle to be closed for others."""
PAUSE_S = 0.05
"""How long it waits for a place, and after the system had none."""


@dataclass(frozen=True, slots=True)
class ClientPlaces:
    """The open connections of a server, of which there may be `most`."""

    connections: Collection[Any]
    most: int

    def leave_idle(self, now_s: float) -> None:
        """Close the connections that have been idle for a while, so that others find a place. `now_s` is loop time."""
        for connection in tuple(self.connections):
            idle_since_s = getattr(connection, "idle_since_s", None)
            is_kept = getattr(connection, "cycle", None) is not None  # it had a request
            if is_kept and idle_since_s is not None and now_s - idle_since_s > IDLE_S:
                connection.transport.close()


class ScarceListener:
    """Listens on a socket. It has the methods of `asyncio.Server` that uvicorn needs."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        places: ClientPlaces,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._places = places
        self._tls = tls
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
            if len(self._places.connections) + len(self._beginning) >= self._places.most:
                self._places.leave_idle(self._loop.time())
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
            await self._loop.connect_accepted_socket(self._protocol, accepted, ssl=self._tls)
        except OSError:  # ssl.SSLError too: the client speaks no TLS
            accepted.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if not self._closed:
            self._loop.add_reader(self._listening, self._accept)
