"""What an engine can do is read from it when it comes up, with at most four requests of one token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from spillway_router.core.routing.model import Outcome
from spillway_router.http_client.types import Reply
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.signals.abilities import AbilityReader, AbilitySettings, AskedEngine, EngineAbilities, NotToldError
from spillway_router.signals.engines import LLAMACPP, VLLM, WITHOUT_METRICS, EngineMetrics

NOT_MULTIMODAL = "demo is not a multimodal model"
NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
FEW_LOGPROBS = "Requested sample logprobs of 2, which is greater than max allowed: 0"
CARDS = {"data": [{"id": "m", "max_model_len": 1024}]}
Answers = Callable[[httpx.Request], httpx.Response]


class Engine:
    """An engine behind an httpx transport. `refuses` says what it answers to a body that needs something."""

    def __init__(self, refuses: Mapping[str, tuple[int, str]], models: Mapping[str, Any] = CARDS) -> None:
        self.refuses = dict(refuses)
        self.models = models
        self.props: Mapping[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.says_logprobs = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=self.models)
        if request.url.path == "/props":
            return httpx.Response(404) if self.props is None else httpx.Response(200, json=self.props)
        body = json.loads(request.content)
        self.asked.append(body)
        for needed, (status, message) in self.refuses.items():
            if needed in request.content.decode():
                return httpx.Response(status, json={"error": {"message": message, "code": status}})
        logprobs = {"content": [{"token": "a", "logprob": -1.0}]} if self.says_logprobs and "logprobs" in body else None
        return httpx.Response(200, json={"choices": [{"message": {"content": "a"}, "logprobs": logprobs}]})


def outcome_of(provider: str) -> Callable[[Reply], Outcome]:
    adapter = provider_for(load_catalogue()[provider])
    return lambda reply: adapter.outcome(reply, 0.0)


def reader(
    engine: Answers, readings: list[EngineAbilities], *, metrics: EngineMetrics = VLLM, provider: str = "vllm"
) -> AbilityReader:
    client = httpx.AsyncClient(transport=httpx.MockTransport(engine))
    asked = AskedEngine("http://engine", metrics, "m", outcome_of(provider))
    return AbilityReader(client, asked, readings.append, AbilitySettings(timeout_s=5), sleep=lambda _: asyncio.sleep(0))


async def test_an_engine_that_can_all_is_asked_once() -> None:
    engine = Engine({})
    assert await reader(engine, []).read() == EngineAbilities(1024)
    assert [body["max_tokens"] for body in engine.asked] == [1]


@pytest.mark.parametrize(
    ("refuses", "lacks"),
    [
        ({"image_url": (400, NOT_MULTIMODAL)}, {"vision"}),
        ({"tools": (400, NO_PARSER)}, {"tools"}),
        ({"logprobs": (400, FEW_LOGPROBS)}, {"logprobs"}),
        ({"image_url": (400, NOT_MULTIMODAL), "tools": (400, NO_PARSER)}, {"vision", "tools"}),
        ({"image_url": (400, "this picture is too small for us")}, set()),  # nobody knows this error
    ],
)
async def test_what_it_refuses_is_found_with_four_tokens(refuses: Any, lacks: set[str]) -> None:
    engine = Engine(refuses)
    assert (await reader(engine, []).read()).lacks == lacks
    assert len(engine.asked) == 4
    assert {body["max_tokens"] for body in engine.asked} == {1}


async def test_logprobs_that_do_not_come_are_lacking() -> None:
    engine = Engine({})
    engine.says_logprobs = False
    assert (await reader(engine, []).read()).lacks == {"logprobs"}


@pytest.mark.parametrize(
    ("models", "length"),
    [
        ({"data": [{"id": "other", "max_model_len": 9}, {"id": "m", "max_model_len": 1024}]}, 1024),
        ({"data": [{"id": "m", "max_model_len": None}, {"id": "base", "max_model_len": 2048}]}, 2048),  # an adapter
        ({"data": [{"id": "m", "meta": {"n_ctx": 512}}]}, 512),
        ({"data": [{"id": "m", "max_model_len": "lots"}]}, None),
        ({"data": [{"id": "m", "max_model_len": 10**30}]}, None),
        ({"data": "x"}, None),
        ([], None),
    ],
)
async def test_the_context_length_comes_from_the_models_card(models: Any, length: int | None) -> None:
    assert (await reader(Engine({}, models), []).read()).context_tokens == length


async def test_llamacpp_says_its_context_length_in_its_properties() -> None:
    engine = Engine({}, {"data": [{"id": "m", "meta": {"n_ctx_train": 131072}}]})
    engine.props = {"default_generation_settings": {"n_ctx": 4096}}
    abilities = await reader(engine, [], metrics=LLAMACPP, provider="llamacpp").read()
    assert abilities.context_tokens == 4096


async def test_an_engine_that_would_load_a_model_is_sent_no_request() -> None:
    engine = Engine({})
    assert await reader(engine, [], metrics=WITHOUT_METRICS, provider="ollama").read() == EngineAbilities(1024)
    assert engine.asked == []


async def test_an_engine_without_time_says_nothing() -> None:
    with pytest.raises(NotToldError, match="503"):
        await reader(Engine({"messages": (503, "queue full")}), []).read()


async def test_it_is_asked_whenever_it_comes_up_and_again_after_a_failure() -> None:
    readings: list[EngineAbilities] = []
    engine = Engine({"messages": (503, "queue full")})
    asking = reader(engine, readings)
    task = asyncio.create_task(asking.run())
    try:
        asking.on_condition("starting")
        asking.on_condition("up")
        await until(lambda: len(engine.asked) >= 2)
        engine.refuses = {"image_url": (400, NOT_MULTIMODAL)}
        await until(lambda: readings[-1:] == [EngineAbilities(1024, frozenset({"vision"}))])
        asked = len(engine.asked)
        asking.on_condition("up")  # it stays up
        asking.on_condition("down")
        engine.refuses = {}
        asking.on_condition("up")  # another engine may listen now
        await until(lambda: readings[-1] == EngineAbilities(1024))
        assert len(engine.asked) == asked + 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)
