"""What an engine can't hold or do goes to the cloud as overflow, and not back to the client as a 400."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proxy.answers import answer, said

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, local, routing, settings

NOT_MULTIMODAL = Answer.json({"error": {"message": "m is not a multimodal model", "code": 400}}, 400)
NO_PARSER = Answer.json({"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice'}}, 400)
TOO_LONG = Answer.json({"error": {"message": "This model's maximum context length is 1024 tokens.", "code": 400}}, 400)
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SEEN = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, PICTURE]}]
CARDS = {"data": [{"id": "m", "max_model_len": 1024}]}


def refusing(**answers: Answer) -> Any:
    """Return the answers to probing requests of an engine that refuses bodies with these words."""

    def reply(body: Any) -> Answer:
        return next((a for word, a in answers.items() if word in str(body)), answer("a"))

    return reply


async def settled(router: Router) -> None:
    """Wait until the engine has said what it can do."""

    def has_said() -> bool:
        signals = router.runtime.board.current(router.runtime.services.clock()).backends["local"]
        return bool(signals.engine_lacks) or signals.engine_context_tokens is not None

    await router.until(has_said)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": SEEN}, "capability"),
        ({"tools": TOOLS}, "capability"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "context"),
    ],
)
async def test_what_the_engine_said_it_can_not_do_overflows(body: dict[str, Any], reason: str) -> None:
    async with FaultUpstream(answer("weak")) as engine, FaultUpstream(answer("strong")) as other:
        engine.models, engine.abilities = CARDS, refusing(image_url=NOT_MULTIMODAL, tools=NO_PARSER)
        async with routing(settings(local(engine), cloud(other))) as router:
            await settled(router)
            reply = await router.chat(body)
            assert said(reply) == "strong"
            assert reply.headers["x-spillway-decision"] == "overflow"
            assert reply.headers["x-spillway-reason"] == reason
            assert reply.headers["x-spillway-attempts"] == "1"
            assert engine.seen == []
            assert said(await router.chat({"tools": TOOLS, "tool_choice": "none"})) == "weak"
            state = (await router.client.get("/ready")).json()["backends"]["local"]
            assert state["context_tokens"] == 1024
            assert "tools" in state["lacks"]


@pytest.mark.parametrize(
    ("refusal", "reason"), [(TOO_LONG, "context"), (NOT_MULTIMODAL, "capability"), (NO_PARSER, "capability")]
)
async def test_what_the_engine_refuses_only_when_asked_overflows_too(refusal: Answer, reason: str) -> None:
    async with (
        FaultUpstream(refusal) as engine,
        FaultUpstream(answer("strong")) as other,
        routing(settings(local(engine), cloud(other))) as router,
    ):
        reply = await router.chat()
        assert said(reply) == "strong"
        assert reply.headers["x-spillway-decision"] == "overflow"
        assert reply.headers["x-spillway-reason"] == reason


@pytest.mark.parametrize(("configured", "room"), [(512, 512), (4096, 1024)])
async def test_a_configured_context_counts_only_where_it_is_lower(configured: int, room: int) -> None:
    async with FaultUpstream(answer("weak")) as engine:
        engine.models = CARDS
        line = local(engine).replace("model: m", f"model: m, context_tokens: {configured}")
        async with routing(settings(line)) as router:
            await settled(router)
            reply = await router.chat({"messages": [{"role": "user", "content": "word " * 9000}]})
            assert reply.status_code == 400
            assert f"has room for {room}" in reply.text


async def test_an_engine_without_logprobs_answers_unscored() -> None:
    rule = "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
    few = Answer.json(
        {"error": {"message": "Requested sample logprobs of 2, which is greater than max allowed: 0"}}, 400
    )
    async with FaultUpstream(answer("weak")) as engine, FaultUpstream(answer("strong")) as other:
        engine.abilities = refusing(logprobs=few)
        async with routing(settings(local(engine), cloud(other), more=rule)) as router:
            await settled(router)
            assert said(await router.chat()) == "weak"
            assert "logprobs" not in engine.seen[0].json
            assert engine.seen[0].json["messages"] == MESSAGES
