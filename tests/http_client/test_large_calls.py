"""Large bodies of calls: sent in slices, whole, and never followed by another call while a part of them is unsent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spillway_router.http_client.connection import PendingCall
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Pieces, Target
from spillway_router.testing.harness import LIMIT_S

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LARGE = bytes(range(256)) * 40_000


class Server:
    """Collects bodies; with `early` it answers before it reads one."""

    def __init__(self, *, early: bool = False) -> None:
        self.early = early
        self.bodies: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length"))
                if self.early:
                    writer.write(OK)
                    await self.ended.wait()
                    writer.close()
                    return
                self.bodies.append(await reader.readexactly(length))
                writer.write(OK)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()


@asynccontextmanager
async def pooled(server: Server) -> AsyncIterator[Pool]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 16)
    port = listener.sockets[0].getsockname()[1]
    target = Target(scheme="http", host="127.0.0.1", port=port, prefix="/v1", headers=(), authority=b"a")
    pool = Pool(target, PoolLimits())
    try:
        async with asyncio.timeout(LIMIT_S):
            yield pool
    finally:
        pool.close()
        server.ended.set()
        listener.close()


async def call(pool: Pool, body: bytes | Pieces) -> bytes:
    return (await pool.call(pool.head("/x", len(body), private=False), body, LIMIT_S, 100, PendingCall())).body


async def test_a_large_body_arrives_whole_and_its_connection_is_used_again() -> None:
    server = Server()
    pieces = Pieces((b"{", memoryview(LARGE)[5:], b"", LARGE, b"}"))
    async with pooled(server) as pool:
        for body in (LARGE, pieces, b"small", LARGE):
            assert await call(pool, body) == b"ok"
    assert server.bodies == [LARGE, b"{" + LARGE[5:] + LARGE + b"}", b"small", LARGE]
    assert server.connections == 1


async def test_a_connection_whose_body_is_not_sent_yet_is_not_used_again() -> None:
    server = Server(early=True)
    async with pooled(server) as pool:
        for _ in range(3):
            assert await call(pool, LARGE * 4) == b"ok"
    assert server.connections == 3


async def test_other_work_goes_on_while_a_large_body_is_sent() -> None:
    server = Server()
    async with pooled(server) as pool:
        turns, sending = 0, asyncio.create_task(call(pool, LARGE * 3))
        while not sending.done():
            await asyncio.sleep(0)
            turns += 1
    assert turns > len(LARGE) * 3 // (256 * 1024)
