"""One upstream socket, one HTTP answer at a time: llhttp fills it, a reader empties it. Only transport.py uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from spillway_router.aio.outbox import Outbox

HIGH_WATER = 64 * 1024
TAKE_BYTES = 32 * 1024
MAX_HEADER_BYTES = 64 * 1024
_LENGTHS = ("content-length", "transfer-encoding")


class TransportError(Exception):
    """An upstream call failed below HTTP."""


class ConnectError(TransportError):
    """No connection could be made: nothing was sent."""


class ConnectionBrokenError(TransportError):
    """The connection or its HTTP broke before the answer was whole."""


class StaleConnectionError(ConnectionBrokenError):
    """A kept connection broke before a byte of the answer: it may have been closed before the call came."""


class StallError(TransportError):
    """Nothing useful came within the deadline."""


class PoolFullError(TransportError):
    """As many connections as allowed are in use: nothing was sent."""


class TooLargeError(TransportError):
    """The answer is larger than allowed."""


class Connection(asyncio.Protocol):
    """One socket, one answer at a time. Parser callbacks fill it; the reader empties it."""

    __slots__ = (
        "_buffer", "_error", "_keep", "_loop", "_outbox", "_parser", "_paused", "_sent_headers", "_sink", "_size",
        "_timer", "_transport", "_waiter", "complete", "deadline", "head_done", "idle_since", "on_lost",
        "reused", "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, on_lost: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._outbox = outbox
        self.on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.reused = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._error: TransportError | None = None
        self._paused = False
        self._keep = False
        self.head_done = False
        self.complete = False
        self.status = 0
        self._sent_headers: list[tuple[bytes, bytes]] = []
        self.deadline = 0.0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports don't inherit from it

    def data_received(self, data: bytes) -> None:
        if self.complete or self._error is not None:
            self.abort()  # bytes nobody asked for: this connection can't be trusted with a next request
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionBrokenError(f"the upstream's HTTP is malformed: {error}"))
            self.abort()
            return
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._sink is None or self._sunk():
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.complete:
            if self.head_done and not self._length_known() and exc is None:
                self.complete = True  # a body that ends with the connection
            else:
                self._fail(ConnectionBrokenError("the upstream closed the connection before its answer was whole"))
        self._wake()
        self.on_lost(self)

    # llhttp's side

    def on_header(self, name: bytes, value: bytes) -> None:
        self._sent_headers.append((name, value))
        self._size += len(name) + len(value)
        if self._size > MAX_HEADER_BYTES:
            raise httptools.HttpParserCallbackError("headers too large")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._size = 0
        if self.status >= 200:
            self.head_done = True

    def on_body(self, body: bytes) -> None:
        self._buffer.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            self._keep = bool(self._parser.should_keep_alive())  # llhttp forgets it with the message
        else:
            self._sent_headers = []

    # the reader's side

    @property
    def headers(self) -> dict[str, str]:
        """Names in small letters -> values, made when somebody asks: of most answers nobody does."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._sent_headers}

    def _length_known(self) -> bool:
        return self.status in (204, 304) or not self.headers.keys().isdisjoint(_LENGTHS)

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, body: bytes) -> None:
        """Send a request. The body goes in its own write so that it is not copied."""
        if not self.alive:
            raise ConnectError("the connection is gone")
        assert self._transport is not None
        if len(body) < 65536:
            self._outbox.put(self._transport, head + body)
        else:
            self._transport.writelines((head, body))

    def expect_within(self, seconds: float) -> None:
        """Move the deadline: the current or next wait fails with StallError `seconds` from now."""
        self.deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self.deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self.deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self.deadline <= 0:
            return
        if self._loop.time() + 0.001 < self.deadline:
            self._timer = self._loop.call_at(self.deadline, self._check_deadline)
            return
        self._fail(StallError("the upstream sent nothing useful in time"))
        self._wake()

    async def wait(self) -> None:
        """Until something changed: bytes, the head, the end or an error."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        if self._timer is None and self.deadline > 0:
            self._timer = self._loop.call_at(self.deadline, self._check_deadline)
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def stream_to(self, sink: Callable[[bytes], bool]) -> None:
        """Until `sink`, which gets the bytes as they come, says False, or the answer ended or broke."""
        self._sink = sink
        try:
            if not self._sunk():
                await self.wait()
        finally:
            self._sink = None

    def _sunk(self) -> bool:
        """Give what is there to the sink. True: its reader has something to look at."""
        assert self._sink is not None
        while data := self.take():
            if not self._sink(data):
                return True
        return self.complete

    def take(self) -> bytes:
        """Body bytes that have come, about `TAKE_BYTES` at a time, b"" if none; reading goes on.

        One read of a socket may bring hundreds of events. Their objects cost several times their bytes, so a backlog
        is handed out in parts.
        """
        buffer = self._buffer
        if len(buffer) <= 1:
            data = buffer.pop() if buffer else b""
        elif self._size <= TAKE_BYTES:
            data = b"".join(buffer)
            buffer.clear()
        else:
            count = size = 0
            while size < TAKE_BYTES:
                size += len(buffer[count])
                count += 1
            data = b"".join(buffer[:count])
            del buffer[:count]
        self._size -= len(data)
        if self._paused and self._size <= HIGH_WATER // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self, limit: int) -> bytes:
        """The body to its end. Raises TooLargeError over `limit` bytes, BrokenError or StallError."""
        parts: list[bytes] = []
        size = 0
        while True:
            data = self.take()
            if data:
                size += len(data)
                if size > limit:
                    raise TooLargeError(f"the upstream's answer is larger than {limit} bytes")
                parts.append(data)
            elif self.complete:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            else:
                await self.wait()

    @property
    def has_data(self) -> bool:
        """True if bytes wait for the reader."""
        return bool(self._buffer)

    def reusable(self) -> bool:
        return self.complete and self.alive and not self._buffer and self._keep

    def rest(self, now: float) -> None:
        """Back to idle: forget the answer. The timer stays, as the next answer's deadline is nearly always later."""
        self._reset()
        self.complete = True  # stray bytes while idle kill the connection
        self.idle_since = now
        self.reused = True

    def wake_up(self) -> None:
        self.complete = False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
