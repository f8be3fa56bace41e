"""Limits of a key on requests in progress and on tokens per minute, through a whole router, on every endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.testing import Answer, ManualClock
from spillway_router.testing.harness import Router, error_of, pair
from spillway_router.testing.streams import delta

TEXT = {"type": "output_text", "text": "hi", "annotations": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [TEXT]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "input_tokens": 3, "output_tokens": 1}
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": [MESSAGE]}
ENDPOINTS: dict[str, tuple[dict[str, Any], Any]] = {
    "/v1/chat/completions": ({}, None),
    "/v1/completions": ({"prompt": "x"}, {"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]}),
    "/v1/embeddings": ({"input": "x"}, {"data": [{"object": "embedding", "index": 0, "embedding": [0.1]}]}),
    "/v1/responses": ({"input": "x"}, RESPONSE),
    "/v1/messages": (
        {"max_tokens": 5},
        {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"},
    ),
}
"""The fields of a request and its answer, by path."""
STREAM = delta({"role": "assistant"}) + delta({"content": "alpha"})
HELLO = [{"role": "user", "content": "hello"}]


async def ask(router: Router, path: str, key: dict[str, str], **fields: Any) -> Any:
    body = {"model": "auto", "messages": HELLO, **ENDPOINTS[path][0], **fields}
    return await router.post({name: value for name, value in body.items() if value is not None}, path, **key)


def in_progress(router: Router) -> int:
    (key,) = router.ledger.keys.all()
    return router.runtime.services.key_loads.in_progress(key.id)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_key_has_no_more_requests_in_progress_than_it_may(path: str) -> None:
    gate = asyncio.Event()
    whole = ENDPOINTS[path][1]
    answer = WHOLE if whole is None else Answer.json({**whole, "usage": USAGE})
    async with pair(answer.after(gate), answer) as (engine, _, router):
        key = bearer(router, "inference", concurrent=1)
        first = asyncio.create_task(ask(router, path, key))
        await engine.arrival()
        refused = await ask(router, path, key)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "1"
        if path == "/v1/messages":
            assert (refused.json()["type"], error_of(refused)["type"]) == ("error", "rate_limit_error")
        gate.set()
        assert (await first).status_code == 200
        assert in_progress(router) == 0
        assert (await ask(router, path, key)).status_code == 200


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (WHOLE, {}),
        (Answer.json({"error": {"message": "no"}}, 400), {}),
        (Answer.json({"error": {"message": "no"}}, 500), {}),
        (Answer.stream(STREAM), {"stream": True}),
        (Answer.stream(STREAM, cut=60), {"stream": True}),
        (WHOLE, {"model": "none"}),
        (WHOLE, {"messages": "none"}),
    ],
)
async def test_a_place_is_given_back_however_a_request_ends(answer: Answer, fields: dict[str, Any]) -> None:
    async with pair(answer, answer) as (_, _, router):
        key = bearer(router, "inference", concurrent=1, tokens_per_minute=10**6)
        for _ in range(3):
            assert (await ask(router, "/v1/chat/completions", key, **fields)).status_code != 429
            assert in_progress(router) == 0


async def test_a_place_is_given_back_when_the_client_leaves_a_stream() -> None:
    async with pair(Answer.stream(STREAM, end="hang"), WHOLE) as (_, _, router):
        key = bearer(router, "inference", concurrent=1)
        body = {"model": "auto", "messages": HELLO, "stream": True}
        async with router.client.stream("POST", "/v1/chat/completions", json=body, headers=key) as reply:
            await anext(reply.aiter_bytes())
            assert in_progress(router) == 1
        await router.until(lambda: in_progress(router) == 0)


async def test_tokens_count_with_the_bound_and_then_with_the_usage() -> None:
    clock, gate = ManualClock(), asyncio.Event()
    async with pair(WHOLE.after(gate), WHOLE, clock=clock) as (engine, _, router):
        key = bearer(router, "inference", tokens_per_minute=1000)
        first = asyncio.create_task(ask(router, "/v1/chat/completions", key, max_tokens=900))
        await engine.arrival()
        refused = await ask(router, "/v1/chat/completions", key, max_tokens=900)
        assert refused.status_code == 429
        assert "1000 tokens per minute" in error_of(refused)["message"]
        assert 40 < int(refused.headers["retry-after"]) <= 60
        gate.set()
        assert (await first).status_code == 200
        # It used 4 tokens of about 930, so that the same request goes now.
        for _ in range(10):
            assert (await ask(router, "/v1/chat/completions", key, max_tokens=900)).status_code == 200
        (used,) = router.ledger.keys.all()
        assert router.runtime.services.key_loads.tokens_left(used.id, 1000, clock()) == 1000 - 11 * 4


async def test_a_document_counts_as_one_request_in_progress() -> None:
    gate = asyncio.Event()
    async with pair(WHOLE.after(gate), WHOLE) as (engine, _, router):
        key = bearer(router, "inference", concurrent=1)
        document = {"text": "Patient ID: K402211", "parser": "none"}
        first = asyncio.create_task(router.post(document, "/v1/documents/extract", **key))
        await engine.arrival()
        for refused in (
            await router.post(document, "/v1/documents/extract", **key),
            await ask(router, "/v1/chat/completions", key),
        ):
            assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        gate.set()
        assert (await first).status_code == 200
        assert in_progress(router) == 0
