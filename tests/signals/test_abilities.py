"""What an engine can do is read from it when it comes up, with at most four requests of one token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.signals.servers import asking

from spillway_router.core.routing.model import Outcome
from spillway_router.http_client.types import Reply
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.signals.abilities import AbilityReader, AbilitySettings, AskedEngine, EngineAbilities, NotToldError
from spillway_router.signals.engines import LLAMACPP, VLLM, WITHOUT_METRICS, EngineMetrics
from spillway_router.testing.harness import LIMIT_S, serving

NOT_MULTIMODAL = "demo is not a multimodal model"
NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
FEW_LOGPROBS = "Requested sample logprobs of 2, which is greater than max allowed: 0"
CARDS = {"data": [{"id": "m", "max_model_len": 1024}]}


class Engine:
    """An engine as an ASGI application. `refuses` says what it answers to a body that needs something."""

    def __init__(self, refuses: Mapping[str, tuple[int, str]], models: Mapping[str, Any] = CARDS) -> None:
        self.refuses = dict(refuses)
        self.models = models
        self.props: Mapping[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.says_logprobs = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message.get("more_body", False)
        status, answer = self.answer(scope["path"], content)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def answer(self, path: str, content: bytes) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, self.models
        if path == "/props":
            return (404, None) if self.props is None else (200, self.props)
        body = json.loads(content)
        self.asked.append(body)
        for needed, (status, message) in self.refuses.items():
            if needed in content.decode():
                return status, {"error": {"message": message, "code": status}}
        logprobs = {"content": [{"token": "a", "logprob": -1.0}]} if self.says_logprobs and "logprobs" in body else None
        return 200, {"choices": [{"message": {"content": "a"}, "logprobs": logprobs}]}


def outcome_of(provider: str) -> Callable[[Reply], Outcome]:
    adapter = provider_for(load_catalogue()[provider])
    return lambda reply: adapter.outcome(reply, 0.0)


@asynccontextmanager
async def reading(
    engine: Engine, readings: list[EngineAbilities], *, metrics: EngineMetrics = VLLM, provider: str = "vllm"
) -> AsyncIterator[AbilityReader]:
    settings, asked = AbilitySettings(timeout_s=LIMIT_S), AskedEngine(metrics, "m", outcome_of(provider))
    async with serving(engine) as url:
        with asking(url) as client:
            yield AbilityReader(client, asked, readings.append, settings, sleep=lambda _: asyncio.sleep(0))


async def abilities(engine: Engine, *, metrics: EngineMetrics = VLLM, provider: str = "vllm") -> EngineAbilities:
    async with reading(engine, [], metrics=metrics, provider=provider) as reader:
        return await reader.read()


async def test_an_engine_that_can_all_is_asked_once() -> None:
    engine = Engine({})
    assert await abilities(engine) == EngineAbilities(1024)
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
    assert (await abilities(engine)).lacks == lacks
    assert len(engine.asked) == 4
    assert {body["max_tokens"] for body in engine.asked} == {1}


async def test_logprobs_that_do_not_come_are_lacking() -> None:
    engine = Engine({})
    engine.says_logprobs = False
    assert (await abilities(engine)).lacks == {"logprobs"}


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
    assert (await abilities(Engine({}, models))).context_tokens == length


async def test_llamacpp_says_its_context_length_in_its_properties() -> None:
    engine = Engine({}, {"data": [{"id": "m", "meta": {"n_ctx_train": 131072}}]})
    engine.props = {"default_generation_settings": {"n_ctx": 4096}}
    assert (await abilities(engine, metrics=LLAMACPP, provider="llamacpp")).context_tokens == 4096


async def test_an_engine_that_would_load_a_model_is_sent_no_request() -> None:
    engine = Engine({})
    assert await abilities(engine, metrics=WITHOUT_METRICS, provider="ollama") == EngineAbilities(1024)
    assert engine.asked == []


async def test_an_engine_without_time_says_nothing() -> None:
    with pytest.raises(NotToldError, match="503"):
        await abilities(Engine({"messages": (503, "queue full")}))


async def test_it_is_asked_whenever_it_comes_up_and_again_after_a_failure() -> None:
    readings: list[EngineAbilities] = []
    engine = Engine({"messages": (503, "queue full")})
    async with reading(engine, readings) as reader:
        task = asyncio.create_task(reader.run())
        try:
            reader.on_condition("starting")
            reader.on_condition("up")
            await until(lambda: len(engine.asked) >= 2)
            engine.refuses = {"image_url": (400, NOT_MULTIMODAL)}
            await until(lambda: readings[-1:] == [EngineAbilities(1024, frozenset({"vision"}))])
            asked = len(engine.asked)
            reader.on_condition("up")  # it stays up
            reader.on_condition("down")
            engine.refuses = {}
            reader.on_condition("up")  # another engine may listen now
            await until(lambda: readings[-1] == EngineAbilities(1024))
            assert len(engine.asked) == asked + 1
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0)
