"""Mixed traffic as fast as a router takes it: an upstream and clients that cost little of the machine themselves.

They speak as much HTTP as the router does, on plain protocols, so that of one core nearly all is left for the router.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from evidence.failures import METRICS, whole_answer

PER_CONNECTION = 200
"""Requests on one connection."""
LEAVES_EVERY = 50
"""One client of so many requests leaves without its answer."""
_HEAD_END = b"\r\n\r\n"
_ANSWERS = {is_stream: whole_answer(stream=is_stream) for is_stream in (False, True)}
_PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"


class _Upstream(asyncio.Protocol):
    """Answers every request at once, and shows the metrics of an idle engine."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # it is one of TCP

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_HEAD_END)) >= 0:
            head = self._received[:end].lower()
            whole = end + len(_HEAD_END) + _length(head)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end:whole], self._received[whole:]
            assert self._transport is not None
            self._transport.write(_answer(head, body))


def _answer(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"get"):
        page = METRICS % 0 if b"/metrics" in head else b"{}"
        return _PAGE % (len(page), page)
    return _ANSWERS[b'"stream":true' in body.replace(b" ", b"")]


def _length(head: bytes) -> int:
    at = head.find(b"content-length:")
    return int(head[at + len(b"content-length:") :].split(b"\r\n", 1)[0]) if at >= 0 else 0


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """Run an upstream; its base URL."""
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0, backlog=2048)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


class _Client(asyncio.Protocol):
    """Sends one request after the other on its connection. `ended` is set when it has closed."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._received = b""
        self._left = PER_CONNECTION
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # it is one of TCP
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        head = self._received[:end].lower()
        if b"transfer-encoding: chunked" in head:
            if not self._received.endswith(b"\r\n0\r\n\r\n"):
                return
        elif len(self._received) < end + len(_HEAD_END) + _length(head):
            return
        self._traffic.statuses[head[9:12].decode()] += 1
        self._received = b""
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._left -= 1
        if self._left < 0 or self._traffic.is_over():
            self._transport.abort()
            return
        self._traffic.number += 1
        self._transport.write(request(self._traffic.number))
        if self._traffic.number % LEAVES_EVERY == 0:
            self._traffic.statuses["left"] += 1
            self._transport.abort()


class Traffic:
    """Clients of one router, and the statuses of the answers that they got. `is_over` says when they stop."""

    def __init__(self, url: str, is_over: Callable[[], bool]) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self.is_over = is_over
        self.number = 0
        self.statuses: Counter[str] = Counter()

    async def client(self) -> None:
        """Be one client, on a new connection after each PER_CONNECTION requests."""
        loop = asyncio.get_running_loop()
        while not self.is_over():
            _, client = await loop.create_connection(lambda: _Client(self), *self._address)
            await client.ended.wait()


def request(number: int) -> bytes:
    """Return one request: most of them local and whole, then streams, paid ones and bad ones."""
    model = "paid" if number % 7 == 0 else "nobody" if number % 23 == 0 else "auto"
    content = f"request {number} " + "x" * (number % 400)
    body = {
        "model": model,
        "stream": number % 3 == 0,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": content}],
    }
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
