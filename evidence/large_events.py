"""An upstream that streams events of 4 and 8 MB, as answers with pictures do.

python -m evidence.large_events PORT
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

SIZES = (4_000_000, 8_000_000)
ROUNDS = 4
"""How often a stream has an event of each size."""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}


def event(size: int, line_end: bytes) -> bytes:
    """Return one event with so many bytes of text."""
    delta = {"choices": [{"index": 0, "delta": {"content": "QUJD" * (size // 4)}}]}
    return b"data: " + json.dumps(delta).encode() + line_end * 2


def stream() -> bytes:
    """Return the whole stream; every other round has CRLF as line ends."""
    events = [event(size, b"\r\n" if number % 2 else b"\n") for number in range(ROUNDS) for size in SIZES]
    return b"".join((*events, b"data: " + json.dumps(_END).encode() + b"\n\ndata: [DONE]\n\n"))


async def _main(port: int) -> None:
    body = stream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            else:
                writer.write(_HEAD + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
