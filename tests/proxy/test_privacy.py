"""Private content never reaches a cloud backend, on any path."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FakeEngine, FaultUpstream, ManualClock
from spillway_router.testing.harness import MESSAGES, cloud, error_of, local, pair, routing, serving, settings
from spillway_router.testing.streams import chat, delta

WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
KEYWORDS = "privacy: {keywords: [Password, Straße, 'a\"b']}\n"


def saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


MARKS: dict[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "header": ({}, {"x_spillway_privacy": "local-only"}),
    "header in capitals": ({}, {"x_spillway_privacy": "Local-Only"}),
    "malformed header": ({}, {"x_spillway_privacy": "yes please"}),
    "empty header": ({}, {"x_spillway_privacy": ""}),
    "metadata": ({"metadata": {"privacy": "local-only"}}, {}),
    "malformed metadata": ({"metadata": {"privacy": 1}}, {}),
    "null metadata": ({"metadata": {"privacy": None}}, {}),
    "metadata against an open header": ({"metadata": {"privacy": "private"}}, {"x_spillway_privacy": "any"}),
    "keyword": (saying("my password is x"), {}),
    "keyword in capitals": (saying("MY PASSWORD"), {}),
    "keyword inside a word": (saying("old_passwords"), {}),
    "keyword against an open header": (saying("password"), {"x_spillway_privacy": "any"}),
    "keyword in a part": (saying("x") | {"tools": [{"function": {"name": "password"}}]}, {}),
    "keyword in an image's text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "PassWord"}]}]},
        {},
    ),
    "folded letters": (saying("STRASSE"), {}),
    "keyword with a quote": (saying('x a"b y'), {}),
}

DOWN: dict[str, Answer] = {
    "overflow": Answer.json({"error": {"code": 503}}, 503),
    "failover": Answer.json({"error": {"code": 500}}, 500),
    "reset": Answer(silent=True, end="rst"),
    "abort": Answer.json({"choices": [{"finish_reason": "abort"}]}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DOWN)
@pytest.mark.parametrize("mark", MARKS)
async def test_private_content_stays(mark: str, path: str, stream: bool) -> None:
    fields, headers = MARKS[mark]
    async with pair(DOWN[path], WHOLE, more=KEYWORDS, clock=ManualClock()) as (engine, other, router):
        for _ in range(6):  # until the breaker is open, and after that
            reply = await router.chat({**fields, "stream": stream}, **headers)
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
            assert reply.headers["x-should-retry"] == "false"
            assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert engine.seen
        assert not other.seen
        # The same failure lets open content through: the test would see a leak.
        assert (await router.chat({}, x_spillway_privacy="any")).status_code == 200
        assert len(other.seen) == 1


WAYS: dict[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "alias": ({"model": "auto"}, {}),
    "pinned": ({"model": "cloud/cloud-m"}, {}),
    "pinned by name": ({"model": "cloud"}, {}),
    "the cloud's model": ({"model": "cloud-m"}, {}),
    "fastest": ({"model": "auto:fastest"}, {}),
    "cheapest": ({"model": "auto:cheapest"}, {}),
    "models": ({"model": "local", "models": ["cloud/cloud-m", "cloud"]}, {}),
    "provider order": ({"provider": {"order": ["cloud"]}}, {}),
    "provider only": ({"provider": {"only": ["cloud"]}}, {}),
    "route": ({}, {"x_spillway_route": "cloud"}),
    "impatient": ({}, {"x_spillway_slo_ttft_ms": "1"}),
    "confidence": ({}, {"x_spillway_min_confidence": "1"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("up", [True, False])
async def test_no_way_of_asking_sends_it_out(way: str, up: bool) -> None:
    fields, headers = WAYS[way]
    scored = {"token": "hi", "logprob": -9.0}
    unsure = {
        "choices": [
            {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop", "logprobs": {"content": [scored]}}
        ]
    }
    answer = Answer.json(unsure) if up else Answer.json({"error": {}}, 500)
    async with pair(answer, WHOLE, more="confidence: {threshold: 0.9, escalate_to: [cloud]}\n") as (
        _,
        other,
        router,
    ):
        reply = await router.chat(fields, x_spillway_privacy="local-only", **headers)
        if reply.status_code == 200:
            assert reply.headers["x-spillway-backend"] == "local"
        elif reply.status_code == 503:
            assert error_of(reply)["code"] == "local_only_unavailable"
        else:
            assert not up
        assert not other.seen


async def test_a_private_answer_that_is_unsure_is_not_escalated() -> None:
    engine = FakeEngine(["a", "b"], [-5.0, -5.0])
    async with (
        serving(engine) as url,
        FaultUpstream(WHOLE) as other,
        routing(
            settings(local(url + "/v1"), cloud(other), more="confidence: {threshold: 0.9, escalate_to: [cloud]}\n")
        ) as router,
    ):
        reply = await router.chat(x_spillway_privacy="local-only")
        assert reply.json()["choices"][0]["message"]["content"] == "ab"
        assert float(reply.headers["x-spillway-confidence"]) < 0.1
        assert not other.seen


@pytest.mark.parametrize("text", ['"pass\\u0077ord"', '"\\u0050\\u0041SSWORD"', '"stra\\u00dfe"'])
async def test_keywords_are_found_behind_unicode_escapes(text: str) -> None:
    async with pair(DOWN["overflow"], WHOLE, more=KEYWORDS) as (_, other, router):
        body = b'{"model":"auto","messages":[{"role":"user","content":' + text.encode() + b"}]}"
        assert (await router.post(body)).status_code == 503
        assert not other.seen


async def test_two_privacy_headers_add_up() -> None:
    async with pair(DOWN["overflow"], WHOLE) as (_, other, router):
        for marks in (("local-only", "any"), ("any", "local-only")):
            headers = [("x-spillway-privacy", mark) for mark in marks]
            body = {"model": "auto", "messages": MESSAGES}
            reply = await router.client.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.status_code == 503
        assert not other.seen


async def test_the_default_and_the_key_bind() -> None:
    async with pair(DOWN["overflow"], WHOLE, more="privacy: {default: local-only}\n") as (_, other, router):
        assert (await router.chat()).status_code == 503
        assert (await router.chat(x_spillway_privacy="any")).status_code == 503
        assert not other.seen


async def test_a_private_key_binds_all_its_requests(tmp_path: Path) -> None:
    async with pair(DOWN["overflow"], WHOLE, folder=tmp_path) as (_, other, router):
        spec = KeySpec("ward", privacy="local-only", may_route=True)
        key = KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
        for headers in ({}, {"x_spillway_privacy": "any"}, {"x_spillway_route": "cloud"}):
            reply = await router.chat(authorization=f"Bearer {key.token}", **headers)
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not other.seen


async def test_a_broken_private_stream_is_not_finished_elsewhere() -> None:
    begun = Answer.stream(delta({"content": "alpha"}), end="fin")
    async with pair(begun, Answer.stream(chat("beta").body)) as (_, other, router):
        reply = await router.chat({"stream": True}, x_spillway_privacy="local-only")
        assert b"upstream_interrupted" in reply.content
        assert not other.seen


async def test_many_private_requests_at_once_all_stay() -> None:
    """A full backlog predicts a wait beyond the promise; private requests wait nevertheless."""
    gate = asyncio.Event()
    async with pair(WHOLE.after(gate), WHOLE) as (engine, other, router):
        body = saying("x" * 60_000)
        tasks = [asyncio.create_task(router.chat(body, x_spillway_privacy="local-only")) for _ in range(8)]
        for _ in tasks:
            await engine.arrival()
        opened = await router.chat(body)
        assert opened.headers["x-spillway-decision"] == "overflow"
        gate.set()
        assert {r.headers["x-spillway-backend"] for r in await asyncio.gather(*tasks)} == {"local"}
        assert len(other.seen) == 1
