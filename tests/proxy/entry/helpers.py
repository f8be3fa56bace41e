"""Raw HTTP/1.1 requests, answers and connections that the tests of the frontend share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router

CHAT = b"/v1/chat/completions"


def saying(text: str) -> Answer:
    """Return a whole answer with this text."""
    return Answer.json({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})


def post(
    path: bytes = CHAT, fields: dict[str, object] | None = None, version: bytes = b"1.1", more: bytes = b""
) -> bytes:
    """Return one request as bytes."""
    body = json.dumps({"model": "auto", "messages": MESSAGES, **(fields or {})}).encode()
    head = b"POST %b HTTP/%b\r\nhost: localhost\r\ncontent-type: application/json\r\n%b" % (path, version, more)
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def talking(router: Router) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection to the router."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(LIMIT_S):
            yield reader, writer
    finally:
        writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of the next answer with a content-length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return int(head.split(b" ")[1]), await reader.readexactly(length)
