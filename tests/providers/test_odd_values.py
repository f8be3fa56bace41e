"""Answers, events and errors in which a value is of another kind than anybody expects: judged, never an exception."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from evidence.streams.protocols import ANSWERS

from spillway_router.core.routing.model import Endpoint
from spillway_router.http_client.types import Reply
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.providers.sse import SseDecoder

ODD: tuple[Any, ...] = (None, True, 0, -1, 1.5, 10**30, "", "x", [], {}, [[]], [{}], {"a": []}, "\ud83d")
ENDPOINTS: dict[str, Endpoint] = {
    "chat": "chat",
    "completions": "completions",
    "responses": "responses",
    "messages": "messages",
}
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "input_tokens": 3,
    "output_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 1, "cache_creation_token_details": {"ephemeral_1h_input_tokens": 1}},
    "input_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cache_read_input_tokens": 1,
    "cache_creation_input_tokens": 1,
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "server_tool_use": {"web_search_requests": 1},
    "service_tier": "default",
    "speed": "standard",
    "inference_geo": "global",
    "cost": 0.1,
}
ERRORS: tuple[dict[str, Any], ...] = (
    {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "r"},
    {"object": "error", "message": "m", "type": "t", "code": 400},
    {"detail": [{"loc": ["body", "x"], "msg": "m", "type": "t"}]},
    {"error": "text", "message": "m"},
)


def oddities(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value with one odd value in each place."""
    places: list[tuple[str | int, ...]] = []

    def walk(inner: Any, place: tuple[str | int, ...]) -> None:
        places.append(place)
        keys = inner.keys() if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            walk(inner[key], (*place, key))

    walk(value, ())
    for place in places[1:]:
        for odd in ODD:
            changed = copy.deepcopy(value)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = odd
            yield changed


@pytest.mark.parametrize("provider", ["openai", "groq", "anthropic", "openrouter", "vllm", "generic"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_value_in_a_stream_is_judged(name: str, provider: str) -> None:
    answer = ANSWERS[name]("alpha")
    adapter = provider_for(load_catalogue()[provider])
    parsed = []
    for event in SseDecoder().feed(answer.body):
        if event.data and event.data != b"[DONE]":
            parsed.append((event.name, json.loads(event.data)))
    for index, (event_name, body) in enumerate(parsed):
        for odd in oddities({**body, "usage": USAGE, "x_groq": {"usage": USAGE, "error": "e"}}):
            monitor = adapter.stream_monitor(ENDPOINTS[answer.protocol], 2)
            for earlier_name, earlier in parsed[:index]:
                monitor.check(earlier_name, json.dumps(earlier).encode())
            flaw = monitor.check(event_name, json.dumps(odd).encode())
            assert flaw is None or flaw.encode() is not None
            monitor.missing()


@pytest.mark.parametrize("provider", ["openai", "groq", "anthropic", "openrouter", "vllm", "generic"])
@pytest.mark.parametrize("name", [name for name in ANSWERS if ANSWERS[name]("x").whole is not None])
def test_an_odd_value_in_a_whole_answer_is_judged(name: str, provider: str) -> None:
    answer = ANSWERS[name]("alpha")
    adapter = provider_for(load_catalogue()[provider])
    for odd in oddities({**(answer.whole or {}), "usage": USAGE, "service_tier": "x", "error": None}):
        flaw = adapter.flaw(ENDPOINTS[answer.protocol], odd)
        assert flaw is None or isinstance(flaw, str)
        adapter.usage(ENDPOINTS[answer.protocol], odd)


@pytest.mark.parametrize("provider", ["openai", "groq", "anthropic", "openrouter", "vllm", "generic"])
@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503, 529])
def test_an_odd_value_in_an_error_is_judged(status: int, provider: str) -> None:
    adapter = provider_for(load_catalogue()[provider])
    bodies = [json.dumps(odd).encode() for error in ERRORS for odd in oddities(error)]
    bodies += [json.dumps(odd).encode() for odd in ODD] + [b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"<html>", b"{" * 3000]
    for body in bodies:
        for retry_after in ("", "5", "-1", "1e400", "nan", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "9" * 400, "0.5"):
            headers = {"retry-after": retry_after, "retry-after-ms": retry_after} if retry_after else {}
            outcome = adapter.outcome(Reply(status, headers, body), 1_800_000_000.0)
            assert outcome.kind != "ok"
            outcome.said.encode()
            assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s < 1e9
