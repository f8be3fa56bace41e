"""A server that gives a client library the bytes that the router once sent.

The same bytes lead a library to the same verdict, so that each distinct reply is judged once, however many streams led
to it. The model's name in a request chooses the reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from spillway_router.testing import openai_wire as wire

_MODEL = re.compile(rb'"model"\s*:\s*"([^"]+)"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Recording:
    """A reply as a client gets it. `cut`: the connection is closed before the body has ended."""

    status: int
    content_type: str
    body: bytes
    cut: bool = False

    @property
    def raw(self) -> bytes:
        """The bytes on the wire."""
        head = f"HTTP/1.1 {self.status} X\r\ncontent-type: {self.content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        body = wire.http_chunk(self.body) if self.body else b""
        return head.encode() + body + (b"" if self.cut else wire.LAST_CHUNK)


@asynccontextmanager
async def replaying(recordings: Mapping[str, Recording]) -> AsyncIterator[str]:
    """Serve the recordings by name on a free port, and yield the base URL without /v1."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length.group(1)) if length else 0)
                model = _MODEL.search(body)
                recording = recordings[model.group(1).decode() if model else ""]
                writer.write(recording.raw)
                await writer.drain()
                if recording.cut:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
