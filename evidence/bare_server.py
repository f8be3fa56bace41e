"""A bare asyncio server: the upstream that takes large bodies, and the control that shows the machine's own jitter.

python -m evidence.bare_server PORT [STATUS]

With a STATUS every POST gets that status, such as 500 for a backend that always fails.
"""

from __future__ import annotations

import asyncio
import functools
import sys

import uvloop

from evidence.failures import ANSWER

_TAKEN = 1 << 20


async def _serve(status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request once its body has come; nothing of the body is kept."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            for line in head.split(b"\r\n"):
                left = int(line.split(b":")[1]) if line.startswith(b"content-length:") else 0
                while left:
                    left -= len(await reader.read(min(left, _TAKEN)))
            answer = b"ok" if head.startswith(b"get") else ANSWER
            start = b"HTTP/1.1 %d Told\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            writer.write(start % (200 if head.startswith(b"get") else status, len(answer)) + answer)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()


async def _main(port: int, status: int) -> None:
    server = await asyncio.start_server(functools.partial(_serve, status), "127.0.0.1", port, limit=_TAKEN)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200))
