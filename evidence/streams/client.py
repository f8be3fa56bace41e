"""A client that records every byte which the router sends for a request, and how the answer ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import httptools

Ended = Literal[
    "whole",  # the HTTP body ended as it should
    "cut",  # the connection closed before the body had ended
    "never",  # nothing came for longer than the limit
]
LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got: status, headers by lowercase name, the body without its HTTP framing, and the end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ended: Ended


@dataclass(slots=True)
class _Arriving:
    """The answer that arrives on a connection."""

    done: asyncio.Future[Ended]
    headers: dict[str, str] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    status: int = 0


class RecordingClient(asyncio.Protocol):
    """One connection to the router, opened anew when it was closed; one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._now: _Arriving | None = None

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST a JSON body and return the whole reply."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, *self._place)
        assert self._transport is not None
        self._now = arriving = _Arriving(loop.create_future())
        self._parser = httptools.HttpResponseParser(self)
        lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
        lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(LIMIT_S):
                ended = await arriving.done
        except TimeoutError:
            ended = "never"
            self._transport.abort()
        return Reply(arriving.status, arriving.headers, b"".join(arriving.body), ended)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        assert self._parser is not None
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end("cut")

    # Called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._now is not None
        self._now.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._now is not None
        assert self._parser is not None
        self._now.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        assert self._now is not None
        self._now.body.append(body)

    def on_message_complete(self) -> None:
        self._end("whole")

    def _end(self, ended: Ended) -> None:
        if self._now is not None and not self._now.done.done():
            self._now.done.set_result(ended)
