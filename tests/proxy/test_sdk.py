"""The openai SDK as a client: a stream that broke raises an exception and is never a short answer."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from spillway_router.testing import Answer, streams
from spillway_router.testing.harness import Router, pair
from spillway_router.testing.streams import DONE, chat, delta

BEGUN = delta({"role": "assistant", "content": ""}) + delta({"content": "alpha"})
BREAKS = {
    "clean end, no finish": Answer.stream(BEGUN, piece=40),
    "fin": Answer.stream(BEGUN, end="fin"),
    "rst": Answer.stream(BEGUN, end="rst"),
    "stall": Answer.stream(BEGUN, end="hang"),
    "[DONE] without finish": Answer.stream(BEGUN + DONE, piece=40),
    "finish_reason error": Answer.stream(BEGUN + delta({}, "error") + DONE, piece=40),
    "finish_reason abort": Answer.stream(BEGUN + delta({}, "abort") + DONE, piece=40),
    "flat error": Answer.stream(BEGUN + b'data: {"object":"error","message":"boom","code":1}\n\n' + DONE, piece=40),
    "bad JSON": Answer.stream(BEGUN + b"data: {\n\n" + DONE, piece=40),
    "comments only": Answer.stream(BEGUN + b": ping\n\n" * 50, end="hang"),
}
SHORT = "limits: {first_event_s: 0.25, stall_s: 0.25}\n"
QUESTION: Any = [{"role": "user", "content": "Which eye?"}]


def options(router: Router) -> dict[str, Any]:
    return {"base_url": router.url + "/v1", "api_key": "none", "timeout": 20, "max_retries": 2}


def told_sync(router: Router) -> str:
    with openai.OpenAI(**options(router)) as client:
        stream = client.chat.completions.create(model="auto", messages=QUESTION, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


async def told_async(router: Router) -> str:
    async with openai.AsyncOpenAI(**options(router)) as client:
        stream = await client.chat.completions.create(model="auto", messages=QUESTION, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


@pytest.mark.parametrize("name", BREAKS)
async def test_a_broken_stream_is_an_exception(name: str) -> None:
    async with pair(BREAKS[name], more=SHORT) as (engine, other, router):
        with pytest.raises(openai.APIError, match="broke off") as sync_error:
            await asyncio.to_thread(told_sync, router)
        router.forget_failures()
        with pytest.raises(openai.APIError, match="broke off") as async_error:
            await told_async(router)
        assert sync_error.value.code == async_error.value.code == "upstream_interrupted"
        assert len(engine.seen) == 2
        assert not other.seen


async def test_a_failover_before_the_first_word_is_not_noticed() -> None:
    first, second = Answer.stream(BEGUN[:80], end="rst"), Answer.stream(chat("beta").body)
    async with pair(first, second) as (_, _, router):
        assert await asyncio.to_thread(told_sync, router) == "beta!"
        assert await told_async(router) == "beta!"


async def test_an_exhausted_chain_is_asked_once() -> None:
    """The router asks the last backend once more; `x-should-retry: false` keeps the SDK from tripling that."""
    busy = Answer.json({"error": {"message": "full", "code": 503}}, 503)
    async with pair(busy, Answer.json({"error": {"message": "slow down"}}, 429)) as (engine, other, router):
        with pytest.raises(openai.InternalServerError) as error:
            await asyncio.to_thread(told_sync, router)
        assert error.value.status_code == 503
        assert error.value.code == "overloaded"
        assert (len(engine.seen), len(other.seen)) == (1, 2)  # the cloud once more after its second of rest


async def test_usage_arrives_when_asked_for() -> None:
    async with pair(Answer.stream(streams.chat("alpha").body)) as (_, _, router):
        async with openai.AsyncOpenAI(**options(router)) as client:
            stream = await client.chat.completions.create(
                model="auto", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
            usages = [c.usage async for c in stream if c.usage is not None]
        assert [u.total_tokens for u in usages] == [5]
