"""What is private is judged again before each attempt leaves, and either of two guards alone keeps it here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.proxy.answers import STRONG, said

from spillway_router.http_client.connection import PrivateContentError
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.runtime.router import Runtime
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.guards import without_routing_guard, without_transport_guard
from spillway_router.testing.harness import Router, cloud, error_of, local, pair, routing, settings

BROKEN = Answer.json({"error": {"message": "down"}}, 500)
RULE = "confidence: {threshold: 0.8, audit_share: 1, escalate_to: [cloud]}\n"
LOCAL_ONLY = "privacy: {default: local-only}\n"
SAID = {"messages": [{"role": "user", "content": "my secret plan"}]}


def scored(logprob: float) -> Answer:
    token = {"token": "hi", "logprob": logprob, "top_logprobs": [{"token": "hi", "logprob": logprob}]}
    choice = {"index": 0, "message": {"content": "local"}, "finish_reason": "stop", "logprobs": {"content": [token]}}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})


async def reload(router: Router, text: str) -> None:
    """Put another configuration in force."""
    ledger = router.path.read_text().splitlines()[0]
    router.path.write_text(f"{ledger}\n{text}")
    assert await router.runtime.reload("a test") == []


async def test_audits_that_wait_obey_a_reload(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with FaultUpstream(scored(-0.001)) as engine, FaultUpstream(STRONG.after(gate)) as strong:
        text = settings(local(engine), cloud(strong), more=RULE)
        async with routing(text, tmp_path) as router:
            for _ in range(5):
                assert said(await router.chat()) == "local"
            await strong.arrival()
            await reload(router, text + LOCAL_ONLY)
            gate.set()
            await router.runtime.audits.settled()
            assert len(strong.seen) == 1, "only the audit that was under way"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", [LOCAL_ONLY, "privacy: {keywords: [secret]}\n"])
@pytest.mark.parametrize("engine_says", ["unsure", "broken"])
async def test_requests_in_flight_obey_a_reload(engine_says: str, change: str, stream: bool, tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = scored(-5.0) if engine_says == "unsure" else BROKEN
    stream = stream and engine_says == "broken"
    async with FaultUpstream(answer.after(gate)) as engine, FaultUpstream(STRONG) as strong:
        text = settings(local(engine), cloud(strong), more=RULE.replace(", audit_share: 1", ""))
        async with routing(text, tmp_path) as router:
            running = asyncio.create_task(router.chat({**SAID, "stream": stream}))
            await engine.arrival()
            await reload(router, text + change)
            gate.set()
            reply = await running
            assert not strong.seen
            if engine_says == "unsure":
                assert said(reply) == "local"
            else:
                assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
            rows = [row for row in router.rows(reply) if row.backend == "cloud"]
            assert not [row for row in rows if row.amount_nano], "nothing left, so nothing is charged"


async def test_a_reload_that_restricts_nothing_changes_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with FaultUpstream(BROKEN.after(gate)) as engine, FaultUpstream(STRONG) as strong:
        text = settings(local(engine), cloud(strong))
        async with routing(text, tmp_path) as router:
            running = asyncio.create_task(router.chat(SAID))
            await engine.arrival()
            await reload(router, text + "privacy: {keywords: [other]}\n")
            gate.set()
            assert said(await running) == "strong"


async def test_a_backend_that_is_no_longer_local_gets_nothing_private(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with FaultUpstream(BROKEN.after(gate)) as engine, FaultUpstream(STRONG) as second:
        text = settings(local(engine), local(second, "second"))
        async with routing(text, tmp_path) as router:
            running = asyncio.create_task(router.chat(x_spillway_privacy="local-only"))
            await engine.arrival()
            abroad = local(second, "second").replace("local: true", "local: false").replace("vllm", "generic")
            price = ", price: {input_per_million: '1', output_per_million: '1'}}"
            await reload(router, settings(local(engine), abroad.removesuffix("}") + price))
            gate.set()
            reply = await running
            assert error_of(reply)["code"] == "local_only_unavailable"
            assert not second.seen


@pytest.mark.parametrize("change", ["revoked", "made private"])
@pytest.mark.parametrize("engine_says", ["unsure", "broken"])
async def test_requests_in_flight_obey_what_becomes_of_their_key(engine_says: str, change: str, tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = scored(-5.0) if engine_says == "unsure" else BROKEN
    async with (
        FaultUpstream(answer.after(gate)) as engine,
        FaultUpstream(STRONG) as strong,
        routing(settings(local(engine), cloud(strong), more=RULE.replace(", audit_share: 1", "")), tmp_path) as router,
    ):
        key = KeyStore(router.ledger.keys).create(KeySpec("k"), b"a" * 6, b"b" * 32, 0)
        running = asyncio.create_task(router.chat(authorization=f"Bearer {key.token}"))
        await engine.arrival()
        await change_key(router, key.record.id, change)
        gate.set()
        reply = await running
        assert not strong.seen
        if engine_says == "unsure":
            assert said(reply) == "local"
        else:
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")


@pytest.mark.parametrize("change", ["revoked", "made private"])
async def test_audits_that_wait_obey_what_becomes_of_their_key(change: str, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        FaultUpstream(scored(-0.001)) as engine,
        FaultUpstream(STRONG.after(gate)) as strong,
        routing(settings(local(engine), cloud(strong), more=RULE), tmp_path) as router,
    ):
        key = KeyStore(router.ledger.keys).create(KeySpec("k"), b"a" * 6, b"b" * 32, 0)
        for _ in range(3):
            assert said(await router.chat(authorization=f"Bearer {key.token}")) == "local"
        await strong.arrival()
        await change_key(router, key.record.id, change)
        gate.set()
        await router.runtime.audits.settled()
        assert len(strong.seen) == 1, "only the audit that was under way"
        assert router.runtime.audits.counts.results["chat", "barred"] == 2


async def change_key(router: Router, key_id: str, change: str) -> None:
    """Revoke a key or make it private, and wait until the router knows."""
    store, clock = KeyStore(router.ledger.keys), router.runtime.services.clock
    if change == "revoked":
        assert store.revoke(key_id, 1)
    else:
        assert store.set(key_id, KeySpec("k", privacy="local-only"), 1)
    before = router.runtime._keys.valid(key_id, clock())
    assert before is not None
    await router.until(lambda: router.runtime._keys.valid(key_id, clock()) != before)


async def test_a_session_that_becomes_private_meanwhile(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with pair(BROKEN.after(gate), STRONG, folder=tmp_path) as (engine, strong, router):
        running = asyncio.create_task(router.chat(x_session_id="s"))
        await engine.arrival()
        private = asyncio.create_task(router.chat(x_session_id="s", x_spillway_privacy="local-only"))
        await router.until(lambda: router.runtime.private_sessions.is_private("", "s"))
        gate.set()
        for reply in (await running, await private):
            assert error_of(reply)["code"] == "local_only_unavailable"
        assert not strong.seen


async def test_a_request_that_turns_out_private_is_answered_by_a_local_backend(tmp_path: Path) -> None:
    async with FaultUpstream(scored(-0.1)) as engine, FaultUpstream(STRONG) as strong:
        text = settings(cloud(strong), local(engine))
        async with routing(text, tmp_path) as one, routing(text, tmp_path) as two:
            assert said(await one.chat(x_session_id="s")) == "strong"
            assert said(await two.chat(x_session_id="s", x_spillway_privacy="local-only")) == "local"
            strong.seen.clear()
            reply = await one.chat(x_session_id="s")
            assert said(reply) == "local"
            assert not strong.seen
            record = (await one.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
            assert record["backend"] == "local"


GUARDS: dict[str, Callable[[Runtime], None]] = {"routing": without_routing_guard, "transport": without_transport_guard}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages/count_tokens")


@pytest.mark.parametrize("guard", GUARDS)
async def test_either_guard_alone_keeps_private_content_here(guard: str, tmp_path: Path) -> None:
    async with FaultUpstream(BROKEN) as engine, FaultUpstream(STRONG) as strong:
        text = settings(local(engine), cloud(strong), more="privacy: {keywords: [secret]}\n" + RULE)
        async with routing(text, tmp_path) as router:
            GUARDS[guard](router.runtime)
            for path in PATHS:
                for marks in ({}, {"x_spillway_privacy": "local-only"}, {"x_session_id": "s"}):
                    for model in ("auto", "cloud", "cloud/cloud-m", "auto:cheapest"):
                        body = {"model": model, **SAID, "prompt": "secret", "input": "secret", "max_tokens": 5}
                        await router.post(body, path, **marks)
            await router.post({"text": "a secret", "parser": "none"}, "/v1/documents/extract")
            assert not strong.seen, json.loads(strong.seen[0].body)


async def test_with_both_guards_off_the_same_requests_would_leave(tmp_path: Path) -> None:
    async with FaultUpstream(BROKEN) as engine, FaultUpstream(STRONG) as strong:
        text = settings(local(engine), cloud(strong), more="privacy: {keywords: [secret]}\n")
        async with routing(text, tmp_path) as router:
            without_routing_guard(router.runtime)
            without_transport_guard(router.runtime)
            assert said(await router.chat(SAID)) == "strong"
            assert strong.seen


async def test_a_pool_refuses_private_calls_unless_it_is_local(tmp_path: Path) -> None:
    async with pair(folder=tmp_path) as (_, _, router):
        routes = router.runtime.services.config().backend_routes
        assert routes["local"].pool.head("/x", 0, private=True)
        with pytest.raises(PrivateContentError):
            routes["cloud"].pool.head("/x", 0, private=True)
        with pytest.raises(PrivateContentError):
            routes["cloud"].pool.uncached_head("GET", "/x", 0, private=True)
