"""Answers of engines are freed when they are read: the router collects garbage rarely, and asks all day."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from tests.signals.servers import Server, reply, serving

from spillway_router.providers.interface import Outcome
from spillway_router.signals.abilities import AbilityReader, AskedEngine
from spillway_router.signals.doubt import EngineProof
from spillway_router.signals.engines import VLLM
from spillway_router.signals.prober import ProbedEngine, Prober
from spillway_router.signals.proof import generates
from spillway_router.signals.scraper import Scraper

Ask = Callable[[httpx.AsyncClient, Server], Awaitable[object]]


async def scraped(client: httpx.AsyncClient, server: Server) -> object:
    scraper = Scraper(client=client, root_url=server.url, metrics=VLLM, on_sample=lambda *_: None)
    return await scraper.scrape()


async def probed(client: httpx.AsyncClient, server: Server) -> object:
    return await Prober(client, ProbedEngine(server.url, VLLM), lambda *_: None).probe()


async def generated(client: httpx.AsyncClient, server: Server) -> object:
    return await generates(client, server.url, "m")


async def told(client: httpx.AsyncClient, server: Server) -> object:
    engine = AskedEngine(server.url, VLLM, "m", lambda _: Outcome("ok"))
    return await AbilityReader(client, engine, lambda _: None)._request("GET", "/health")


async def proved(client: httpx.AsyncClient, server: Server) -> object:
    answered = asyncio.Event()
    proof = EngineProof(
        client=client,
        url=server.url + "/health",
        body={},
        outcome=lambda _: Outcome("ok"),
        on_answer=lambda _: answered.set(),
    )
    proof.ask()
    await answered.wait()
    return await proof.stop()


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("ask", [scraped, probed, generated, told, proved])
async def test_no_answer_waits_for_the_garbage_collector(ask: Ask, no_collection: None) -> None:
    async with serving(health=reply("ok"), metrics=reply("x 1\n")) as server, httpx.AsyncClient() as client:
        server.replies["/v1/completions"] = reply('{"choices": [{"text": "a"}]}')
        for _ in range(3):
            await ask(client, server)
        assert server.requested
    assert [one for one in gc.get_objects() if isinstance(one, httpx.Response | httpx.Request)] == []
