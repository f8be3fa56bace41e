"""Answers that come as fast as they can be read: everybody else has turns of the loop, and nothing of them is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from spillway_router.http_client.connection import TAKE_BYTES, ConnectionBrokenError, PendingCall
from spillway_router.http_client.pool import Pool, PoolLimits, Response
from spillway_router.http_client.types import Target
from spillway_router.testing.harness import LIMIT_S

EVENTS = b'data: {"a":1}\n\n' * 200_000


@asynccontextmanager
async def answering(more_promised: int = 0) -> AsyncIterator[Response]:
    """An answer of EVENTS that says it has so many bytes more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(EVENTS) + more_promised) + EVENTS)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pool = Pool(Target(scheme="http", host="127.0.0.1", port=port, prefix="", headers=(), authority=b"a"), PoolLimits())
    try:
        async with asyncio.timeout(LIMIT_S):
            response = await pool.send(pool.head("/x", 0, private=False), b"", LIMIT_S, PendingCall())
            response.expect_within(LIMIT_S)
            yield response
    finally:
        pool.close()
        listener.close()


class Turns:
    """Counts the bytes that came in each turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.parts: list[bytes] = []
        self.in_turn = [0]
        self._count()

    def _count(self) -> None:
        if self.in_turn[-1]:
            self.in_turn.append(0)
        self._handle = self._loop.call_soon(self._count)

    def take(self, data: bytes) -> bool:
        self.parts.append(data)
        self.in_turn[-1] += len(data)
        return True

    def stop(self) -> None:
        self._handle.cancel()


async def test_a_sink_gets_little_in_one_turn_of_the_loop() -> None:
    async with answering() as response:
        turns = Turns()
        while await response.stream_to(turns.take):
            pass
        turns.stop()
    assert b"".join(turns.parts) == EVENTS
    assert max(turns.in_turn) <= 4 * TAKE_BYTES


async def test_a_reader_gets_little_in_one_turn_of_the_loop() -> None:
    async with answering() as response:
        turns = Turns()
        while data := await response.read():
            turns.take(data)
        turns.stop()
    assert b"".join(turns.parts) == EVENTS
    assert max(turns.in_turn) <= 4 * TAKE_BYTES


async def test_a_break_is_told_after_all_that_came_before_it() -> None:
    async with answering(more_promised=1) as response:
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return True

        async def read() -> None:
            while await response.stream_to(take):
                pass

        with pytest.raises(ConnectionBrokenError, match="before its answer was complete"):
            await read()
    assert b"".join(parts) == EVENTS
