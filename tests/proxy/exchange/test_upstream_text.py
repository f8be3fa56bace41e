"""What an upstream writes in an error reaches the client of the request, without keys, and nobody else."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.streams import data, delta

PROMPT = "PATIENT Jane Doe HIV positive"
ECHO = f"1 validation error: input_value={{'x': '{PROMPT}'}}\n2026-11-29 INFO spillway FAKE LINE\x1b[31m"
KEY = "sk-CANARYcloudkey/23456789"
OTHER_KEY = "gsk_another-backends-key-42"
WORDS = f"Incorrect API key provided: {KEY}, {base64.b64encode(KEY.encode()).decode()} and {OTHER_KEY}; {ECHO}"
ERRORS: dict[str, Answer] = {
    "400": Answer.json({"error": {"message": WORDS, "param": WORDS, "more": [WORDS]}}, 400),
    "401": Answer.json({"error": {"message": WORDS}}, 401),
    "422 flat": Answer.json({"detail": WORDS}, 422),
    "429": Answer.json({"error": {"message": WORDS}}, 429),
    "500": Answer.json({"error": {"message": WORDS}}, 500),
    "503 that is no JSON": Answer(WORDS.encode(), 503),
    "200 with an error": Answer.json({"error": {"message": WORDS}}),
    "an error event": Answer.stream(data({"error": {"message": WORDS}})),
    "an error event after content": Answer.stream(delta({"content": "a"}) + data({"error": {"message": WORDS}})),
    "a flat error event": Answer.stream(b"event: error\n" + data({"message": WORDS})),
}


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="spillway"):
        yield


async def shown_to_others(router: Router, reply: httpx.Response, caplog: pytest.LogCaptureFixture) -> str:
    """Return all that others than the client may see of its request."""
    record = await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")
    assert record.status_code == 200
    ready, metrics = await router.client.get("/ready"), await router.client.get("/metrics")
    explained = await router.post(
        {"model": "auto", "messages": [{"role": "user", "content": "x"}]}, "/v1/route/explain"
    )
    entries = "".join(str(e) for e in router.ledger.entries_between(0, 2**62))
    own = [entry.getMessage() for entry in caplog.records if entry.name.startswith("spillway")]
    return "".join([record.text, ready.text, metrics.text, explained.text, entries, *own])


def body(stream: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPT}], "stream": stream}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("kind", ERRORS)
async def test_a_cloud_that_repeats_key_and_prompt(
    kind: str, path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultUpstream(ERRORS[kind]) as upstream, FaultUpstream(ERRORS[kind]) as other:
        lines = cloud(upstream).replace("api_key: k", f"api_key: {KEY}"), cloud(other, "other")
        named = settings(*lines).replace("api_key: k", f"api_key: {OTHER_KEY}")
        with logged(caplog):
            async with routing(named, tmp_path) as router:
                fields = body("event" in kind) | {"model": "auto", "prompt": PROMPT, "max_tokens": 5}
                reply = await router.post(fields, path)
                seen = await shown_to_others(router, reply, caplog)
    assert upstream.seen
    assert "CANARY" not in reply.text + str(reply.headers)
    assert OTHER_KEY not in reply.text
    assert base64.b64encode(KEY.encode()).decode() not in reply.text
    for secret in ("CANARY", OTHER_KEY, "Jane", "FAKE", "\x1b"):
        assert secret not in seen, seen


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_engine_that_repeats_the_prompt(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FaultUpstream(ERRORS[kind]) as engine, routing(settings(local(engine)), tmp_path) as router:
        with logged(caplog):
            reply = await router.chat(body("event" in kind), x_spillway_privacy="local-only")
            seen = await shown_to_others(router, reply, caplog)
    assert engine.seen
    assert "Jane" in reply.text or kind == "a flat error event", (
        "the client may know what the engine said of its request"
    )
    for secret in ("Jane", "FAKE", "\x1b"):
        assert secret not in seen, seen


async def test_a_key_in_the_headers_of_an_answer(tmp_path: Path) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}], "model": f"m-{KEY}"}
    headers = {"x-request-id": f"id-{KEY}", "x-ratelimit-hint": base64.b64encode(KEY.encode()).decode()}
    async with (
        FaultUpstream(Answer.json(whole, 200, headers)) as upstream,
        routing(settings(cloud(upstream).replace("api_key: k", f"api_key: {KEY}")), tmp_path) as router,
    ):
        reply = await router.chat()
        assert reply.status_code == 200
        assert reply.headers["x-spillway-upstream-request-id"] == "id-***"
        assert reply.headers["x-ratelimit-hint"].startswith("***")
        assert "CANARY" not in str(router.rows(reply)) + str(reply.headers)
