"""One request as the front hands it over, and the way back to who sent it.

Whole answers go by the outbox, streams straight to the socket; head and body at once where both are there. A client
that reads slowly makes `drain` wait; one that leaves is `disconnected`: the front then cancels the task that answers
it, which closes its upstream, as otherwise a GPU or a cloud would be paid to the end for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from spillway_router.aio.outbox import Outbox
from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.proxy.client.judgement import AnswerJudgement
from spillway_router.proxy.client.replies import SSE, STATUS_LINES, Lines, error_event, refusal_reply

_CLOSE = b"connection: close\r\n"
_LARGE = 64 * 1024
WAITING = b": waiting\n\n"
"""A comment: event streams carry it, their readers pass over it."""


class Flow(Protocol):
    """The transport's back-pressure, as uvicorn keeps it."""

    write_paused: bool

    async def drain(self) -> None:
        """Until the write buffer is low again, or the connection is gone."""


class _NobodyWaits:
    """uvicorn wakes the reader of a cycle's body; nobody waits for this one."""

    def set(self) -> None: ...


class Client:
    """See the module docstring. Made by the front when a request's head has come.

    `response_complete`, `disconnected`, `keep_alive` and `message_event` are what uvicorn's protocol asks of a cycle.
    """

    __slots__ = (
        "_flow", "_on_end", "_outbox", "_transport", "attempts_before", "body", "chunked", "disconnected", "endpoint",
        "headers", "keep_alive", "kept", "own", "request_id", "response_complete", "started", "waiting",
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
        self.own: tuple[bytes, ...] = ()
        """Header lines of every answer to it."""
        self._transport = transport
        self._flow = flow
        self._outbox = outbox
        self._on_end = on_end
        self.attempts_before = 0
        """Attempts of the same request that an exchange before this one made (inside.py)."""
        self.keep_alive = True
        self.chunked = True
        self.kept: list[tuple[int, tuple[bytes, ...], bytes]] | None = None
        """Where a whole answer is kept too, for its idempotency key (once.py)."""
        self.started = False
        """Bytes of an answer have gone out: there is no way back."""
        self.waiting = False
        """The 200 of a stream and comments have gone out, but nothing of any answer."""
        self.response_complete = False
        self.disconnected = False

    def whole(self, status: int, lines: Lines, body: bytes) -> None:
        """Status, headers and body at once."""
        if self.disconnected:
            return
        self.started = True
        if self.kept is not None:
            self.kept.append((status, tuple(lines), body))
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        head = STATUS_LINES[status] if self.keep_alive else STATUS_LINES[status] + _CLOSE
        if len(body) < _LARGE and self.keep_alive:
            self._outbox.put(self._transport, b"".join((head, *lines, body)))
        else:
            self._outbox.flush()
            self._transport.writelines((b"".join((head, *lines)), body))
        self._end()

    def judged(self, _answer: Mapping[str, Any]) -> AnswerJudgement | None:
        """What the caller thinks of a whole answer, for its row; only one inside the router does (keeper.py)."""
        return None

    def refuse(self, refusal: Refusal, lines: Lines | None = None) -> None:
        """An error with its OpenAI shape; `lines` are what there is to say beside it."""
        if self.waiting:
            self.end_stream(error_event("upstream_interrupted", refusal.message))
            return
        self.whole(*refusal_reply(refusal, [*self.own, *(lines or ())]))

    def begin_stream(self, lines: Lines, first: bytes) -> None:
        """The 200 of a stream, with its first bytes."""
        if self.disconnected:
            return
        self.started = True
        if self.waiting:
            self._transport.write(self._framed(first))
        else:
            self._begin(lines, first)

    def wait_visibly(self, lines: Lines) -> bool:
        """The 200 of a stream and a comment, then only comments: so that nobody on the way takes the connection for
        dead. False once there is nothing more to wait for."""
        if self.disconnected or self.started or self.response_complete:
            return False
        if not self.waiting:
            self.waiting = True
            self._begin(lines, WAITING)
        elif not self.paused:
            self._transport.write(self._framed(WAITING))
        return True

    def _begin(self, lines: Lines, first: bytes) -> None:
        head = STATUS_LINES[200] if self.keep_alive else STATUS_LINES[200] + _CLOSE
        self._outbox.flush()  # the answer before this one on the same connection
        framing = b"transfer-encoding: chunked\r\n\r\n" if self.chunked else b"\r\n"
        self._transport.write(b"".join((head, SSE, *lines, framing, self._framed(first))))

    def write(self, data: bytes) -> None:
        """Part of a stream. Look at `paused` before the next."""
        if not self.disconnected:
            self._transport.write(self._framed(data))

    @property
    def paused(self) -> bool:
        """True while the client reads more slowly than we write: `drain` before writing more."""
        return self._flow.write_paused

    async def drain(self) -> None:
        """Until the client has read enough."""
        await self._flow.drain()

    def end_stream(self, data: bytes = b"") -> None:
        """The clean end of a stream, with its last bytes."""
        if self.disconnected:
            return
        self._transport.write(self._framed(data) + b"0\r\n\r\n" if self.chunked else data)
        self._end()

    def break_off(self) -> None:
        """An end that the client can't take for a whole answer."""
        self._transport.abort()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self.chunked else data

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._on_end()
