"""Sockets of the hot path: a keep-alive HTTP/1.1 client on llhttp, and the only place that maps their errors.

Why not a library: decisions/0002 has the figures. What it promises:

- `Response.close()` may be called at any point and any number of times. A whole answer gives the connection back to
  the pool; anything else aborts the socket, so that the upstream stops working for nobody.
- Memory is bounded: reading pauses while more than `HIGH_WATER` bytes wait for the reader.
- Every wait has a deadline that the caller moves (`Response.expect_within`), kept by one timer per connection.
- An answer cut short is an error, never a short answer: a chunked or sized body that ends early raises BrokenError.
- A kept connection that the server closed under our feet, before a byte of answer, is replaced once.

Redirects, cookies, compression and proxies are left out on purpose: none of them belongs between a router and its
engines.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import httptools

from spillway_router.providers.base import Reply, Target

HIGH_WATER = 256 * 1024
MAX_HEADER_BYTES = 64 * 1024


class TransportError(Exception):
    """An upstream call failed below HTTP."""


class ConnectError(TransportError):
    """No connection could be made: nothing was sent."""


class BrokenError(TransportError):
    """The connection or its HTTP broke before the answer was whole."""


class StallError(TransportError):
    """Nothing useful came within the deadline."""


class PoolFullError(TransportError):
    """As many connections as allowed are in use: nothing was sent."""


class TooLargeError(TransportError):
    """The answer is larger than allowed."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of one pool; seconds and counts. `keepalive_s` stays below the server's own (vLLM: 5 s)."""

    connections: int = 2048
    idle: int = 256
    keepalive_s: float = 4.0
    connect_s: float = 5.0


class _Connection(asyncio.Protocol):
    """One socket, one answer at a time. Parser callbacks fill it; the reader empties it."""

    __slots__ = (
        "_buffer", "_error", "_keep", "_length_known", "_loop", "_parser", "_paused", "_size", "_timer",
        "_transport", "_waiter", "complete", "deadline", "head_done", "headers", "idle_since", "on_lost", "reused",
        "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[_Connection], None]) -> None:
        self._loop = loop
        self.on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.reused = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self._paused = False
        self._length_known = False
        self._keep = False
        self.head_done = False
        self.complete = False
        self.status = 0
        self.headers: dict[str, str] = {}
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
            self._fail(BrokenError(f"the upstream's HTTP is malformed: {error}"))
            self.abort()
            return
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.complete:
            if self.head_done and not self._length_known and exc is None:
                self.complete = True  # a body that ends with the connection
            else:
                self._fail(BrokenError("the upstream closed the connection before its answer was whole"))
        self._wake()
        self.on_lost(self)

    # llhttp's side

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self._size += len(name) + len(value)
        if self._size > MAX_HEADER_BYTES:
            raise httptools.HttpParserCallbackError("headers too large")
        text = value.decode("latin-1")
        self.headers[key] = text
        if key in ("content-length", "transfer-encoding"):
            self._length_known = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._size = 0
        if self.status >= 200:
            self.head_done = True
        if self.status in (204, 304):
            self._length_known = True

    def on_body(self, body: bytes) -> None:
        self._buffer.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            self._keep = bool(self._parser.should_keep_alive())  # llhttp forgets it with the message
        else:
            self.headers = {}

    # the reader's side

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, body: bytes) -> None:
        """Send a request. The body goes in its own write so that it is not copied."""
        if not self.alive:
            raise ConnectError("the connection is gone")
        assert self._transport is not None
        if len(body) < 65536:
            self._transport.write(head + body)
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

    def take(self) -> bytes:
        """Body bytes that have come, b"" if none; reading goes on."""
        if not self._buffer:
            return b""
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def failed(self) -> TransportError | None:
        return self._error

    def reusable(self) -> bool:
        return self.complete and self.alive and not self._buffer and self._keep

    def rest(self, now: float) -> None:
        """Back to idle: forget the answer, drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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


class Response:
    """An answer whose head has come. Read it, then `close()`; without reading to the end, close aborts."""

    __slots__ = ("_connection", "_pool", "headers", "status")

    def __init__(self, pool: Pool, connection: _Connection) -> None:
        self._pool = pool
        self._connection: _Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    def expect_within(self, seconds: float) -> None:
        """Move the deadline of the current or next read to `seconds` from now."""
        if self._connection is not None:
            self._connection.expect_within(seconds)

    async def read(self) -> bytes:
        """The next bytes as they came, b"" at the end. Raises BrokenError or StallError."""
        connection = self._connection
        if connection is None:
            return b""
        while True:
            data = connection.take()
            if data or connection.complete:
                return data
            await connection.wait()

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises TooLargeError over `limit` bytes, BrokenError or StallError."""
        connection = self._connection
        if connection is not None and connection.complete:
            return connection.take()
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                raise TooLargeError(f"the upstream's answer is larger than {limit} bytes")
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back if its answer is whole, else abort it. Harmless when repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


class Pool:
    """Keep-alive connections to one target."""

    def __init__(self, target: Target, limits: PoolLimits, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._limits = limits
        self._tls = tls
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        fixed = [b"host: " + target.authority, b"accept-encoding: identity", b"user-agent: spillway"]
        fixed.extend(name + b": " + value for name, value in target.headers)
        self._fixed = b"\r\n".join(fixed) + b"\r\n"

    @property
    def in_use(self) -> int:
        """Connections that carry a request now."""
        return len(self._open) - len(self._idle)

    def head(self, path: str, length: int, extra: bytes = b"") -> bytes:
        """Request line and headers of a POST; `extra` is whole header lines, each with its CRLF."""
        line = f"POST {self._target.prefix}{path} HTTP/1.1\r\n".encode("ascii")
        return b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (
            line,
            self._fixed,
            length,
            extra,
        )

    async def send(self, head: bytes, body: bytes, head_within_s: float) -> Response:
        """Send and wait for the answer's head. Raises TransportError; cancelling closes the connection."""
        while True:
            connection = self._pick() or await self._connect()
            reused = connection.reused
            try:
                connection.start(head, body)
                connection.expect_within(head_within_s)
                while not connection.head_done:
                    await connection.wait()
            except BrokenError:
                self._drop(connection)
                if reused and connection.status == 0:
                    self._clear_idle()  # its siblings are as old: ask on a fresh one, once
                    continue
                raise
            except BaseException:
                self._drop(connection)
                raise
            return Response(self, connection)

    async def call(self, head: bytes, body: bytes, within_s: float, limit: int) -> Reply:
        """A whole non-stream call: `within_s` bounds each wait, `limit` the answer's bytes."""
        response = await self.send(head, body, within_s)
        try:
            return Reply(response.status, response.headers, await response.read_all(limit))
        finally:
            response.close()

    def release(self, connection: _Connection) -> None:
        """Take a connection back: idle if it may be used again, else closed."""
        if connection.reusable() and len(self._idle) < self._limits.idle:
            connection.rest(time.monotonic())
            self._idle.append(connection)
        else:
            self._drop(connection)

    def close(self) -> None:
        """Abort everything."""
        for connection in tuple(self._open):
            self._drop(connection)

    def _pick(self) -> _Connection | None:
        oldest = time.monotonic() - self._limits.keepalive_s
        while self._idle:
            connection = self._idle.pop()  # the youngest: old ones age out
            if connection.alive and connection.idle_since > oldest:
                connection.wake_up()
                return connection
            self._drop(connection)
        return None

    async def _connect(self) -> _Connection:
        if len(self._open) >= self._limits.connections:
            raise PoolFullError(f"{self._limits.connections} connections are in use")
        loop = asyncio.get_running_loop()
        connection = _Connection(loop, self._lost)
        self._open.add(connection)
        target = self._target
        try:
            async with asyncio.timeout(self._limits.connect_s):
                if target.uds:
                    await loop.create_unix_connection(lambda: connection, target.uds)
                else:
                    await loop.create_connection(
                        lambda: connection,
                        target.host,
                        target.port,
                        ssl=self._tls if target.scheme == "https" else None,
                        server_hostname=target.host if target.scheme == "https" else None,
                    )
        except (OSError, TimeoutError) as error:
            self._drop(connection)
            raise ConnectError(f"can't connect: {error or type(error).__name__}") from error
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection.reused and connection in self._idle:
            self._idle.remove(connection)

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.abort()

    def _clear_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())
