"""`POST /v1/feedback`: ratings of answers, and better answers on request."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.answers import KEPT, RULE, STRONG, WEAK, said

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer
from spillway_router.testing.harness import MESSAGES, Router, error_of, pair


async def rate(router: Router, **fields: Any) -> httpx.Response:
    return await router.post(fields, "/v1/feedback")


async def test_a_rating_is_stored_and_reported_per_model(tmp_path: Path) -> None:
    async with pair(WEAK, STRONG, more=RULE, folder=tmp_path) as (_, _, router):
        ids = [(await router.chat()).headers["x-request-id"] for _ in range(3)]
        for request_id, rating in zip(ids, ("up", 2, 5), strict=True):
            reply = await rate(router, request_id=request_id, rating=rating, reason="because")
            assert reply.json() == {"request_id": request_id, "recorded": True}
        again = await rate(router, request_id=ids[1], rating="down")
        assert again.status_code == 200
        (opinion,) = router.ledger.feedback.opinions(0, 2**62)
        assert (opinion.backend, opinion.model, opinion.ratings, opinion.satisfied) == ("local", "m", 3, 2)
        usage = (await router.client.get("/v1/usage")).json()
        (row,) = usage["feedback"]
        assert (row["model"], row["ratings"], row["satisfied_share"]) == ("m", 3, pytest.approx(2 / 3))


async def test_an_answer_that_memory_has_forgotten_is_rated_through_the_ledger(tmp_path: Path) -> None:
    async with pair(WEAK, STRONG, more=RULE, folder=tmp_path) as (_, _, router):
        first = await router.chat()
        request_id = first.headers["x-request-id"]
        record = router.runtime.services.records.recent(1)[0]
        for i in range(300):
            facts = replace(record.facts, request_id=f"later_{i}")
            router.runtime.services.records.add(replace(record, facts=facts))
        assert router.runtime.services.records.get(request_id) is None
        assert (await rate(router, request_id=request_id, rating=4)).status_code == 200
        kept = router.ledger.feedback.get(request_id)
        assert kept is not None
        assert (kept.backend, kept.model, kept.rating) == ("local", "m", 4)
        key = KeyStore(router.ledger.keys).create(KeySpec("ann"), b"ann123", bytes(32), 0)
        await router.until(lambda: router.runtime.services.config().auth.verify(key.token, 1e9) is not None)
        named = {"authorization": f"Bearer {key.token}"}
        foreign = await router.post({"request_id": request_id, "rating": 1}, "/v1/feedback", **named)
        assert (foreign.status_code, error_of(foreign)["code"]) == (404, "request_not_found")
        assert kept == router.ledger.feedback.get(request_id)


@pytest.mark.parametrize(
    ("fields", "stars"),
    [
        *(({"rating": n}, n) for n in range(1, 6)),
        ({"rating": "Up"}, 5),
        ({"rating": "bad"}, 1),
        ({"rating": True}, 5),
        ({"rating": False}, 1),
        ({"score": -1, "scale": "thumbs"}, 1),
        ({"score": 0, "scale": "thumbs"}, 3),
        ({"score": 1, "scale": "thumbs"}, 5),
        ({"score": 1.0, "scale": "thumbs"}, 5),
        ({"score": 0, "scale": "binary"}, 1),
        ({"score": 1, "scale": "binary"}, 5),
        ({"score": 4, "scale": "stars"}, 4),
    ],
)
async def test_what_clients_mean_by_a_rating(fields: dict[str, Any], stars: int) -> None:
    async with pair(WEAK, STRONG, more=RULE) as (_, _, router):
        request_id = (await router.chat()).headers["x-request-id"]
        reply = await rate(router, request_id=request_id, **fields)
        assert reply.status_code == 200, reply.text
        kept = router.ledger.feedback.get(request_id)
        assert kept is not None
        assert kept.rating == stars


async def test_a_rejected_thumb_is_answered_with_the_way_to_send_it() -> None:
    async with pair(WEAK, STRONG, more=RULE) as (_, _, router):
        request_id = (await router.chat()).headers["x-request-id"]
        message = error_of(await rate(router, request_id=request_id, rating=-1))["message"]
        assert '"scale": "thumbs"' in message
        assert router.ledger.feedback.get(request_id) is None


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"rating": 1}, 400, "request_id"),
        ({"request_id": "req_unknown", "rating": 1}, 404, "request_id"),
        ({"request_id": "ID"}, 400, "rating"),
        ({"request_id": "ID", "rating": 0}, 400, "rating"),
        ({"request_id": "ID", "rating": -1}, 400, "rating"),
        ({"request_id": "ID", "rating": 3.5}, 400, "rating"),
        ({"request_id": "ID", "rating": {"score": 1}}, 400, "rating"),
        ({"request_id": "ID", "score": 1}, 400, "scale"),
        ({"request_id": "ID", "score": 1, "scale": "percent"}, 400, "scale"),
        ({"request_id": "ID", "score": 1, "scale": ["thumbs"]}, 400, "scale"),
        ({"request_id": "ID", "score": 2, "scale": "thumbs"}, 400, "score"),
        ({"request_id": "ID", "score": True, "scale": "thumbs"}, 400, "score"),
        ({"request_id": "ID", "score": -1, "scale": "binary"}, 400, "score"),
        ({"request_id": "ID", "rating": 1, "score": 1, "scale": "thumbs"}, 400, "score"),
        ({"request_id": "ID", "rating": 1, "scale": "thumbs"}, 400, "scale"),
        ({"request_id": "ID", "rating": "meh"}, 400, "rating"),
        ({"request_id": "ID", "rating": 3, "reason": "x" * 501}, 400, "reason"),
        ({"request_id": "ID", "rating": 3, "retry": "yes"}, 400, "retry"),
        ({"request_id": "ID", "rating": 3, "stars": 1}, 400, "stars"),
        ({"request_id": "ID", "rating": 1, "retry": True}, 409, "retry"),
    ],
)
async def test_invalid_feedback_is_rejected_with_its_field(fields: dict[str, Any], status: int, param: str) -> None:
    async with pair(WEAK, STRONG, more=RULE) as (_, _, router):
        request_id = (await router.chat()).headers["x-request-id"]
        sent = {k: request_id if v == "ID" else v for k, v in fields.items()}
        reply = await rate(router, **sent)
        error = error_of(reply)
        assert (reply.status_code, error["param"]) == (status, param), error


async def test_a_retained_request_is_answered_again_one_tier_up(tmp_path: Path) -> None:
    async with pair(WEAK, STRONG, more=KEPT, folder=tmp_path) as (_, strong, router):
        first = await router.chat({"stream": False, "temperature": 0.5})
        assert said(first) == "weak"
        request_id = first.headers["x-request-id"]
        reply = (await rate(router, request_id=request_id, rating=1, retry=True)).json()
        assert reply["recorded"]
        better = reply["better"]
        assert better["answer"]["choices"][0]["message"]["content"] == "strong"
        assert (better["backend"], better["decision"], better["reasons"]) == ("cloud", "escalated", ["feedback"])
        assert strong.seen[0].json["temperature"] == 0.5
        rows = [e for e in router.ledger.entries_of(better["request_id"]) if e.kind == "charged"]
        assert [(r.backend, r.decision, r.status, r.amount_nano) for r in rows] == [
            ("cloud", "escalated", "ok", 3 * 1000 + 2 * 2000)
        ]
        (opinion,) = router.ledger.feedback.opinions(0, 2**62)
        assert (opinion.backend, opinion.ratings, opinion.better_asked) == ("local", 1, 1)

        over = await rate(router, request_id=better["request_id"], rating=1, retry=True)
        assert over.status_code == 400
        assert "no tier above" in error_of(over)["message"]


async def test_a_client_that_leaves_stops_the_better_answer() -> None:
    async with pair(WEAK, Answer(silent=True, end="hang"), more=KEPT) as (_, strong, router):
        request_id = (await router.chat()).headers["x-request-id"]
        leaving = asyncio.create_task(rate(router, request_id=request_id, rating=1, retry=True))
        arrived = await strong.arrival()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.wait_for(arrived.closed.wait(), 5)
        await router.until(lambda: router.runtime.services.records.recent(1)[0].status == 499)
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_nothing_private_is_retained_or_answered_by_a_cloud() -> None:
    async with pair(WEAK, STRONG, more=KEPT) as (_, strong, router):
        first = await router.chat(x_spillway_privacy="local-only")
        request_id = first.headers["x-request-id"]
        reply = await rate(router, request_id=request_id, retry=True)
        assert (reply.status_code, error_of(reply)["code"]) == (409, "not_retained")
        again = await router.chat(x_spillway_better_than=request_id)
        assert (again.status_code, error_of(again)["code"]) == (503, "local_only_unavailable")
        assert not strong.seen


async def test_the_same_body_again_gets_a_better_answer_without_retention() -> None:
    async with pair(WEAK, STRONG, more=RULE) as (_, strong, router):
        first = await router.chat()
        request_id = first.headers["x-request-id"]
        better = await router.chat(x_spillway_better_than=request_id)
        assert said(better) == "strong"
        assert better.headers["x-spillway-decision"] == "escalated"
        assert better.headers["x-spillway-reason"] == "feedback"
        await router.until(lambda: router.ledger.feedback.get(request_id) is not None)
        kept = router.ledger.feedback.get(request_id)
        assert kept is not None
        assert (kept.better_id, kept.rating) == (better.headers["x-request-id"], None)
        lost = await router.chat(x_spillway_better_than="req_0")
        assert (lost.status_code, error_of(lost)["code"]) == (404, "request_not_found")
        private = await router.chat(x_spillway_better_than=request_id, x_spillway_privacy="local-only")
        assert (private.status_code, error_of(private)["code"]) == (503, "local_only_unavailable")
        assert len(strong.seen) == 1


async def test_null_stands_for_a_field_that_is_left_out() -> None:
    async with pair(WEAK, STRONG, more=RULE) as (_, _, router):
        request_id = (await router.chat()).headers["x-request-id"]
        nulls = dict.fromkeys(("reason", "retry", "score", "scale"))
        assert (await rate(router, request_id=request_id, rating=4, **nulls)).status_code == 200


async def test_a_retry_that_is_refused_gets_the_refusal_in_the_shape_of_anthropic_too() -> None:
    async with pair(WEAK, STRONG, more=KEPT) as (_, _, router):
        reply = await router.post({"model": "cloud", "messages": MESSAGES, "max_tokens": 5}, "/v1/messages")
        refused = await rate(router, request_id=reply.headers["x-request-id"], rating=1, retry=True)
        assert refused.status_code in (400, 503), refused.text
        assert error_of(refused)["message"]
