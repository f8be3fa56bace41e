"""The cache on requests over real sockets: who gets a stored answer, in which form, and what the books say of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.proxy.answers import STRONG, WEAK, said

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, Router, cloud, error_of, local, pair, routing, settings
from spillway_router.testing.streams import SHAPES, USAGE, Stream, delta

ON = "cache: {enabled: true, default: true}\n"
COLD = {"temperature": 0}
USAGE_COST = {"x_spillway_usage_cost": "true"}


async def settled(router: Router) -> None:
    """Wait until the answers so far are stored."""
    cache = router.runtime.services.config().cache
    assert cache is not None
    await cache.settled()


async def outcome(router: Router, fields: Mapping[str, Any] | None = None, **headers: str) -> str:
    """What the header says of the cache."""
    reply = await router.chat({**COLD, **(fields or {})}, **headers)
    assert reply.status_code == 200, reply.text
    await settled(router)
    return reply.headers.get("x-spillway-cache", "")


def key(router: Router, name: str, **options: Any) -> dict[str, str]:
    spec = KeySpec(name, **options)
    new = KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
    return {"authorization": f"Bearer {new.token}"}


async def test_the_second_request_gets_the_stored_answer_at_no_cost(tmp_path: Path) -> None:
    async with FaultUpstream(STRONG) as other, routing(settings(cloud(other), more=ON), tmp_path) as router:
        first = await router.chat(COLD)
        await settled(router)
        again = await router.chat({**COLD, "user": "somebody"})
        assert (said(first), again.content) == ("strong", first.content)
        assert len(other.seen) == 1
        assert {name: again.headers[f"x-spillway-{name}"] for name in ("decision", "backend", "model", "cost-usd")} == {
            "decision": "cache",
            "backend": "cloud",
            "model": "cloud-m",
            "cost-usd": "0.000000",
        }
        assert (again.headers["x-spillway-attempts"], again.headers["x-spillway-cache"]) == ("0", "hit")
        assert int(again.headers["age"]) >= 0
        (row,) = router.rows(again)
        (paid,) = router.rows(first)
        assert (row.backend, row.decision, row.status, row.amount_nano) == ("cache", "cache", "ok", 0)
        assert row.saved_nano == paid.amount_nano > 0
        assert (row.model, row.prompt_tokens, row.completion_tokens) == ("cloud-m", 3, 2)
        record = (await router.client.get(f"/v1/requests/{again.headers['x-request-id']}")).json()
        assert (record["decision"], record["attempts"], record["cost_usd"]) == ("cache", [], "0.000000")
        assert record["cache"]["request_id"] == first.headers["x-request-id"]
        report = (await router.client.get("/v1/usage", headers=router.admin)).json()
        assert report["cache"] == {
            "answers": 1,
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "saved_nano": paid.amount_nano,
            "saved_usd": first.headers["x-spillway-cost-usd"],
        }
        assert (report["requests"], report["served"]["answers"], report["cloud"]["served"]["answers"]) == (2, 2, 1)
        page = (await router.client.get("/metrics", headers=router.admin)).text
        assert 'spillway_cache_lookups_total{result="hit"} 1.0' in page
        assert 'spillway_requests_total{backend="cloud",decision="cache",status="200"} 1.0' in page


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_is_replayed_as_the_stream_that_it_was(shape: str) -> None:
    stream: Stream = SHAPES[shape]("alpha")
    async with (
        FaultUpstream(Answer.stream(stream.body, piece=7)) as own,
        routing(settings(local(own), more=ON)) as router,
    ):
        body = {"model": "auto", "stream": True, **stream.fields, **COLD, "store": False}
        first = await router.post(body, stream.path)
        await settled(router)
        again = await router.post(body, stream.path)
        assert first.status_code == 200, first.text
        assert (again.content, again.headers["content-type"]) == (first.content, first.headers["content-type"])
        assert (again.headers["x-spillway-cache"], len(own.seen)) == ("hit", 1)
        whole = await router.post({**body, "stream": False}, stream.path)
        assert whole.headers["x-spillway-cache"] == "miss", "a whole answer is another form"


async def test_the_cost_of_a_stored_answer_is_told_as_zero() -> None:
    events = delta({"role": "assistant", "content": ""}) + delta({"content": "alpha"}) + delta({}, "stop") + USAGE
    async with FaultUpstream(STRONG) as other, routing(settings(cloud(other), more=ON)) as router:
        costs = []
        for fields, answer in (
            ({}, STRONG),
            ({"stream": True, "stream_options": {"include_usage": True}}, Answer.stream(events)),
        ):
            other.answer = answer
            for _ in range(2):
                reply = await router.chat({**COLD, **fields}, **USAGE_COST)
                await settled(router)
                lines = [line for line in reply.text.splitlines() if '"usage"' in line]
                costs.append(json.loads(lines[-1].removeprefix("data: "))["usage"]["cost"])
        assert (costs[0] > 0, costs[2] > 0, costs[1], costs[3]) == (True, True, 0, 0)
        assert len(other.seen) == 2


async def test_an_sdk_reads_stored_answers_and_streams() -> None:
    stream: Stream = SHAPES["chat"]("alpha")
    async with FaultUpstream(STRONG) as own, routing(settings(local(own), more=ON)) as router:
        async with openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0) as sdk:
            ask: Any = {"model": "auto", "messages": [{"role": "user", "content": "?"}], "temperature": 0}
            whole = []
            for _ in range(2):
                whole.append((await sdk.chat.completions.create(**ask)).choices[0].message.content)
                await settled(router)
            own.answer = Answer.stream(stream.body)
            texts = []
            for _ in range(2):
                events = [event async for event in await sdk.chat.completions.create(stream=True, **ask)]
                await settled(router)
                texts.append("".join(e.choices[0].delta.content or "" for e in events if e.choices))
        assert (whole, texts, len(own.seen)) == (["strong"] * 2, ["alpha!"] * 2, 2)


async def test_requests_say_what_they_ask_of_the_cache() -> None:
    async with FaultUpstream(STRONG) as own, routing(settings(local(own), more=ON)) as router:
        assert [await outcome(router) for _ in range(2)] == ["miss", "hit"]
        assert await outcome(router, x_spillway_cache="off") == ""
        assert await outcome(router, x_spillway_cache="refresh") == "refresh"
        assert await outcome(router, {"temperature": 1}) == "bypass; sampled"
        warm = {"temperature": 1}
        assert [await outcome(router, warm, x_spillway_cache="sampled") for _ in range(2)] == ["miss", "hit"]
        assert await outcome(router, {"tools": [{"type": "web_search"}]}) == "bypass; tools"
        assert await outcome(router, {"pad": "x" * 300_000}) == "bypass; large"
        refused = await router.chat(COLD, x_spillway_cache="yes")
        assert (refused.status_code, "use, sampled, refresh or off" in error_of(refused)["message"]) == (400, True)


async def test_the_cache_is_off_unless_it_is_switched_on_and_asked_for() -> None:
    async with FaultUpstream(STRONG) as own:
        async with routing(settings(local(own))) as router:
            replies = [await router.chat(COLD, x_spillway_cache="use") for _ in range(2)]
            assert ["x-spillway-cache" in reply.headers for reply in replies] == [False, False]
        async with routing(settings(local(own), more="cache: {enabled: true}\n")) as router:
            assert [await outcome(router) for _ in range(2)] == ["", ""]
            assert [await outcome(router, x_spillway_cache="use") for _ in range(2)] == ["miss", "hit"]


async def test_keys_and_tiers_are_switched_and_get_nothing_of_each_other(tmp_path: Path) -> None:
    async with FaultUpstream(STRONG) as own, routing(settings(local(own)), tmp_path) as router:
        paid, other, free = key(router, "a", tier="paid"), key(router, "b", tier="paid"), key(router, "c", tier="free")
        named = paid["authorization"].removeprefix("Bearer ")
        key_id = next(record.id for record in router.ledger.keys.all() if record.id in named)
        scopes = f"{{'key:{key_id}': true, 'tier:paid': true, 'tier:free': false}}"
        router.path.write_text(router.path.read_text() + f"cache: {{enabled: true, default: true, scopes: {scopes}}}\n")
        assert (await router.reload()).status_code == 200
        assert [await outcome(router, **who) for who in (paid, other, free, paid, free)] == ["miss"] * 2 + [
            "",
            "hit",
            "",
        ]


async def test_a_key_gets_no_answer_of_a_backend_that_it_may_not_use_any_more(tmp_path: Path) -> None:
    async with pair(STRONG, STRONG, more=ON, folder=tmp_path) as (_, other, router):
        who = key(router, "a", may_route=True)
        ask = {**COLD, "model": "cloud"}
        assert [await outcome(router, ask, **who) for _ in range(2)] == ["miss", "hit"]
        (record,) = [record for record in router.ledger.keys.all() if record.name == "a"]
        assert KeyStore(router.ledger.keys).set(record.id, KeySpec("a", may_route=True, backends=("local",)), 1)
        async with asyncio.timeout(LIMIT_S):  # a router reads the keys again every second
            while (reply := await router.chat(ask, **who)).status_code == 200:
                assert reply.headers["x-spillway-decision"] == "cache"
        assert (reply.status_code, len(other.seen)) == (403, 1)


async def test_private_answers_stay_in_memory_and_apart(tmp_path: Path) -> None:
    private = {"x_spillway_privacy": "local-only"}
    async with FaultUpstream(STRONG) as own:
        async with routing(settings(local(own), more=ON)) as router:
            assert [await outcome(router, **private) for _ in range(2)] == ["miss", "hit"]
            assert await outcome(router) == "miss"
        stored = (
            f"cache: {{enabled: true, default: true, timeout_ms: 5000, store: 'sqlite:///{tmp_path / 'cache.db'}'}}\n"
        )
        async with routing(settings(local(own), more=stored)) as router:
            assert [await outcome(router, **private) for _ in range(2)] == ["bypass; privacy"] * 2
            assert [await outcome(router) for _ in range(2)] == ["miss", "hit"]
            assert b"strong" in (tmp_path / "cache.db").read_bytes() + (tmp_path / "cache.db-wal").read_bytes()


async def test_only_complete_answers_within_the_bound_are_stored() -> None:
    small = "cache: {enabled: true, default: true, max_answer_mb: 0.0001}\n"
    begun = delta({"role": "assistant", "content": ""}) + delta({"content": "alpha"})
    async with FaultUpstream(STRONG) as own, routing(settings(local(own), more=small)) as router:
        assert [await outcome(router) for _ in range(2)] == ["miss", "miss"]
    async with FaultUpstream(Answer.stream(begun, end="fin")) as own, routing(settings(local(own), more=ON)) as router:
        for _ in range(2):
            broken = await router.chat({**COLD, "stream": True})
            assert b"upstream_interrupted" in broken.content
            await settled(router)
            assert broken.headers["x-spillway-cache"] == "miss"
        own.answer = Answer.json({"error": {"message": "no"}}, 400)
        assert [(await router.chat(COLD)).status_code for _ in range(2)] == [400, 400]


async def test_an_answer_is_given_again_only_for_its_time_and_by_the_same_policy(tmp_path: Path) -> None:
    async with FaultUpstream(STRONG) as own, routing(settings(local(own), more=ON), tmp_path) as router:
        assert [await outcome(router) for _ in range(2)] == ["miss", "hit"]
        router.path.write_text(router.path.read_text() + "slo: {ttft_ms: 1234}\n")
        assert (await router.reload()).status_code == 200
        assert [await outcome(router) for _ in range(2)] == ["miss", "hit"]
        short = router.path.read_text().replace("default: true", "default: true, ttl_s: 0.001")
        router.path.write_text(short)
        assert (await router.reload()).status_code == 200
        assert await outcome(router) == "miss"
        await asyncio.sleep(0.01)
        assert await outcome(router) == "miss"


async def test_an_escalated_answer_is_what_is_stored() -> None:
    rule = "confidence: {threshold: 0.9, escalate_to: [cloud]}\n" + ON
    async with pair(WEAK, STRONG, more=rule) as (_, other, router):
        first = await router.chat({**COLD, "logprobs": False}, x_spillway_min_confidence="0.99")
        await settled(router)
        again = await router.chat({**COLD, "logprobs": False}, x_spillway_min_confidence="0.99")
        assert (said(again), again.headers["x-spillway-backend"]) == (said(first), first.headers["x-spillway-backend"])
        assert again.headers["x-spillway-decision"] == "cache"
        assert len(other.seen) <= 1


async def test_a_full_budget_and_a_dead_backend_keep_nobody_from_a_stored_answer() -> None:
    async with FaultUpstream(STRONG) as other, routing(settings(cloud(other), more=ON)) as router:
        assert await outcome(router) == "miss"
        other.answer = Answer.json({"error": {"message": "down"}}, 503)
        failed = await router.chat({**COLD, "seed": 1})
        assert failed.status_code >= 500
        assert await outcome(router) == "hit"


async def test_stored_answers_count_as_requests_of_their_key_but_use_no_tokens(tmp_path: Path) -> None:
    credits = ON + "credits: [{scope: each key, period: month, requests: 3}]\n"
    async with FaultUpstream(STRONG) as other, routing(settings(cloud(other), more=credits), tmp_path) as router:
        limited, free = key(router, "a", tokens_per_minute=5_000), key(router, "b")
        assert [await outcome(router, **limited) for _ in range(2)] == ["miss", "hit"]
        assert await outcome(router, **free) == "miss"
        other.answer = Answer.json({"error": {"message": "down"}}, 503)
        for seed in range(4):  # now nobody is left to ask, and what fails gives its credit back
            assert (await router.chat({**COLD, "seed": seed}, **free)).status_code >= 500
        assert await outcome(router, **limited) == "hit"
        used_up = await router.chat(COLD, **limited)
        assert (used_up.status_code, error_of(used_up)["code"]) == (402, "budget_exceeded")


async def test_identical_requests_at_once_all_ask_and_the_next_one_hits() -> None:
    gate = asyncio.Event()
    async with FaultUpstream(STRONG.after(gate)) as own, routing(settings(local(own), more=ON)) as router:
        asking: list[asyncio.Task[httpx.Response]] = [asyncio.create_task(router.chat(COLD)) for _ in range(3)]
        await router.until(lambda: len(own.seen) == 3)
        gate.set()
        assert [said(await one) for one in asking] == ["strong"] * 3
        await settled(router)
        assert await outcome(router) == "hit"


async def test_embeddings_are_stored_too() -> None:
    vectors = Answer.json(
        {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    )
    async with FaultUpstream(vectors) as own, routing(settings(local(own), more=ON)) as router:
        results = []
        for text in ("one", "one", "two"):
            reply = await router.post({"model": "auto", "input": text}, "/v1/embeddings")
            await settled(router)
            results.append(reply.headers["x-spillway-cache"])
        assert results == ["miss", "hit", "miss"]
