"""The HTTP client of the hot path: a keep-alive HTTP/1.1 pool on llhttp, which maps all socket errors to its own.

decisions/0002 explains with figures why it is not a library. Its guarantees:

- `Response.close()` may be called at any point and any number of times. After a complete answer it returns the
  connection to the pool; otherwise it aborts the socket, so that the upstream stops work that nobody waits for.
- Memory is bounded: reading pauses while more than `HIGH_WATER` bytes wait for the reader.
- Every wait has a deadline that the caller moves (`Response.expect_within`), with one timer per connection.
- An answer cut short is an error, never a short answer: a chunked or sized body that ends early raises
  ConnectionBrokenError.
- A kept-alive connection that the server closes before a byte of the answer is replaced once. For paid calls it is not
  (`PoolLimits.resend`): the server may have processed the call, so sending it again may cost again.

Redirects, cookies and proxies are missing on purpose: none of them belongs between a router and its engines. What comes
compressed although no request allows it is decoded (encoded.py).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping

from spillway_router.aio.outbox import Outbox
from spillway_router.core.frozen import fast_frozen
from spillway_router.http_client.connection import (
    ConnectError,
    Connection,
    ConnectionBrokenError,
    OwnLimitError,
    PendingCall,
    PoolFullError,
    PrivateContentError,
    StaleConnectionError,
)
from spillway_router.http_client.dial import Dialer, MayDial
from spillway_router.http_client.encoded import BYTE_ORDER_MARK, Inflater, decoded, is_encoded
from spillway_router.http_client.own_limits import is_own
from spillway_router.http_client.types import Pieces, Reply, Target

MUST_NOT_LEAVE = "private content must not leave for it"


@fast_frozen(frozen=True, slots=True)
class PoolLimits:
    """Bounds of one pool, in seconds and counts. `keepalive_s` must stay below the server's own (vLLM: 5 s).

    `resend`: whether a call is sent again if a kept-alive connection closes before a byte of the answer; otherwise it
    raises StaleConnectionError.
    """

    connections: int = 2048
    idle: int = 256
    keepalive_s: float = 4.0
    connect_s: float = 5.0
    resend: bool = True


class Response:
    """An answer whose head has arrived. Read it, then call `close()`, which aborts an answer that is not read to its
    end."""

    __slots__ = ("_broken", "_connection", "_inflater", "_pool", "_sink", "headers", "status")

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self._inflater = Inflater() if is_encoded(self.headers) else None
        self._sink: Callable[[bytes], bool] | None = None
        """Takes what the inflater decodes."""
        self._broken: ConnectionBrokenError | None = None
        """Why what came could not be decoded."""

    def expect_within(self, seconds: float) -> None:
        """Move the deadline of the current or next read to `seconds` from now."""
        if self._connection is not None:
            self._connection.expect_within(seconds)

    async def read(self) -> bytes:
        """Return the next bytes as they arrived, b"" at the end. Raises ConnectionBrokenError or StallError."""
        connection = self._connection
        if connection is None:
            return b""
        if connection.holds_several_parts:
            await asyncio.sleep(0)  # between two parts everybody else has a turn of the loop
        while True:
            data = connection.take()
            ended = not data and connection.complete
            if self._inflater is not None:
                if ended:
                    self._inflater.end()
                data = self._inflater.feed(data)
            if data or ended:
                return data
            if not connection.has_data and not connection.complete:
                await connection.wait()

    async def stream_to(self, sink: Callable[[bytes], bool]) -> bool:
        """Pass bytes to `sink` as they arrive, within the socket's own callback, so that no task wakes up per chunk.

        Return True if `sink` returned False and there may be more, False once the answer has ended. Raises
        ConnectionBrokenError or StallError.
        """
        connection = self._connection
        if connection is None:
            return False
        if self._inflater is None:
            await connection.stream_to(sink)
            return not connection.complete or connection.has_data
        self._sink = sink
        await connection.stream_to(self._take_encoded)
        if self._broken is not None:
            raise self._broken
        if not connection.complete or connection.has_data:
            return True
        self._inflater.end()
        return False

    def _take_encoded(self, data: bytes) -> bool:
        """Pass on what these bytes decode to. Nothing may be raised here: the socket's callback is the caller."""
        inflater, sink = self._inflater, self._sink
        assert inflater is not None
        assert sink is not None
        try:
            part = inflater.feed(data)
        except ConnectionBrokenError as error:
            self._broken = error
            return False
        return sink(part) if part else True

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body. Raises TooLargeError over `limit` bytes, ConnectionBrokenError or StallError."""
        connection = self._connection
        return b"" if connection is None else (await _whole(connection, limit, [])).body

    def close(self) -> None:
        """Return the connection to the pool if its answer is complete, else abort it. May be called repeatedly."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


async def _whole(connection: Connection, limit: int, parts: list[bytes]) -> Reply:
    """Return the whole answer, without what only says how its text is written."""
    body, headers = await connection.read_all(limit, parts), connection.headers
    if body and is_encoded(headers):
        body = await decoded(body, limit)
    return Reply(connection.status, headers, body.removeprefix(BYTE_ORDER_MARK))


def _without(head: bytes, names: frozenset[str]) -> bytes:
    """Return the request line and the header lines of `head` that have none of these lowercase names."""
    line, *headers = head.splitlines(keepends=True)
    kept = [header for header in headers if header.partition(b":")[0].decode("latin-1").lower() not in names]
    return line + b"".join(kept)


class Pool:
    """Keep-alive connections to one target.

    `local`: it is a local backend, which alone may get private content. `may_dial` judges each address before it is
    dialled, since the name of a local backend may lead to a public one, today or later.
    """

    def __init__(
        self,
        target: Target,
        limits: PoolLimits,
        tls: ssl.SSLContext | None = None,
        *,
        local: bool = False,
        may_dial: MayDial | None = None,
    ) -> None:
        self.local = local
        self.may_dial = may_dial
        self._target = target
        self._limits = limits
        self._most_idle = limits.idle
        self._tls = tls
        self._outbox: Outbox | None = None
        self._dialer = Dialer(target.host, target.port, may_dial)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        fixed = [b"host: " + target.authority, b"accept-encoding: identity", b"user-agent: spillway"]
        fixed.extend(name + b": " + value for name, value in target.headers)
        self._fixed = b"\r\n".join(fixed) + b"\r\n"
        self._heads_by_path: dict[str, bytes] = {}
        """Request line and fixed headers by path; a provider has a handful of paths."""

    def head(
        self, path: str, length: int, extra: bytes = b"", replaced: frozenset[str] | None = None, *, private: bool
    ) -> bytes:
        """Return the request line and headers of a POST. `extra`: whole header lines, each with its CRLF; those named
        in `replaced` stand for the target's own. Raises PrivateContentError for a private call that would leave."""
        if private and not self.local:
            raise PrivateContentError(MUST_NOT_LEAVE)
        start = self._heads_by_path.get(path)
        if start is None:
            line = f"POST {self._target.prefix}{path} HTTP/1.1\r\n".encode("ascii")
            start = self._heads_by_path[path] = line + self._fixed
        if replaced is not None:
            start = _without(start, replaced)
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (start, length, extra)

    @property
    def target(self) -> Target:
        """Where the calls go, and with which credentials."""
        return self._target

    def uncached_head(
        self,
        method: str,
        path: str,
        length: int,
        *,
        private: bool,
        extra: bytes = b"",
        replaced: frozenset[str] = frozenset(),
    ) -> bytes:
        """Return the request line and headers for a path that is not asked again and again, such as one with an id.
        Raises PrivateContentError for a private call that would leave."""
        if private and not self.local:
            raise PrivateContentError(MUST_NOT_LEAVE)
        start = f"{method} {self._target.prefix}{path} HTTP/1.1\r\n".encode("ascii") + self._fixed
        content = b"content-type: application/json\r\ncontent-length: %d\r\n" % length if length else b""
        return b"%b%b%b\r\n" % (_without(start, replaced), content, extra)

    async def send(self, head: bytes, body: bytes | Pieces, head_within_s: float, pending: PendingCall) -> Response:
        """Send a request and wait for the answer's head. Raises TransportError; cancelling closes the connection.

        `head_within_s` includes the time to connect. `pending` may end the wait for the head and for the body.
        """
        return Response(self, await self._send(head, body, head_within_s, pending))

    async def _send(self, head: bytes, body: bytes | Pieces, head_within_s: float, pending: PendingCall) -> Connection:
        while True:
            connection = self._take_idle()
            if connection is None:
                began_s = time.monotonic()
                connection = await self._connect(head_within_s)
                head_within_s = max(0.001, head_within_s - (time.monotonic() - began_s))
            reused = connection.reused
            try:
                pending.attach(connection)
                connection.start(head, body)
                connection.expect_within(head_within_s)
                while not connection.head_done:
                    await connection.wait()
            except ConnectionBrokenError as error:
                self._drop(connection)
                if not reused or connection.status:
                    raise
                self._clear_idle()  # the other idle ones are as old: retry once, on a new connection
                if not self._limits.resend:
                    raise StaleConnectionError(str(error)) from error
            except asyncio.CancelledError:
                if not pending.leave_open(connection):
                    self._drop(connection)
                raise
            except BaseException:
                self._drop(connection)
                raise
            return connection

    async def call(self, head: bytes, body: bytes | Pieces, within_s: float, limit: int, pending: PendingCall) -> Reply:
        """Make a whole call without streaming. `within_s` bounds connecting and the answer, `limit` its bytes.

        Raises TransportError. `pending` may end the wait.
        """
        connection = await self._send(head, body, within_s, pending)
        try:
            return await _whole(connection, limit, pending.parts)
        except asyncio.CancelledError:
            pending.leave_open(connection)
            raise
        finally:
            pending.detach()
            if pending.left_open is None:
                self.release(connection)

    async def rest_of_call(self, pending: PendingCall, within_s: float, limit: int) -> Reply:
        """Return the whole answer of a call whose reader was cancelled. Raises TransportError."""
        connection = await self._left_open(pending, within_s)
        try:
            return await _whole(connection, limit, pending.parts)
        finally:
            self.release(connection)

    async def rest_of_send(self, pending: PendingCall, within_s: float) -> Response:
        """Wait for the head of a call whose reader was cancelled. Raises TransportError."""
        return Response(self, await self._left_open(pending, within_s))

    async def _left_open(self, pending: PendingCall, within_s: float) -> Connection:
        connection, pending.left_open = pending.left_open, None
        assert connection is not None
        try:
            connection.expect_within(within_s)
            while not connection.head_done:
                await connection.wait()
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def drop_left_open(self, pending: PendingCall) -> None:
        """Close the connection of a call whose reader was cancelled and that nobody reads on. Harmless if there is
        none."""
        connection, pending.left_open = pending.left_open, None
        if connection is not None:
            self._drop(connection)

    def release(self, connection: Connection) -> None:
        """Take a connection back; keep it idle if it is reusable, else close it."""
        idle = self._idle
        if connection.reusable() and len(idle) < self._most_idle:
            now_s = time.monotonic()
            connection.make_idle(now_s)
            idle.append(connection)
            # What a burst has opened is closed one by one: the oldest ones would never be taken again.
            if idle[0].idle_since <= now_s - self._limits.keepalive_s:
                self._drop(idle.pop(0))
        else:
            self._drop(connection)

    def retire(self) -> None:
        """Close the idle connections now, and the others as their calls end: nothing new will be sent to the target."""
        self._most_idle = 0
        self._clear_idle()

    def close(self) -> None:
        """Abort all connections."""
        for connection in tuple(self._open):
            self._drop(connection)

    def _take_idle(self) -> Connection | None:
        oldest = time.monotonic() - self._limits.keepalive_s
        while self._idle:
            connection = self._idle.pop()  # the most recently used one, so that old ones expire
            if connection.alive and connection.idle_since > oldest:
                connection.make_active()
                return connection
            self._drop(connection)
        return None

    async def _connect(self, within_s: float) -> Connection:
        if len(self._open) >= self._limits.connections:
            raise PoolFullError(f"{self._limits.connections} connections are in use")
        loop = asyncio.get_running_loop()
        if self._outbox is None:
            self._outbox = Outbox(loop)
        connection = Connection(loop, self._outbox, self._on_lost)
        self._open.add(connection)
        target = self._target
        within_s = min(self._limits.connect_s, within_s)
        try:
            async with asyncio.timeout(within_s):
                if target.uds:
                    await loop.create_unix_connection(lambda: connection, target.uds)
                else:
                    tls = self._tls if target.scheme == "https" else None
                    name = target.host if target.scheme == "https" else None
                    if self._dialer.is_address:
                        self._dialer.check_host()
                        await loop.create_connection(
                            lambda: connection, target.host, target.port, ssl=tls, server_hostname=name
                        )
                    else:
                        opened = await self._dialer.connect(loop)
                        await loop.create_connection(lambda: connection, sock=opened, ssl=tls, server_hostname=name)
        except TimeoutError as late:
            self._drop(connection)
            raise ConnectError(f"can't connect: no connection within {within_s:g} s") from late
        except OSError as error:
            self._drop(connection)
            kind = OwnLimitError if is_own(error) else ConnectError
            raise kind(f"can't connect: {str(error) or type(error).__name__}") from error
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _on_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection.reused and connection in self._idle:
            self._idle.remove(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.abort()

    def _clear_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())
