"""Errors as each protocol's clients read them, from every place that refuses a request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from spillway_router.proxy.client.error_shapes import ANTHROPIC_TYPES
from spillway_router.testing import Answer, FaultUpstream, streams
from spillway_router.testing.harness import Router, cloud, error_of, local, pair, routing, settings

ASK = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
UNKNOWN = {**ASK, "model": "nobody"}
KEYS = "keys: {required: true}\n"


def anthropic_error(reply: httpx.Response) -> dict[str, Any]:
    """Return the error object of a reply after checking Anthropic's shape, by the rule of its library."""
    body = reply.json()
    assert set(body) == {"type", "error"}, body
    assert body["type"] == "error"
    error: dict[str, Any] = body["error"]
    assert isinstance(error["message"], str)
    assert error["type"] == ANTHROPIC_TYPES.get(reply.status_code, "api_error")
    return error


class AnthropicError(Exception):
    """What Anthropic's library raises for an event named `error`."""


def anthropic_events(content: bytes) -> list[dict[str, Any]]:
    """Read a stream as Anthropic's library does: it goes by the event's name, and skips an event without one."""
    faults = []
    for block in content.split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if fields.get(b"event") == b"error":
            raise AnthropicError(json.loads(fields[b"data"])["error"]["message"])
        if b"event" in fields:
            faults.append(json.loads(fields[b"data"]))
    return faults


async def test_refusals_before_routing_have_anthropics_shape() -> None:
    more = "limits: {body_mb: 0.001}\n"
    async with pair(Answer(), more=more) as (_, _, router):
        cases: list[tuple[int, httpx.Response]] = [
            (404, await router.post(UNKNOWN, "/v1/messages")),
            (400, await router.post(b"{", "/v1/messages")),
            (413, await router.post(b"x" * 2000, "/v1/messages")),
            (415, await router.post(ASK, "/v1/messages", content_type="text/plain")),
            (405, await router.client.get("/v1/messages")),
            (404, await router.client.get("/v1/messages/batches")),
        ]
        for status, reply in cases:
            assert reply.status_code == status, reply.text
            assert anthropic_error(reply)["code"]
        assert {reply.headers["request-id"] == reply.headers["x-request-id"] for _, reply in cases[:4]} == {True}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_refusals_elsewhere_have_openais_shape(path: str) -> None:
    async with pair(Answer()) as (_, _, router):
        for reply in (await router.post({**UNKNOWN, "input": "?"}, path), await router.client.get(path)):
            assert error_of(reply)["message"]
            assert "request-id" not in reply.headers


async def test_a_missing_key_is_told_in_anthropics_shape() -> None:
    async with FaultUpstream(Answer()) as engine, routing(settings(local(engine), more=KEYS)) as router:
        reply = await router.post(ASK, "/v1/messages")
        assert (reply.status_code, anthropic_error(reply)["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    ("engine", "status", "kind"),
    [(503, 503, "overloaded_error"), (500, 502, "api_error"), (400, 400, "invalid_request_error")],
)
async def test_failures_of_backends_have_anthropics_shape(engine: int, status: int, kind: str) -> None:
    answer = Answer.json({"error": {"message": "no"}}, engine)
    async with FaultUpstream(answer) as upstream, routing(settings(local(upstream))) as router:
        reply = await router.post(ASK, "/v1/messages")
        assert (reply.status_code, anthropic_error(reply)["type"]) == (status, kind)


async def test_a_broken_messages_stream_raises_in_anthropics_library() -> None:
    whole = streams.messages("alpha")
    async with pair(Answer.stream(whole.body, cut=whole.end_of(2), end="fin")) as (_, _, router):
        reply = await router.post({"model": "auto", "stream": True, **whole.fields}, whole.path)
        with pytest.raises(AnthropicError, match="broke off"):
            anthropic_events(reply.content)


async def read_by_openai(router: Router) -> None:
    async with openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0) as client:
        stream: Any = await client.responses.create(model="auto", input="?", stream=True)
        async for _ in stream:
            pass


async def test_a_broken_responses_stream_raises_in_openais_library() -> None:
    whole = streams.responses("alpha")
    async with pair(Answer.stream(whole.body, cut=whole.end_of(1), end="fin")) as (_, _, router):
        with pytest.raises(openai.APIError, match="broke off") as caught:
            await read_by_openai(router)
        assert caught.value.code == "upstream_interrupted"


UPSTREAM_ERRORS: dict[str, dict[str, Any]] = {
    "too long": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"},
    "parameter": {"message": "no such", "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported"},
    "filter": {"message": "no", "type": "x", "code": "content_filter", "innererror": {"violence": True}},
    "tool": {"message": "no", "type": "x", "code": "tool_use_failed", "failed_generation": "<function"},
}


@pytest.mark.parametrize("name", UPSTREAM_ERRORS)
async def test_the_upstreams_own_members_of_a_refusal_reach_the_client(name: str) -> None:
    sent = UPSTREAM_ERRORS[name]
    answer = Answer.json({"error": sent}, 422)
    async with FaultUpstream(answer) as upstream, routing(settings(cloud(upstream))) as router:
        chat = (await router.chat()).json()["error"]
        assert {member: chat[member] for member in sent if member != "message"} | {"message": sent["message"]} == sent
        assert sent["message"] in chat["message"]
        messages = anthropic_error(await router.post(ASK, "/v1/messages"))
        assert messages["code"] == sent["code"]


async def test_a_flat_error_and_codes_that_are_no_strings() -> None:
    flat = {"object": "error", "message": "no", "type": "BadRequestError", "param": None, "code": 400}
    async with FaultUpstream(Answer.json(flat, 422)) as upstream, routing(settings(cloud(upstream))) as router:
        error = error_of(await router.chat())
        assert (error["type"], error["param"], error["code"]) == ("BadRequestError", None, "invalid_request")


async def test_no_key_and_no_flood_in_an_upstreams_error() -> None:
    key = "sk-very-secret-key"
    sent = {"message": f"bad {key}", "code": "x", "details": {"seen": [key]}}
    async with FaultUpstream(Answer.json({"error": sent}, 422)) as upstream:
        line = cloud(upstream).replace("api_key: k", f"api_key: {key}")
        async with routing(settings(line)) as router:
            reply = await router.chat()
            assert key not in reply.text
            assert reply.json()["error"]["details"] == {"seen": ["***"]}
            upstream.answer = Answer.json({"error": {"message": "no", "code": "y", "more": "x" * 100_000}}, 422)
            error = error_of(await router.chat())
            assert error["code"] == "y"
