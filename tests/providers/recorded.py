"""A provider of the shapes folder as a real HTTP server on a free port, and the client's side of a call to it.

A shape holds what a provider answers, down to header names and error bodies, as its documentation and public clients
show it. The server judges the request on its own: path, credentials, extra headers, fields it would reject.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from spillway_router.http_client.types import Reply, Target
from spillway_router.providers.interface import Provider
from spillway_router.providers.sse import SseDecoder

SHAPES = Path(__file__).with_name("shapes")
NAMES = sorted(path.stem for path in SHAPES.glob("*.json"))
STREAMED = sorted(path.name.removesuffix(".stream.txt") for path in SHAPES.glob("*.stream.txt"))
"""The shapes with a stream: all but those of engines for embeddings."""
KEY = "sk-test-0123456789-secret"


@dataclass(frozen=True)
class Shape:
    """One provider's recorded answers on one endpoint."""

    name: str
    data: dict[str, Any]
    stream: bytes
    broken: bytes


def shape(name: str) -> Shape:
    """The shape of that name."""
    data = json.loads((SHAPES / f"{name}.json").read_text())
    if name not in STREAMED:
        return Shape(name, data, b"", b"")
    stream, broken = ((SHAPES / f"{name}.{kind}.txt").read_bytes() for kind in ("stream", "broken"))
    return Shape(name, data, stream, broken)


@dataclass
class Recorded:
    """The running server: what to answer next, and what it saw."""

    shape: Shape
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "application/json"
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def answer(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer the next call with JSON, or with text as it is."""
        self.status, self.headers = status, headers or {}
        self.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.content_type = "text/html" if isinstance(body, str) else "application/json"

    def answer_stream(self, events: bytes) -> None:
        """Answer the next call with these bytes of an event stream."""
        self.status, self.headers, self.body, self.content_type = 200, {}, events, "text/event-stream"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            path = head[0].split(" ")[1]
            self.seen.append((path, headers, body))
            fault = self._fault(path, headers, body)
            if fault is not None:
                self.answer({"error": {"message": fault[1]}}, fault[0])
            lines = [f"HTTP/1.1 {self.status} X", f"content-type: {self.content_type}", "connection: close"]
            lines += [f"{n}: {v}" for n, v in self.headers.items()]
            writer.write(("\r\n".join(lines) + "\r\ntransfer-encoding: chunked\r\n\r\n").encode())
            for i in range(0, len(self.body), 97):  # cuts events in the middle
                piece = self.body[i : i + 97]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            writer.close()

    def _fault(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, str] | None:
        data = self.shape.data
        if path != data["path"]:
            return 404, f"no route {path}"
        name, value = data["key_header"]
        if headers.get(name) != value.format(key=KEY):
            return 401, "bad credentials"
        missing = [n for n, v in data["headers"].items() if headers.get(n) != v]
        if missing:
            return 400, f"header {missing[0]} is required"
        rejected = sorted(set(data["rejects"]) & body.keys())
        return (400, f"property '{rejected[0]}' is unsupported") if rejected else None


@asynccontextmanager
async def running(served: Shape) -> AsyncIterator[Recorded]:
    """The shape's server on a free port of the loopback."""
    recorded = Recorded(served)
    server = await asyncio.start_server(recorded.serve, "127.0.0.1", 0)
    recorded.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield recorded
    finally:
        server.close()
        await server.wait_closed()


async def call(provider: Provider, target: Target, served: Shape, body: dict[str, Any]) -> Reply:
    """One whole call, addressed as the router addresses it."""
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(_url(provider, target, served), headers=_headers(target), json=body)
    return Reply(answer.status_code, {n.lower(): v for n, v in answer.headers.items()}, answer.content)


async def events(provider: Provider, target: Target, served: Shape) -> list[tuple[bytes, bytes]]:
    """(name, data) of each event of a streamed call."""
    decoder = SseDecoder()
    received: list[tuple[bytes, bytes]] = []
    body = {"model": served.data["model"], "stream": True}
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("POST", _url(provider, target, served), headers=_headers(target), json=body) as answer,
    ):
        async for chunk in answer.aiter_raw():
            received += [(event.name, event.data) for event in decoder.feed(chunk) if event.data is not None]
    assert not decoder.pending
    return received


def _url(provider: Provider, target: Target, served: Shape) -> str:
    path = target.prefix + provider.path(served.data["endpoint"])
    return f"{target.scheme}://{target.authority.decode()}{path}"


def _headers(target: Target) -> list[tuple[bytes, bytes]]:
    return [*target.headers, (b"accept-encoding", b"identity")]
