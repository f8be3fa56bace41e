"""POST /v1/messages/count_tokens: counted by a backend that can, else estimated; free, and private where it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import PRICE, error_of, local, routing, settings

PATH = "/v1/messages/count_tokens"
BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Which eye?"}]}
COUNTED = Answer.json({"input_tokens": 14})
NOT_THERE = Answer.json({"type": "error", "error": {"type": "not_found_error", "message": "no route"}}, 404)


def claude(upstream: FaultUpstream, name: str = "claude") -> str:
    reached = f"api_key: k, base_url: '{upstream.url}', price: {PRICE}"
    return f"{{name: {name}, provider: anthropic, model: {name}-m, {reached}}}"


def generic(upstream: FaultUpstream) -> str:
    return f"{{name: other, provider: generic, model: o, api_key: k, base_url: '{upstream.url}', price: {PRICE}}}"


async def test_the_backend_that_would_answer_counts(tmp_path: Path) -> None:
    async with (
        FaultUpstream(COUNTED) as engine,
        FaultUpstream() as cloud,
        routing(settings(local(engine), claude(cloud)), tmp_path) as router,
    ):
        reply = await router.post(BODY, PATH, anthropic_beta="token-counting-2024-11-01")
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"input_tokens": 14}
        assert reply.headers["x-spillway-backend"] == "local"
        assert reply.headers["request-id"] == reply.headers["x-request-id"]
        (asked,) = engine.seen
        assert asked.path == "/v1/messages/count_tokens"
        assert asked.json == {**BODY, "model": "m"}
        assert asked.headers["anthropic-beta"] == "token-counting-2024-11-01"
        assert cloud.seen == []
        assert router.ledger.entries_of(reply.headers["x-request-id"]) == ()


async def test_it_is_free_when_the_budget_is_used_up() -> None:
    more = "budgets: [{scope: all, period: day, limit_usd: '0'}]\n"
    async with FaultUpstream(COUNTED) as cloud, routing(settings(claude(cloud), more=more)) as router:
        assert (await router.post(BODY, PATH)).json() == {"input_tokens": 14}


async def test_a_backend_without_it_is_passed_over() -> None:
    async with (
        FaultUpstream(NOT_THERE) as old,
        FaultUpstream() as other,
        FaultUpstream(COUNTED) as good,
        routing(settings(local(old), generic(other), claude(good))) as router,
    ):
        reply = await router.post(BODY, PATH)
        assert (reply.json(), reply.headers["x-spillway-backend"]) == ({"input_tokens": 14}, "claude")
        assert other.seen == []


async def test_without_such_a_backend_it_is_estimated() -> None:
    async with FaultUpstream() as other, routing(settings(generic(other))) as router:
        short = await router.post(BODY, PATH)
        long = await router.post({**BODY, "system": "word " * 1000}, PATH)
        assert short.headers["x-spillway-estimated"] == "true"
        assert 0 < short.json()["input_tokens"] < 200
        assert 1000 <= long.json()["input_tokens"] <= 4000
        assert other.seen == []


@pytest.mark.parametrize("how", [{"x_spillway_privacy": "local-only"}, {"x_spillway_route": "local"}])
async def test_private_content_is_not_sent_to_be_counted(how: dict[str, str]) -> None:
    async with FaultUpstream(COUNTED) as cloud, routing(settings(claude(cloud))) as router:
        reply = await router.post(BODY, PATH, **how)
        assert reply.headers["x-spillway-estimated"] == "true"
        assert cloud.seen == []


async def test_the_backends_refusal_reaches_the_client() -> None:
    refused = {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: bad role"}}
    async with FaultUpstream(Answer.json(refused, 400)) as cloud, routing(settings(claude(cloud))) as router:
        reply = await router.post(BODY, PATH)
        assert reply.status_code == 400
        assert "messages: bad role" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "auto"}, 400),
        ({**BODY, "model": "nobody"}, 404),
        (b"[]", 400),
        (b"not json", 400),
    ],
)
async def test_a_malformed_request_is_refused_in_anthropics_shape(body: Any, status: int) -> None:
    async with FaultUpstream(COUNTED) as cloud, routing(settings(claude(cloud))) as router:
        reply = await router.post(body, PATH)
        assert reply.status_code == status
        assert error_of(reply)["message"]
        assert cloud.seen == []


async def test_without_a_key_nothing_is_counted() -> None:
    async with (
        FaultUpstream(COUNTED) as cloud,
        routing(settings(claude(cloud), more="keys: {required: true}\n")) as router,
    ):
        assert (await router.post(BODY, PATH)).status_code == 401


INPUT_TOKENS = "/v1/responses/input_tokens"
ASKED: dict[str, Any] = {"model": "auto", "input": "Which eye?"}
COUNTED_INPUT = Answer.json({"object": "response.input_tokens", "input_tokens": 11})


def openai(upstream: FaultUpstream) -> str:
    return generic(upstream).replace("provider: generic", "provider: openai")


async def test_a_backend_that_counts_responses_is_asked(tmp_path: Path) -> None:
    async with (
        FaultUpstream(COUNTED) as engine,
        FaultUpstream(COUNTED_INPUT) as cloud,
        routing(settings(local(engine), openai(cloud)), tmp_path) as router,
    ):
        reply = await router.post(ASKED, INPUT_TOKENS)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"object": "response.input_tokens", "input_tokens": 11}
        assert (cloud.seen[0].path, cloud.seen[0].json["model"]) == (INPUT_TOKENS, "o")
        assert engine.seen == []  # it counts messages only
        assert router.ledger.entries_of(reply.headers["x-request-id"]) == ()
        private = await router.post(ASKED, INPUT_TOKENS, x_spillway_privacy="local-only")
        assert private.headers["x-spillway-estimated"] == "true"
        assert len(cloud.seen) == 1


async def test_the_tokens_of_a_response_are_estimated_unless_they_are_stored() -> None:
    async with FaultUpstream() as other, routing(settings(generic(other))) as router:
        reply = await router.post(ASKED, INPUT_TOKENS)
        assert reply.headers["x-spillway-estimated"] == "true"
        assert reply.json()["object"] == "response.input_tokens"
        assert 0 < reply.json()["input_tokens"] < 200
        for field in ("previous_response_id", "conversation"):
            stored = await router.post({**ASKED, field: "x_1"}, INPUT_TOKENS)
            assert (stored.status_code, error_of(stored)["param"]) == (400, field)
        assert (await router.post({**ASKED, "previous_response_id": None}, INPUT_TOKENS)).status_code == 200
        assert other.seen == []


async def test_compacting_is_refused_before_it_costs() -> None:
    async with FaultUpstream() as cloud, routing(settings(openai(cloud))) as router:
        reply = await router.post({"model": "auto", "input": "hi"}, "/v1/responses/compact")
        assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
        assert cloud.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/messages/batches/x/results"),
        ("GET", "/v1/chat/completions/x"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/responses/x/y"),
        ("POST", "/v1/files"),
    ],
)
async def test_a_route_that_is_not_offered_is_a_404_in_the_shape_of_its_protocol(method: str, path: str) -> None:
    async with FaultUpstream() as cloud, routing(settings(openai(cloud))) as router:
        reply = await router.client.request(method, path)
        assert reply.status_code == 404
        assert ("type" in reply.json()) == path.startswith("/v1/messages")
        assert reply.json()["error"]["type"] == "not_found_error"
