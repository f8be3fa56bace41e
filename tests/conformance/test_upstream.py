"""The scripted upstream answers in the shapes that the SDKs read, whole and streamed alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conformance.upstream.app import build
from conformance.upstream.script import TEXT, Asked, Tool, answer, sample

TOOL = {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}
ASK = [{"role": "user", "content": "The weather in 'Graz' for 2 days"}]


async def post(path: str, body: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(build(("m",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://upstream") as client:
        return await client.post(path, json=body)


def events(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in reply.text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


async def test_a_streamed_chat_says_what_a_whole_one_says() -> None:
    body = {"model": "m", "messages": ASK, "stream_options": {"include_usage": True}}
    whole = (await post("/v1/chat/completions", body)).json()
    streamed = list(events(await post("/v1/chat/completions", {**body, "stream": True})))
    text = "".join(c["delta"].get("content") or "" for e in streamed for c in e["choices"])
    assert text == whole["choices"][0]["message"]["content"] == TEXT
    assert streamed[-1]["usage"] == whole["usage"]


async def test_a_tool_is_called_in_every_protocol() -> None:
    expected = {"place": "Graz", "days": 2}
    function = {"name": "weather", "parameters": TOOL}
    chat = await post(
        "/v1/chat/completions", {"model": "m", "messages": ASK, "tools": [{"type": "function", "function": function}]}
    )
    call = chat.json()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("weather", expected)
    response = await post("/v1/responses", {"input": ASK, "tools": [{"type": "function", **function}]})
    assert json.loads(response.json()["output"][0]["arguments"]) == expected
    message = await post(
        "/v1/messages", {"model": "m", "messages": ASK, "tools": [{"name": "weather", "input_schema": TOOL}]}
    )
    assert message.json()["content"][0]["input"] == expected


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
async def test_a_body_without_content_is_refused(path: str) -> None:
    reply = await post(path, {"model": "m"})
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_forced_tool_is_called_even_after_a_result() -> None:
    tools = (Tool("a", {}), Tool("b", {}))
    assert answer(Asked("x", tools, has_result=True)).text == TEXT
    assert answer(Asked("x", tools, forced="b", has_result=True)).tool == "b"


def test_samples_are_of_their_type() -> None:
    assert sample({"anyOf": [{"type": "array", "items": {"type": "number"}}]}, "x") == [3]
    assert sample({"enum": ["a", "b"]}, "x") == "a"
    assert sample("bar", "x") == "a sample"
