"""Answers of engines are freed when they are read: the router collects garbage rarely, and asks all day."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from tests.signals.servers import asking, reply, serving

from spillway_router.http_client.connection import PendingCall
from spillway_router.http_client.pool import Response
from spillway_router.http_client.types import Reply
from spillway_router.providers.interface import Outcome
from spillway_router.signals.abilities import AbilityReader, AskedEngine
from spillway_router.signals.doubt import EngineProof
from spillway_router.signals.engine_client import EngineClient
from spillway_router.signals.engines import VLLM
from spillway_router.signals.prober import ProbedEngine, Prober
from spillway_router.signals.proof import generates
from spillway_router.signals.scraper import Scraper

Ask = Callable[[EngineClient], Awaitable[object]]


async def scraped(client: EngineClient) -> object:
    scraper = Scraper(client=client, metrics=VLLM, on_sample=lambda *_: None)
    return await scraper.scrape()


async def probed(client: EngineClient) -> object:
    return await Prober(client, ProbedEngine(VLLM), lambda *_: None).probe()


async def generated(client: EngineClient) -> object:
    return await generates(client, "m")


async def told(client: EngineClient) -> object:
    engine = AskedEngine(VLLM, "m", lambda _: Outcome("ok"))
    return await AbilityReader(client, engine, lambda _: None)._request("/health")


async def proved(client: EngineClient) -> object:
    answered = asyncio.Event()
    proof = EngineProof(
        client=client,
        path="/health",
        body={},
        outcome=lambda _: Outcome("ok"),
        on_answer=lambda _: answered.set(),
    )
    proof.ask()
    await answered.wait()
    return await proof.stop()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("ask", [scraped, probed, generated, told, proved])
async def test_no_answer_waits_for_the_garbage_collector(ask: Ask) -> None:
    async with serving(health=reply("ok"), metrics=reply("x 1\n")) as server:
        server.replies["/v1/completions"] = reply('{"choices": [{"text": "a"}]}')
        with asking(server.url) as client:
            for _ in range(3):
                await ask(client)
        assert server.requested
    assert [one for one in gc.get_objects() if isinstance(one, Response | Reply | PendingCall)] == []
