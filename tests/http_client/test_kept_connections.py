"""When a pool's connections end: after a reload that has left their target, and after a change of the protocol."""

from __future__ import annotations

import asyncio

import pytest
from tests.http_client.server import Server, call, pooled

from spillway_router.http_client.connection import ConnectionBrokenError

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"


async def test_a_retired_pool_closes_idle_connections_now_and_busy_ones_after_their_call() -> None:
    server = Server()
    async with pooled(server) as pool:
        server.may_answer.clear()
        calls = [asyncio.create_task(call(pool)) for _ in range(2)]
        for _ in calls:
            await server.called.acquire()
        server.may_answer.set()
        assert await asyncio.gather(*calls) == [b"ok", b"ok"]
        server.may_answer.clear()
        busy = asyncio.create_task(call(pool))
        await server.called.acquire()
        pool.retire()
        await server.ended.acquire()  # the idle one
        server.may_answer.set()
        assert await busy == b"ok"
        await server.ended.acquire()  # the busy one
        assert await call(pool) == b"ok", "a request that was decided before the reload may still send"
        await server.ended.acquire()


async def test_an_upstream_that_changes_the_protocol_is_malformed(caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(Server(SWITCH)) as pool:
        with pytest.raises(ConnectionBrokenError, match="malformed"):
            await call(pool)
    assert caplog.records == []


async def test_connections_of_a_burst_that_is_over_are_closed_while_others_are_used() -> None:
    """The server would keep them for ever."""
    server = Server()
    async with pooled(server) as pool:
        server.may_answer.clear()
        calls = [asyncio.create_task(call(pool)) for _ in range(4)]
        for _ in calls:
            await server.called.acquire()
        server.may_answer.set()
        await asyncio.gather(*calls)
        for old in pool._idle[:3]:
            old.idle_since -= 60.0
        for _ in range(3):
            assert await call(pool) == b"ok"
        for _ in range(3):
            await server.ended.acquire()
        assert len(pool._idle) == 1
