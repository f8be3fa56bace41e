"""One upstream socket with one HTTP answer at a time: llhttp fills it, and a reader empties it. Only pool.py uses
it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from spillway_router.aio.outbox import Outbox
from spillway_router.http_client.types import Pieces

HIGH_WATER = 64 * 1024
TAKE_BYTES = 32 * 1024
SEND_BYTES = 256 * 1024
"""Bytes of a large body that are written at a time. The socket may take all of it, which stops the loop meanwhile."""
MAX_HEADER_BYTES = 64 * 1024
_LENGTHS = ("content-length", "transfer-encoding")


class TransportError(Exception):
    """An upstream call failed below HTTP."""


class ConnectError(TransportError):
    """No connection could be opened, so nothing was sent."""


class OwnLimitError(ConnectError):
    """This machine or process had no descriptor, memory or port left for a connection."""


class ConnectionBrokenError(TransportError):
    """The connection or its HTTP broke before the answer was complete."""


class StaleConnectionError(ConnectionBrokenError):
    """A kept-alive connection closed before a byte of the answer came; the server may have closed it before the
    call."""


class StallError(TransportError):
    """Nothing useful arrived before the deadline."""


class PoolFullError(TransportError):
    """All allowed connections are in use, so nothing was sent."""


class PrivateContentError(TransportError):
    """The call is private and its target is no local backend, so nothing was sent."""


class AbandonedError(TransportError):
    """The router gave the call up, because its backend left the rotation before anything was seen of the answer."""


class TooLargeError(TransportError):
    """The answer is larger than allowed."""


class Connection(asyncio.Protocol):
    """One socket with one answer at a time. Parser callbacks fill it; the reader empties it."""

    __slots__ = (
        "_buffer", "_error", "_feeding", "_flaw", "_keep_alive", "_loop", "_outbox", "_parser", "_paused", "_sending",
        "_sent_headers", "_sink", "_size", "_timer", "_timer_at", "_transport", "_unsent", "_waiter",
        "_writing_paused", "complete", "deadline", "head_done", "idle_since", "on_lost", "reused", "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, on_lost: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._outbox = outbox
        self.on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """When the timer goes off. Every event of a stream asks for it, and asking the timer costs a call."""
        self.idle_since = 0.0
        self.reused = False
        self._writing_paused = False
        self._feeding = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._error: TransportError | None = None
        self._flaw = ""
        """What the parser's callbacks found; the parser itself says only which of them it was."""
        self._paused = False
        self._keep_alive = False
        self.head_done = False
        self.complete = False
        self.status = 0
        self._unsent: list[memoryview] = []
        self._sending = False
        self._sent_headers: list[tuple[bytes, bytes]] = []
        self.deadline = 0.0

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports don't inherit from it

    def data_received(self, data: bytes) -> None:
        if self.complete or self._error is not None:
            self.abort()  # unexpected bytes: this connection can't be trusted with another request
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:  # the second one: a 101
            self.abort()
            if not self.complete:  # else the answer is whole, and what follows it is nobody's
                self._fail(ConnectionBrokenError(f"the upstream's HTTP is malformed: {self._flaw or error}"))
                return
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._sink is None or self._feed_sink():
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.complete:
            if self.head_done and not self._length_known() and exc is None:
                self.complete = True  # a body that ends with its connection
            else:
                self._fail(ConnectionBrokenError("the upstream closed the connection before its answer was complete"))
        self._wake()
        self.on_lost(self)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if not self._sending:
            self._send_on()

    # Called by llhttp

    def on_message_begin(self) -> None:
        if self.complete:
            raise httptools.HttpParserCallbackError  # a second answer must not become part of the first

    def on_header(self, name: bytes, value: bytes) -> None:
        self._sent_headers.append((name, value))
        self._size += len(name) + len(value)
        if self._size > MAX_HEADER_BYTES:
            self._flaw = f"its headers have more than {MAX_HEADER_BYTES // 1024} KiB"
            raise httptools.HttpParserCallbackError

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
            self._keep_alive = bool(self._parser.should_keep_alive())  # llhttp forgets it after the message
        else:
            self._sent_headers = []

    # Called by the reader

    @property
    def headers(self) -> dict[str, str]:
        """Lowercase names -> values, built on demand because most answers are never asked for them."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._sent_headers}

    def _length_known(self) -> bool:
        return self.status in (204, 304) or not self.headers.keys().isdisjoint(_LENGTHS)

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, body: bytes | Pieces) -> None:
        """Send a request. A large body is written separately so that it is not copied."""
        if not self.alive:
            raise ConnectError("the connection is gone")
        assert self._transport is not None
        if not isinstance(body, Pieces) and len(body) < 65536:
            self._outbox.put(self._transport, head + body)
            return
        unsent: list[memoryview] = []
        for part in body.parts if isinstance(body, Pieces) else (body,):
            view = memoryview(part)
            unsent.extend([view[at : at + SEND_BYTES] for at in range(0, len(view), SEND_BYTES)])
        unsent.reverse()
        self._unsent = unsent
        self._transport.write(head)
        self._send_on()

    def _send_on(self) -> None:
        """Write the next slice of a large body. The loop gets its turn between two of them."""
        self._sending = False
        if self._unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._unsent.pop())
            if self._unsent and not self._writing_paused:
                self._sending = True
                self._loop.call_soon(self._send_on)

    def expect_within(self, seconds: float) -> None:
        """Move the deadline: the current or next wait fails with StallError in `seconds`."""
        self.deadline = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self.deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        self._timer, self._timer_at = self._loop.call_at(self.deadline, self._check_deadline), self.deadline

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self.deadline <= 0:
            return
        if self._loop.time() + 0.001 < self.deadline:
            self._arm()
            return
        self._fail(StallError("the upstream sent nothing useful in time"))
        self._wake()

    async def wait(self) -> None:
        """Wait until something changes: bytes, the head, the end. Raises the error of a broken connection."""
        if self._error is not None and not self._buffer:
            raise self._error
        self._waiter = self._loop.create_future()
        if self._timer is None and self.deadline > 0:
            self._arm()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def stream_to(self, sink: Callable[[bytes], bool]) -> None:
        """Pass bytes to `sink` as they come, until it returns False or the answer ends. Raises the error of a broken
        one."""
        self._sink = sink
        try:
            if not self._feed_sink():
                await self.wait()
        finally:
            self._sink = None

    def _feed_sink(self) -> bool:
        """Pass the next buffered bytes to the sink; return True if it stopped or the answer is complete.

        What one part does not hold follows in the next turns of the loop: a stream that comes as fast as it can be
        read would keep the loop from everybody else.
        """
        assert self._sink is not None
        data = self.take()
        if data and not self._sink(data):
            return True
        if self._buffer:
            if not self._feeding:
                self._feeding = True
                self._loop.call_soon(self._feed_on)
            return False
        return self.complete

    def _feed_on(self) -> None:
        """Pass on what is left in the buffer; the error of a connection that broke is told after that."""
        self._feeding = False
        if self._sink is not None and (self._feed_sink() or (self._error is not None and not self._buffer)):
            self._wake()

    def take(self) -> bytes:
        """Return buffered bytes of the body, about `TAKE_BYTES` at a time, b"" if there are none; resume reading.

        One read of a socket may bring hundreds of events. Their objects need several times their bytes, so a large
        buffer is returned in parts.
        """
        buffer = self._buffer
        if self._size <= TAKE_BYTES:
            data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
            buffer.clear()
        else:
            count = size = 0
            while size < TAKE_BYTES:
                size += len(buffer[count])
                count += 1
            data = b"".join(buffer[:count])
            if size < 2 * TAKE_BYTES:
                del buffer[:count]
            else:  # the last one is large: one chunk of the upstream's, or an answer without chunks
                data, buffer[:count] = data[:TAKE_BYTES], [data[TAKE_BYTES:]]
        self._took(data)
        return data

    def _take_all(self) -> bytes:
        """Return all buffered bytes of the body."""
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._took(data)
        return data

    def _took(self, data: bytes) -> None:
        self._size -= len(data)
        if self._paused and self._size <= HIGH_WATER // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    async def read_all(self, limit: int, parts: list[bytes]) -> bytes:
        """Return the whole body. Raises TooLargeError over `limit` bytes, ConnectionBrokenError or StallError.

        `parts` is where the body is collected; with those of a reader that was cancelled, it is read on.
        """
        size = sum([len(part) for part in parts])
        while True:
            data = self._take_all()
            size += len(data)
            if size > limit:
                raise TooLargeError(f"the upstream's answer is larger than {limit} bytes")
            if data:
                parts.append(data)
            elif self.complete:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            else:
                await self.wait()

    @property
    def has_data(self) -> bool:
        """Whether bytes wait for the reader."""
        return bool(self._buffer)

    @property
    def holds_several_parts(self) -> bool:
        """Whether more bytes wait for the reader than it takes at a time."""
        return self._size > TAKE_BYTES

    def reusable(self) -> bool:
        """Return whether another request may use this connection."""
        return self.complete and self.alive and not self._buffer and self._keep_alive and not self._unsent

    def make_idle(self, monotonic_s: float) -> None:
        """Forget the answer and become idle. The timer stays, because the next answer's deadline is nearly always
        later."""
        self._reset()
        self.complete = True  # so that stray bytes while idle abort the connection
        self.idle_since = monotonic_s
        self.reused = True

    def make_active(self) -> None:
        """Prepare an idle connection for a request."""
        self.complete = False

    def abort(self) -> None:
        """Close the socket at once."""
        self._unsent = []
        if self._transport is not None:
            self._transport.abort()

    def abandon(self, reason: str) -> None:
        """End the current or next wait with AbandonedError."""
        self._fail(AbandonedError(reason))
        self._wake()

    def _fail(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class PendingCall:
    """A call of whose answer nothing was shown yet, so that it may be given up for another backend's.

    With `outlives_reader` its connection stays open when the reader is cancelled: then it is `left_open`, for somebody
    else to read on, with what was read of a whole answer in `parts`.
    """

    __slots__ = ("_abandoned", "_connection", "left_open", "outlives_reader", "parts", "was_sent")

    def __init__(self, *, outlives_reader: bool = False) -> None:
        self._connection: Connection | None = None
        self._abandoned: str | None = None
        self.outlives_reader = outlives_reader
        self.left_open: Connection | None = None
        self.parts: list[bytes] = []
        self.was_sent = False
        """Whether a byte of the request may have left."""

    def attach(self, connection: Connection) -> None:
        """Set the connection on which the answer will come. Raises AbandonedError if the call was given up before."""
        if self._abandoned is not None:
            raise AbandonedError(self._abandoned)
        self._connection = connection
        self.was_sent = True

    def leave_open(self, connection: Connection) -> bool:
        """Keep the connection of a reader that was cancelled, if somebody is to read on."""
        if not self.outlives_reader:
            return False
        self.left_open = connection
        return True

    def detach(self) -> None:
        """End the watch: the answer has come, or it is being shown."""
        self._connection = None

    def abandon(self, reason: str) -> None:
        """Give the call up: whoever waits for its answer gets AbandonedError."""
        self._abandoned = reason
        if self._connection is not None:
            self._connection.abandon(reason)
