"""Edges of the protocols: errors before a request is whole, the OpenAPI document, web pages instead of answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import PRICE, cloud, error_of, pair, routing, settings
from spillway_router.testing.streams import chat

PAGE = Answer(b"<html>Just a moment...</html>", headers=(("content-type", "text/html; charset=utf-8"),))
MALFORMED = b"POST %b HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "anthropic"),
    [
        (MALFORMED % b"/v1/messages", True),
        (MALFORMED % b"/v1/messages?beta=true", True),
        (MALFORMED % b"/v1/chat/completions", False),
        (b"NONSENSE\r\n\r\n", False),
    ],
)
async def test_a_malformed_request_gets_the_shape_of_its_route(head: bytes, anthropic: bool) -> None:
    async with pair(chat("hi")) as (_, _, router):
        host, _, port = router.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        status, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert status.startswith(b"HTTP/1.1 400 ")
        assert (json.loads(body).get("type") == "error") == anthropic


async def test_pages_may_read_every_header() -> None:
    more = "cors: {origins: ['https://chat.example.com']}\n"
    limits = {"x-ratelimit-remaining-tokens": "7", "x-request-id": "up-1"}
    whole: dict[str, Any] = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
    async with (
        FaultUpstream(Answer.json(whole, headers=limits)) as upstream,
        routing(settings(cloud(upstream), more=more)) as router,
    ):
        reply = await router.chat(None, origin="https://chat.example.com")
        exposed = [name.strip() for name in reply.headers["access-control-expose-headers"].split(",")]
        own = {name for name in reply.headers if name.startswith(("x-", "request-id"))}
        assert own <= set(exposed)
        assert "*" in exposed
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_web_page_is_no_answer_and_costs_nothing(stream: bool, tmp_path: Path) -> None:
    async with (
        FaultUpstream(PAGE) as gateway,
        FaultUpstream(
            Answer.stream(chat("beta").body) if stream else Answer.json({"choices": [{"text": "beta"}]})
        ) as good,
        routing(settings(cloud(gateway, "a"), cloud(good, "b")), tmp_path) as router,
    ):
        reply = await router.chat({"stream": stream})
        assert "beta" in reply.text
        first = min(router.rows(reply), key=lambda row: row.attempt_no)
        assert (first.backend, first.kind, first.amount_nano) == ("a", "released", 0)


async def test_a_whole_answer_with_bad_json_is_not_called_a_stream() -> None:
    bad = Answer(
        b'{"choices": [{"text": "a", "logprobs": -Infinity}]}', headers=(("content-type", "application/json"),)
    )
    async with FaultUpstream(bad) as upstream, routing(settings(cloud(upstream))) as router:
        message = error_of(await router.chat())["message"]
        assert "bad JSON" in message
        assert "stream" not in message


async def test_the_openapi_document_has_the_inference_routes_and_errors() -> None:
    async with pair(chat("hi")) as (_, _, router):
        document = (await router.client.get("/openapi.json")).json()
        for name in ("chat/completions", "completions", "embeddings", "responses", "messages"):
            operation = document["paths"][f"/v1/{name}"]["post"]
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            assert body["additionalProperties"] is True
            for status in ("400", "401", "402", "404", "429", "502", "503"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
                assert schema.endswith("/AnthropicError") == (name == "messages")
        names = [o["operationId"] for operations in document["paths"].values() for o in operations.values()]
        assert len(names) == len(set(names))


async def test_done_after_message_stop_is_no_flaw() -> None:
    """vLLM before PR #37510 sends it, and so does another gateway (clients.md, F12)."""
    events = (
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":"a"}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
        b'"usage":{"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    async with FaultUpstream(Answer.stream(events + b"data: [DONE]\n\n")) as upstream:
        line = f"{{name: c, provider: anthropic, model: m, api_key: k, base_url: '{upstream.url}', price: {PRICE}}}"
        async with routing(settings(line)) as router:
            body = {"model": "auto", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
            assert (await router.post(body, "/v1/messages")).content == events
