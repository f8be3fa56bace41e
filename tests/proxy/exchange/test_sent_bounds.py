"""What is sent to a paid backend so that it keeps to what was held, and what is left as the client wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, PRICE, error_of, local, routing, settings

DONE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}]}
BILLED = Answer.json({**DONE, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
MESSAGE = Answer.json(
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "So."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
)
RESPONSE = Answer.json(
    {"object": "response", "status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
)
SEARCH = {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["é.example"]}
STEPS = PRICE.replace("}", ", steps: [{service: priority, input_per_million: '2', output_per_million: '4'}]}")
FREE = '{input_per_million: "0", output_per_million: "0"}'


def backend(upstream: FaultUpstream, provider: str, more: str = f"price: {PRICE}", model: str = "m") -> str:
    return f"{{name: b, provider: {provider}, model: {model}, api_key: k, base_url: '{upstream.url}', {more}}}"


async def sent(
    provider: str,
    fields: dict[str, Any],
    *,
    path: str = "/v1/chat/completions",
    answer: Answer = BILLED,
    more: str = f"price: {PRICE}",
    model: str = "m",
) -> dict[str, Any]:
    """Return the body that arrives at a backend of this provider for a request with these fields."""
    async with FaultUpstream(answer) as upstream:
        budget = "budgets: [{scope: all, period: day, limit_usd: '100'}]\n"
        async with routing(settings(backend(upstream, provider, more, model), more=budget)) as router:
            started = {"input": "hi"} if path == "/v1/responses" else {"messages": MESSAGES}
            reply = await router.post({"model": "b", **started, **fields}, path)
            assert reply.status_code == 200, reply.text
        body: dict[str, Any] = json.loads(upstream.seen[-1].body)
        return body


def bounds_in(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name.startswith("max_") and name != "max_tool_calls"}


@pytest.mark.parametrize(
    ("provider", "asked", "arrives"),
    [
        ("generic", {}, {"max_tokens": 4096}),
        ("generic", {"max_tokens": 5}, {"max_tokens": 5}),
        ("generic", {"max_completion_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 5}),
        ("generic", {"max_tokens": None}, {"max_tokens": 4096}),
        ("together", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("together", {"max_tokens": 7, "max_completion_tokens": 5}, {"max_tokens": 7, "max_completion_tokens": 5}),
        ("cerebras", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("groq", {}, {"max_completion_tokens": 4096}),
        ("groq", {"max_tokens": 5}, {"max_tokens": 5}),
    ],
)
async def test_the_bound_arrives_in_a_spelling_that_the_provider_obeys(
    provider: str, asked: dict[str, Any], arrives: dict[str, Any]
) -> None:
    assert bounds_in(await sent(provider, asked)) == arrives


async def test_a_bound_that_the_model_itself_has_is_not_sent() -> None:
    """The price list knows the longest answer of gpt-4o, which is what was held."""
    assert bounds_in(await sent("openai", {}, more="local: false", model="gpt-4o")) == {}
    shorter = await sent("openai", {}, more="max_output_tokens: 100", model="gpt-4o")
    assert bounds_in(shorter) == {"max_completion_tokens": 100}


async def test_the_field_of_the_bound_can_be_configured() -> None:
    more = f"price: {PRICE}, output_bound_field: num_predict"
    assert (await sent("generic", {"max_tokens": 5}, more=more))["num_predict"] == 5


async def test_a_backend_that_costs_nothing_gets_the_clients_bytes() -> None:
    assert bounds_in(await sent("generic", {}, more=f"price: {FREE}")) == {}
    async with FaultUpstream(BILLED) as engine, routing(settings(local(engine))) as router:
        assert (await router.chat()).status_code == 200
        assert bounds_in(json.loads(engine.seen[-1].body)) == {}


async def test_a_search_without_a_limit_gets_the_one_that_was_held() -> None:
    more = f"price: {PRICE}, context_tokens: 1000"
    limited = {**SEARCH, "max_uses": 9}
    function = {"name": "f", "input_schema": {"type": "object"}}
    body = await sent(
        "anthropic",
        {"max_tokens": 5, "tools": [SEARCH, limited, function]},
        path="/v1/messages",
        answer=MESSAGE,
        more=more,
    )
    assert body["tools"] == [{**SEARCH, "max_uses": 3}, limited, function]
    unchanged = await sent(
        "anthropic", {"max_tokens": 5, "tools": [limited]}, path="/v1/messages", answer=MESSAGE, more=more
    )
    assert unchanged["tools"] == [limited]


@pytest.mark.parametrize(("asked", "arrives"), [({}, 3), ({"max_tool_calls": 1}, 1), ({"max_tool_calls": "x"}, 3)])
async def test_hosted_tools_of_a_response_get_one_limit_together(asked: dict[str, Any], arrives: int) -> None:
    tools = [{"type": "web_search"}, {"type": "file_search", "vector_store_ids": ["v"]}]
    body = await sent(
        "openai",
        {"tools": tools, **asked},
        path="/v1/responses",
        answer=RESPONSE,
        more=f"price: {PRICE}, context_tokens: 1000",
    )
    assert (body["max_tool_calls"], body["max_output_tokens"]) == (arrives, 4096)


async def test_a_function_alone_gets_no_limit_on_tool_calls() -> None:
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    body = await sent("openai", {"tools": tools}, path="/v1/responses", answer=RESPONSE)
    assert "max_tool_calls" not in body


async def test_openrouter_gets_the_backends_prices_as_the_highest_and_no_other_models() -> None:
    body = await sent("openrouter", {"models": ["b"], "route": "fallback", "provider": {"order": ["x"]}})
    assert body["provider"] == {"order": ["x"], "max_price": {"prompt": 1, "completion": 2, "request": 0}}
    assert "models" not in body
    assert "route" not in body
    lower = await sent("openrouter", {"provider": {"max_price": {"prompt": 1, "completion": "3"}, "sort": "price"}})
    assert lower["provider"]["max_price"] == {"prompt": 1, "completion": 2, "request": 0}


@pytest.mark.parametrize(
    ("price", "asked", "arrives"),
    [
        (STEPS, None, "default"),
        (STEPS, "auto", "default"),
        (STEPS, "priority", "priority"),
        (PRICE, None, None),
        (PRICE, "default", "default"),
    ],
)
async def test_the_accounts_default_service_is_not_left_to_chance(
    price: str, asked: str | None, arrives: str | None
) -> None:
    fields = {} if asked is None else {"service_tier": asked}
    assert (await sent("openai", fields, more=f"price: {price}")).get("service_tier") == arrives


async def test_a_mode_with_a_price_is_charged_by_it() -> None:
    fast = PRICE.replace("}", ", steps: [{service: fast, input_per_million: '10', output_per_million: '20'}]}")
    usage = {"input_tokens": 1000, "output_tokens": 100, "speed": "fast"}
    answer = Answer.json({**json.loads(MESSAGE.body), "usage": usage})
    async with FaultUpstream(answer) as upstream:
        more = "budgets: [{scope: all, period: day, limit_usd: '100'}]\n"
        async with routing(settings(backend(upstream, "anthropic", f"price: {fast}"), more=more)) as router:
            body = {"model": "b", "messages": [{"role": "user", "content": "x" * 1000}], "max_tokens": 100}
            reply = await router.post({**body, "speed": "fast"}, "/v1/messages")
            assert reply.headers["x-spillway-cost-usd"] == "0.012000"  # 1000 x 10 + 100 x 20
            usual = await router.post({**body, "inference_geo": "us"}, "/v1/messages")
            assert (usual.status_code, "'us' is unknown" in usual.text) == (400, True)


async def test_a_search_in_a_large_body_needs_a_limit_of_the_client() -> None:
    """The body is read in parts, so that nothing can be written into its tools."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "?"}]}]
    body = {"model": "b", "messages": messages, "max_tokens": 5}
    async with FaultUpstream(MESSAGE) as upstream:
        more = "budgets: [{scope: all, period: day, limit_usd: '100'}]\n"
        line = backend(upstream, "anthropic", f"price: {PRICE}, context_tokens: 1000000")
        async with routing(settings(line, more=more)) as router:
            refused = await router.post({**body, "tools": [SEARCH]}, "/v1/messages")
            assert refused.status_code == 400
            assert "tools[0]" in error_of(refused)["message"]
            limited = await router.post({**body, "tools": [{**SEARCH, "max_uses": 2}]}, "/v1/messages")
            assert limited.status_code == 200, limited.text
