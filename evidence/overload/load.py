"""An open loop of streamed chat requests, each on its own connection, timed by when the first content comes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OUTPUT_TOKENS = 10
PATIENCE_S = 60.0
CHAT: Mapping[str, Any] = {
    "model": "auto",
    "max_tokens": OUTPUT_TOKENS,
    "messages": [{"role": "user", "content": "Which eye was examined?"}],
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got: status (0: no answer), backend, seconds to the first content and to the end."""

    status: int
    backend: str
    first_s: float
    total_s: float
    whole: bool

    def in_time(self, limit_s: float) -> bool:
        """Return whether the answer is whole and began in time."""
        return self.whole and self.first_s <= limit_s


async def ask(port: int, key: str = "", fields: Mapping[str, Any] | None = None, stream: bool = True) -> Reply:
    """Ask once, on a new connection."""
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _ask(port, key, {**CHAT, **(fields or {}), "stream": stream}, began_s)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        elapsed_s = time.monotonic() - began_s
        return Reply(0, "", first_s=elapsed_s, total_s=elapsed_s, whole=False)


async def _ask(port: int, key: str, fields: Mapping[str, Any], began_s: float) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(key, json.dumps(fields).encode()))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        status = int(head[0].split(" ")[1])
        body = await reader.read(65536)
        first_s = time.monotonic() - began_s
        body += await reader.read()
        total_s = time.monotonic() - began_s
    finally:
        writer.close()
    is_whole = status == 200 and (b"data: [DONE]" in body or not fields["stream"])
    backend = headers.get("x-spillway-backend", "")
    return Reply(status, backend, first_s=first_s, total_s=total_s, whole=is_whole)


def request(key: str, body: bytes) -> bytes:
    """Return the bytes of a chat request whose connection is not kept."""
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def offer(
    port: int, per_s: float, seconds: float, key: str = "", fields: Mapping[str, Any] | None = None, seed: int = 7
) -> list[Reply]:
    """Send requests at random times at this mean rate, whatever becomes of them, and return all replies."""
    rng, tasks, due_s, began_s = random.Random(seed), list[asyncio.Task[Reply]](), 0.0, time.monotonic()
    while due_s < seconds:
        await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
        tasks.append(asyncio.create_task(ask(port, key, fields)))
        due_s += rng.expovariate(per_s)
    return list(await asyncio.gather(*tasks))
