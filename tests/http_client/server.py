"""An upstream whose every answer is the same bytes, and a pool of connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spillway_router.http_client.connection import PendingCall
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Target
from spillway_router.testing.harness import LIMIT_S

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers calls once `may_answer` is set, and counts the connections that end."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.called = asyncio.Semaphore(0)
        self.ended = asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.called.release()
                await self.may_answer.wait()
                writer.write(self.answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
            self.ended.release()


@asynccontextmanager
async def pooled(server: Server) -> AsyncIterator[Pool]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pool = Pool(Target(scheme="http", host="127.0.0.1", port=port, prefix="", headers=(), authority=b"a"), PoolLimits())
    try:
        async with asyncio.timeout(LIMIT_S):
            yield pool
    finally:
        pool.close()
        listener.close()


async def call(pool: Pool) -> bytes:
    return (await pool.call(pool.head("/x", 0, private=False), b"", LIMIT_S, 100, PendingCall())).body
