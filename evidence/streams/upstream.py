"""An upstream that plays the packets of a case: each one reaches the router in a read of its own.

The upstream shares its event loop with the router. A packet is handed to the kernel at once, and the next one follows
only after the loop has polled its sockets and run what was ready, so that the packets are read as they were cut.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from evidence.streams.faults import End
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.upstream import reset

BEATS = 5
"""Turns of the loop after a packet: one polls the sockets, the others run the router's tasks."""
CASE = re.compile(rb"case:(\d+)\.")
_PROBING = wire.PROBE_HEADER.encode()
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

Play = tuple[tuple[bytes, ...], End]
Choose = Callable[[int, bytes], Play]
"""Chooses what a request gets, from the number in its body and its request line."""


class ScriptedUpstream:
    """Answers every POST with what `choose` returns, and the probes of a local engine."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.asked = 0
        """Requests so far, probes not counted."""
        self.connections: set[_Connection] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listen on a free port of the loopback, and yield the base URL, which ends in /v1."""
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        try:
            yield "http://{}:{}/v1".format(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()
            for connection in list(self.connections):
                connection.close()


class _Connection(asyncio.Protocol):
    """One connection of the router to the upstream."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._received = b""
        self._playing: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._upstream.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._upstream.connections.discard(self)
        if self._playing is not None:
            self._playing.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        wanted = int(length.group(1)) if length else 0
        if not end or len(body) < wanted or self._transport is None:
            return
        self._received = body[wanted:]
        if head.startswith(b"GET ") or _PROBING in head.lower():
            self._transport.write(_probe(head))
            return
        self._upstream.asked += 1
        number = CASE.search(body)
        play = self._upstream.choose(int(number.group(1)) if number else -1, head.partition(b"\r\n")[0])
        self._playing = asyncio.get_running_loop().create_task(self._play(*play))

    async def _play(self, packets: tuple[bytes, ...], end: End) -> None:
        for packet in packets:
            if self._transport is None:
                return
            self._transport.write(packet)
            for _ in range(BEATS):
                await asyncio.sleep(0)
        if self._transport is not None and end == "rst":
            reset(self._transport)
        elif self._transport is not None and end == "fin":
            self._transport.close()

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _probe(head: bytes) -> bytes:
    """Return the answer of an idle vLLM to a probe."""
    path = head.split(b" ", 2)[1]
    if head.startswith(b"POST "):
        return wire.http_answer(200, wire.dump(wire.PROBED))
    if path == b"/health":
        return wire.http_answer(200, b"")
    if path == b"/metrics":
        return wire.http_answer(200, wire.IDLE_METRICS, "text/plain")
    return wire.http_answer(404, b"{}", reason="Not Found")
