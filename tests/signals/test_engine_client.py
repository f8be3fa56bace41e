"""The client that asks an engine for its pages, against real sockets."""

from __future__ import annotations

import asyncio

import pytest
from tests.signals.servers import asking, reply, serving

from spillway_router.http_client.connection import ConnectError, TooLargeError
from spillway_router.testing.harness import LIMIT_S


@pytest.mark.parametrize("path", ["/v1", "/v1/", "", "/"])
async def test_pages_are_next_to_the_api(path: str) -> None:
    async with serving(health=reply("ok")) as server:
        with asking(server.url + path) as client:
            assert await client.status("/health") == 200
        assert server.requested == ["/health"]


async def test_a_server_below_a_path_is_asked_below_it() -> None:
    async with serving() as server:
        server.replies["/engine7/health"] = reply("", 503)
        with asking(server.url + "/engine7/v1") as client:
            assert await client.status("/health") == 503


async def test_the_connection_is_kept_from_page_to_page() -> None:
    async with serving(health=reply("ok"), metrics=reply("x 1\n" * 40_000)) as server:
        server.replies["/v1/completions"] = reply("{}")
        with asking(server.url) as client:
            for _ in range(3):
                assert await client.status("/health") == 200
                assert len((await client.get("/metrics", 1 << 20)).body) == 160_000
                assert (await client.post("/v1/completions", {}, "token", 100)).status == 200
            assert server.connections == 1


async def test_a_long_body_whose_status_was_asked_for_is_not_read() -> None:
    async with serving(health=reply("x" * 100_000)) as server:
        with asking(server.url) as client:
            assert [await client.status("/health") for _ in range(2)] == [200, 200]
        assert server.connections == 2


async def test_a_kept_connection_that_the_engine_closed_is_opened_again() -> None:
    """Nobody may be told that an engine is silent because it was started anew between two questions."""
    async with serving(health=reply("ok")) as server:
        with asking(server.url) as client:
            assert await client.status("/health") == 200
            await server.drop_connections()
            assert await client.status("/health") == 200


async def test_nothing_that_listens_is_a_refused_connection() -> None:
    async with serving(health=reply("ok")) as server:
        with asking(server.url) as client:
            server.close()
            with pytest.raises(ConnectError):
                await client.status("/health")


async def test_a_page_that_is_too_large_is_not_read_to_its_end() -> None:
    async with serving(metrics=reply("x" * 2000)) as server:
        with asking(server.url) as client:
            with pytest.raises(TooLargeError):
                await client.get("/metrics", 1000)
            assert len((await client.get("/metrics", 2000)).body) == 2000


async def test_who_asks_bounds_the_time_and_leaves_no_connection() -> None:
    left = asyncio.Event()

    async def not_yet(writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            left.set()

    async with serving(health=not_yet) as server:
        with asking(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.status("/health")
            async with asyncio.timeout(LIMIT_S):
                await left.wait()


async def test_the_engine_gets_the_credentials_of_its_target_and_the_purpose() -> None:
    async with serving(health=reply("ok")) as server:
        server.replies["/v1/completions"] = reply("{}")
        with asking(server.url, "secret") as client:
            await client.post("/v1/completions", {"a": 1}, "token", 100)
            posted = server.heads.pop()
            await client.status("/health")
        assert (posted["authorization"], posted["x-spillway-probe"]) == ("Bearer secret", "token")
        assert server.heads[-1]["authorization"] == "Bearer secret"
        assert "x-spillway-probe" not in server.heads[-1]
