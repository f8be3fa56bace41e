"""Stored answers for similar questions over real sockets. The test chooses the vectors that the embedder gives."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.answers import STRONG

from spillway_router.caching.similar import PAUSE_S
from spillway_router.core.caching.certificate import SemanticCertificate
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.openai_wire import embeddings
from spillway_router.testing.streams import SHAPES
from spillway_router.testing.upstream import Arrival

RESET, REWORDED, OTHER = (
    "How do I reset my password?",
    "What is the way to reset my password?",
    "How do I reset it all?",
)
DEGREES: Mapping[str, float] = {RESET: 0, REWORDED: 10, OTHER: 60}
"""The directions of the vectors. The threshold lies at 20 degrees, and all other texts at 0."""


def embed(arrival: Arrival) -> Answer:
    angle = math.radians(DEGREES.get(arrival.json["input"], 0))
    return Answer.json(embeddings("m", [[3 * math.cos(angle), 3 * math.sin(angle)]], 8))


def certificate(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {"model": "m", "threshold": math.cos(math.radians(20)), "scripts": frozenset({"LATIN"})}
    counts: dict[str, Any] = {"alpha": 0.01, "delta": 0.1, "pairs": 9, "agreeing": 9, "hits": 9, "errors": 0}
    file = folder / "cache-certificate.json"
    file.write_text(SemanticCertificate(**{**values, **counts, **changes}).to_json("2026-01-01"))
    return file


@asynccontextmanager
async def similar(
    folder: Path, clock: Callable[[], float] | None = None, more: str = "", **cache: Any
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, Router]]:
    """A cloud that answers, a local embedder that no request is for, and a router with a semantic cache."""
    semantic = {"embedder": "embedder", "certificate": str(certificate(folder)), "timeout_ms": 5000}
    on = {"enabled": True, "default": True, "semantic": semantic, **cache}
    async with FaultUpstream(STRONG) as other, FaultUpstream() as embedder:
        embedder.choose = embed
        text = f"cache: {json.dumps(on)}\naliases: {{auto: {{chain: [cloud]}}}}\n{more}"
        async with routing(settings(cloud(other), local(embedder, "embedder"), more=text), folder, clock) as router:
            yield other, embedder, router


async def ask(router: Router, text: str, fields: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
    body = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": text}], **(fields or {})}
    reply = await router.post(body, **headers)
    assert reply.status_code == 200, reply.text
    cache = router.runtime.services.config().cache
    assert cache is not None
    await cache.settled()
    return reply


async def note(router: Router, text: str, fields: Mapping[str, Any] | None = None, **headers: str) -> str:
    return (await ask(router, text, fields, **headers)).headers["x-spillway-cache"]


async def test_a_similar_question_gets_the_stored_answer_and_the_books_say_why(tmp_path: Path) -> None:
    async with similar(tmp_path) as (other, embedder, router):
        first, again = await ask(router, RESET), await ask(router, REWORDED)
        assert again.content == first.content
        assert len(other.seen) == 1
        expected = {"decision": "cache", "reason": "semantic", "cache": "hit", "backend": "cloud"}
        assert {name: again.headers[f"x-spillway-{name}"] for name in expected} == expected
        (row,) = router.rows(again)
        assert (row.backend, row.decision, row.reasons, row.amount_nano) == ("cache", "cache", "semantic", 0)
        assert row.saved_nano == router.rows(first)[0].amount_nano > 0
        record = (await router.client.get(f"/v1/requests/{again.headers['x-request-id']}")).json()
        assert record["reasons"] == ["semantic"]
        assert record["cache"]["request_id"] == first.headers["x-request-id"]
        assert record["cache"]["similarity"] == round(math.cos(math.radians(10)), 4)
        assert await note(router, OTHER) == "miss"
        assert (await ask(router, RESET)).headers.get("x-spillway-reason") is None, "the same content needs no vector"
        assert [arrival.json["input"] for arrival in embedder.seen] == [RESET, REWORDED, OTHER]
        report = (await router.client.get("/v1/usage", headers=router.admin)).json()
        assert (report["requests"], report["served"]["answers"]) == (4, 4), "embeddings have no row"
        page = (await router.client.get("/metrics", headers=router.admin)).text
        assert 'spillway_cache_lookups_total{result="semantic"} 1.0' in page


async def test_a_stream_is_replayed_to_a_similar_question(tmp_path: Path) -> None:
    stream = SHAPES["chat"]("alpha")
    async with similar(tmp_path) as (other, _, router):
        other.answer = Answer.stream(stream.body)
        first, again = [await ask(router, text, {"stream": True}) for text in (RESET, REWORDED)]
        assert (again.content, again.headers["x-spillway-cache"]) == (first.content, "hit")
        other.answer = STRONG
        assert await note(router, REWORDED) == "miss", "a whole answer is another form"


@pytest.mark.parametrize(
    ("text", "fields", "headers"),
    [
        ("How do I reset my 2 passwords?", {}, {}),
        ("How do I never reset my password?", {}, {}),
        ("How do I reset my Google password?", {}, {}),
        (REWORDED, {"seed": 1}, {}),
        (REWORDED, {"max_tokens": 9}, {}),
        (REWORDED, {"model": "cloud"}, {}),
        (REWORDED, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {}),
        (REWORDED, {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": REWORDED}]}, {}),
        (REWORDED, {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": REWORDED}]}, {}),
        (REWORDED, {}, {"x_spillway_route": "cloud"}),
        (REWORDED, {}, {"x_spillway_cache": "refresh"}),
    ],
)
async def test_nothing_but_the_wording_may_differ(
    text: str, fields: Mapping[str, Any], headers: Mapping[str, str], tmp_path: Path
) -> None:
    async with similar(tmp_path) as (other, _, router):
        assert await note(router, RESET) == "miss"
        assert await note(router, text, fields, **headers) in ("miss", "refresh")
        assert len(other.seen) == 2
        assert await note(router, REWORDED) == "hit"


async def test_keys_get_nothing_of_each_other(tmp_path: Path) -> None:
    async with similar(tmp_path) as (_, _, router):
        keys = KeyStore(router.ledger.keys)
        specs = (KeySpec("a"), KeySpec("b"))
        tokens = [keys.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0).token for spec in specs]
        for token in tokens:
            assert await note(router, RESET, authorization=f"Bearer {token}") == "miss"
        assert await note(router, REWORDED, authorization=f"Bearer {tokens[0]}") == "hit"


async def test_private_questions_are_embedded_locally_and_stay_apart(tmp_path: Path) -> None:
    async with similar(tmp_path) as (other, own, router):
        own.choose = lambda arrival: embed(arrival) if arrival.path.endswith("/embeddings") else STRONG
        local_model = {"model": "embedder"}
        private = {"x_spillway_privacy": "local-only"}
        assert await note(router, RESET, local_model) == "miss"
        assert [await note(router, text, local_model, **private) for text in (REWORDED, RESET)] == ["miss", "hit"]
        assert other.seen == []


@pytest.mark.parametrize(
    "broken",
    [
        Answer.json({"error": {"message": "down"}}, 503),
        Answer.json({"data": []}),
        Answer.json({"data": [{"embedding": ["x"]}]}),
        Answer.json({"data": [{"embedding": [0.0, 0.0]}]}),
        Answer(b"no JSON"),
        Answer(b"{}", cut=1, end="rst"),
    ],
)
async def test_an_embedder_that_fails_is_a_miss_and_left_alone_for_a_moment(
    broken: Answer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with similar(tmp_path, clock) as (other, embedder, router):
        embedder.choose, embedder.answer = None, broken
        with caplog.at_level(logging.WARNING, "spillway.cache"):
            assert [await note(router, text) for text in (RESET, REWORDED)] == ["miss", "miss"]
            assert (len(embedder.seen), len(other.seen)) == (1, 2)
            embedder.choose = embed
            clock.now_s += PAUSE_S
            assert [await note(router, text, {"seed": 2}) for text in (RESET, REWORDED)] == ["miss", "hit"]
        said = [record.getMessage() for record in caplog.records if record.name == "spillway.cache"]
        assert len(said) == 2
        assert said[0].startswith("embedder embeds no questions, so that similar ones are misses: ")
        assert said[1] == "embedder embeds questions for the cache again"


async def test_a_text_that_the_embedder_refuses_keeps_no_other_one_from_it(tmp_path: Path) -> None:
    async with similar(tmp_path, Clock()) as (_, embedder, router):
        embedder.script.append(Answer.json({"error": {"message": "too long"}}, 400))
        assert [await note(router, text) for text in (OTHER, RESET, REWORDED)] == ["miss", "miss", "hit"]


async def test_a_slow_embedder_is_passed_over(tmp_path: Path) -> None:
    gate = asyncio.Event()
    semantic = {"embedder": "embedder", "certificate": str(certificate(tmp_path)), "timeout_ms": 1}
    async with similar(tmp_path, semantic=semantic) as (_, embedder, router):
        embedder.choose = lambda arrival: embed(arrival).after(gate)
        assert await note(router, RESET) == "miss"
        gate.set()


async def test_an_answer_that_is_forgotten_is_not_given(tmp_path: Path) -> None:
    async with similar(tmp_path, max_mb=0.002, max_answer_mb=0.002) as (other, _, router):
        assert await note(router, RESET) == "miss"
        for seed in range(3):
            assert await note(router, OTHER, {"seed": seed}) == "miss"
        assert await note(router, REWORDED) == "miss"
        assert len(other.seen) == 5


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s
