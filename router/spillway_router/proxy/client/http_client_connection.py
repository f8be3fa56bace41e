"""A client at a socket: the bytes of its HTTP answer.

Whole answers leave by the outbox, streams go straight to the socket; head and body leave together where both are ready.
A client that reads slowly makes `drain` wait. One that leaves is `disconnected`: the front end then cancels the task
that answers it, which closes its upstream, as otherwise a GPU or a cloud would be paid to the end for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, Protocol

from spillway_router.aio.outbox import Outbox
from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.proxy.client.client import Client, SentReply, StreamCopy
from spillway_router.proxy.client.error_shapes import error_event
from spillway_router.proxy.client.replies import SSE, STATUS_LINES, Lines, refusal_reply

_CLOSE = b"connection: close\r\n"
_LARGE = 64 * 1024
WAITING = b": waiting\n\n"
"""A comment of an event stream, which readers ignore."""


class Flow(Protocol):
    """The transport's back-pressure, as uvicorn keeps it."""

    write_paused: bool

    async def drain(self) -> None:
        """Wait until the write buffer is low again, or the connection is gone."""


class _NobodyWaits:
    """uvicorn wakes the reader of a cycle's body; nobody waits for this one."""

    def set(self) -> None: ...


class HttpClientConnection(Client):
    """A client at a socket. The front end makes it when a request's head has come.

    `response_complete`, `disconnected`, `keep_alive` and `message_event` are what uvicorn's protocol expects of a
    cycle.
    """

    __slots__ = (
        "_flow", "_on_end", "_outbox", "_transport", "base_headers", "body", "chunked", "copy_reply", "disconnected",
        "endpoint", "headers", "keep_alive", "request_id", "response_complete", "sent_reply", "started", "stream_copy",
        "waiting",
    )  # fmt: skip

    message_event: ClassVar[_NobodyWaits] = _NobodyWaits()

    def __init__(
        self,
        endpoint: Endpoint,
        headers: dict[str, str],
        transport: asyncio.Transport,
        flow: Flow,
        outbox: Outbox,
        on_end: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.headers = headers
        self.body = b""
        self.request_id = ""
        self.base_headers: tuple[bytes, ...] = ()
        self._transport = transport
        self._flow = flow
        self._outbox = outbox
        self._on_end = on_end
        self.keep_alive = True
        self.chunked = True
        self.copy_reply = False
        self.sent_reply: SentReply | None = None
        self.stream_copy: StreamCopy | None = None
        self.started = False
        self.waiting = False
        self.response_complete = False
        self.disconnected = False

    def reply(self, status: int, headers: Lines, body: bytes) -> None:
        """Send a whole answer. Takes `headers` over."""
        if self.disconnected:
            return
        self.started = True
        if self.copy_reply:
            self.sent_reply = (status, tuple(headers), body)
        headers.append(b"content-length: %d\r\n\r\n" % len(body))
        head = STATUS_LINES[status] if self.keep_alive else STATUS_LINES[status] + _CLOSE
        if len(body) < _LARGE and self.keep_alive:
            self._outbox.put(self._transport, b"".join((head, *headers, body)))
        else:
            self._outbox.flush()
            self._transport.writelines((b"".join((head, *headers)), body))
        self._end()

    def refuse(self, refusal: Refusal, headers: Lines | None = None) -> None:
        """Send an error in the endpoint's shape, with further header lines."""
        if self.waiting:
            self.end_stream(error_event(self.endpoint, "upstream_interrupted", refusal.message, 0))
            return
        self.reply(*refusal_reply(refusal, [*self.base_headers, *(headers or ())], self.endpoint))

    def begin_stream(self, headers: Lines, first: bytes) -> None:
        """Send the 200 of a stream and its first bytes."""
        if self.disconnected:
            return
        self.started = True
        if self.stream_copy is not None:
            self.stream_copy.add(first)
        if self.waiting:
            self._transport.write(self._framed(first))
        else:
            self._begin(headers, first)

    def send_waiting(self, headers: Lines) -> bool:
        """Send the 200 of a stream, or a comment, so that intermediaries keep the connection open.

        Returns False once the answer has started or the client left.
        """
        if self.disconnected or self.started or self.response_complete:
            return False
        if not self.waiting:
            self.waiting = True
            self._begin(headers, WAITING)
        elif not self.paused:
            self._transport.write(self._framed(WAITING))
        return True

    def send_comment(self) -> bool:
        """Send a comment in a stream that has started. Returns False once the answer has ended or the client left."""
        if self.disconnected or self.response_complete:
            return False
        if not self.paused:
            self._transport.write(self._framed(WAITING))
        return True

    def _begin(self, headers: Lines, first: bytes) -> None:
        head = STATUS_LINES[200] if self.keep_alive else STATUS_LINES[200] + _CLOSE
        self._outbox.flush()  # the answer before this one on the same connection
        framing = b"transfer-encoding: chunked\r\n\r\n" if self.chunked else b"\r\n"
        self._transport.write(b"".join((head, SSE, *headers, framing, self._framed(first))))

    def write(self, data: bytes) -> None:
        """Send part of a stream. Check `paused` before the next."""
        if self.disconnected:
            return
        if self.stream_copy is not None:
            self.stream_copy.add(data)
        if len(data) < _LARGE or not self.chunked:
            self._transport.write(self._framed(data))
        else:  # not copied into a frame
            self._transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    @property
    def paused(self) -> bool:
        """True while the client reads more slowly than the router writes: `drain` before writing more."""
        return self._flow.write_paused

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        await self._flow.drain()

    def end_stream(self, data: bytes = b"") -> None:
        """Send the last bytes of a stream and its clean end."""
        if self.disconnected:
            return
        self._transport.write(self._framed(data) + b"0\r\n\r\n" if self.chunked else data)
        self._end()

    def fail(self, refusal: Refusal) -> bool:
        """End the answer with an error; False if the whole answer was sent already."""
        if self.response_complete:
            return False
        if not self.started:
            self.refuse(refusal)
        elif not self.disconnected:
            self.end_stream(error_event(self.endpoint, refusal.code, refusal.message, 0))
        return True

    def break_off(self) -> None:
        """Abort the connection, which no client can take for the end of a whole answer."""
        self._transport.abort()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self.chunked else data

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._close()
        self._on_end()

    def _close(self) -> None:
        """Close the connection, as no other answer follows on it."""
        self._transport.close()
