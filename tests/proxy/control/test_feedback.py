"""What people think of answers, better answers on request, sessions, idempotency keys."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, error_of, local, pair, routing, settings

RULE = "confidence: {threshold: 0.0, escalate_to: [cloud]}\n"
KEPT = RULE + "retention: {minutes: 10}\n"


def answer(text: str) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


WEAK, STRONG = answer("weak"), answer("strong")


def said(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


async def rate(router: Router, **fields: Any) -> httpx.Response:
    return await router.post(fields, "/v1/feedback")


async def test_a_rating_is_kept_and_shown_per_model(tmp_path: Path) -> None:
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


async def test_what_memory_has_forgotten_is_rated_by_the_ledger(tmp_path: Path) -> None:
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
        made = KeyStore(router.ledger).create(KeySpec("ann"), b"ann123", bytes(32), 0)
        await router.until(lambda: router.runtime.services.live().auth.verify(made.token, 1e9) is not None)
        named = {"authorization": f"Bearer {made.token}"}
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


async def test_a_refused_thumb_is_told_how_to_send_it() -> None:
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
async def test_what_can_not_be_taken_is_told(fields: dict[str, Any], status: int, param: str) -> None:
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


async def test_who_leaves_before_the_better_answer_stops_it() -> None:
    async with pair(WEAK, Answer(silent=True, end="hang"), more=KEPT) as (_, strong, router):
        request_id = (await router.chat()).headers["x-request-id"]
        leaving = asyncio.create_task(rate(router, request_id=request_id, rating=1, retry=True))
        arrived = await strong.arrival()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.wait_for(arrived.closed.wait(), 5)
        await router.until(lambda: router.runtime.services.records.recent(1)[0].status == 499)
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_nothing_private_is_kept_or_answered_by_a_cloud() -> None:
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


# Sessions.


async def test_a_session_once_private_stays_private() -> None:
    async with pair(Answer.json({}, 500), STRONG) as (_, strong, router):
        private = await router.chat(x_session_id="s", x_spillway_privacy="local-only")
        assert private.status_code == 503
        later = await router.chat(x_session_id="s")
        assert (later.status_code, error_of(later)["code"]) == (503, "local_only_unavailable")
        assert not strong.seen
        assert said(await router.chat(x_session_id="other")) == "strong"
        assert said(await router.chat()) == "strong"


async def test_a_session_stays_with_its_engine() -> None:
    async with (
        FaultUpstream(answer("one")) as one,
        FaultUpstream(answer("two")) as two,
        routing(settings(local(one, "one"), local(two, "two"))) as router,
    ):
        first = said(await router.chat(x_session_id="s"))
        # What was measured of an engine since may favour the other one; the session's prefix is here.
        for _ in range(6):
            await router.chat()
        assert [said(await router.chat(x_session_id="s")) for _ in range(4)] == [first] * 4


# Idempotency keys.


async def test_the_same_key_is_worked_on_once() -> None:
    gate = asyncio.Event()
    async with pair(WEAK.after(gate), STRONG) as (engine, _, router):
        running = asyncio.create_task(router.chat(idempotency_key="k"))
        await engine.arrival()
        second = await router.chat(idempotency_key="k")
        assert (second.status_code, error_of(second)["code"]) == (409, "idempotency_conflict")
        assert "in progress" in error_of(second)["message"]
        gate.set()
        first = await running
        assert said(first) == "weak"
        third = await router.chat(idempotency_key="k")
        assert third.status_code == 409
        assert first.headers["x-request-id"] in error_of(third)["message"]
        other = await router.chat({"temperature": 1}, idempotency_key="k")
        assert "another body" in error_of(other)["message"]
        assert said(await router.chat(idempotency_key="k2")) == "weak"
        assert len(engine.seen) == 2


async def test_with_retention_an_answer_is_repeated() -> None:
    async with pair(WEAK, STRONG, more=KEPT) as (engine, _, router):
        first = await router.chat(idempotency_key="k")
        again = await router.chat(idempotency_key="k")
        assert again.content == first.content
        assert again.headers["x-request-id"] == first.headers["x-request-id"]
        assert len(engine.seen) == 1
        await router.chat(idempotency_key="p", x_spillway_privacy="local-only")
        assert (await router.chat(idempotency_key="p", x_spillway_privacy="local-only")).status_code == 409


async def test_a_failure_frees_its_key() -> None:
    async with FaultUpstream(WEAK) as engine, routing(settings(local(engine))) as router:
        engine.script.append(Answer.json({"error": {"message": "no"}}, 500))
        assert (await router.chat(idempotency_key="k")).status_code == 502
        assert said(await router.chat(idempotency_key="k")) == "weak"
        assert (await router.chat(idempotency_key="x" * 257)).status_code == 400


# Audits.


def scored(text: str, logprob: float) -> Answer:
    score = {"content": [{"token": text, "logprob": logprob, "top_logprobs": []}]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": score, "finish_reason": "stop"}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


AUDITED = "confidence: {threshold: 0.5, escalate_to: [cloud], audit_share: 1.0}\n"


async def test_audits_are_paid_compared_and_thrown_away(tmp_path: Path) -> None:
    async with pair(scored("forty two", -0.1), answer("Forty two."), more=AUDITED, folder=tmp_path) as (
        _,
        strong,
        router,
    ):
        audits = router.runtime.services.audits
        reply = await router.chat()
        assert said(reply) == "forty two"
        await audits.settled()
        assert "logprobs" not in strong.seen[0].json
        await router.until(lambda: len(router.rows(reply)) == 2)
        mine, audit = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert (mine.status, mine.decision) == ("ok", "local")
        assert (audit.backend, audit.decision, audit.status) == ("cloud", "audit", "discarded")
        assert audit.amount_nano == 3 * 1000 + 2 * 2000
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (1, 0)

        strong.answer = answer("no idea")
        await router.chat({"stream": False})
        await audits.settled()
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (2, 1)
        labels = list(router.ledger.labels.all())
        assert [(row.task, row.backend, row.model, row.judge, row.right) for row in labels] == [
            ("chat", "local", "m", "cloud", True),
            ("chat", "local", "m", "cloud", False),
        ]
        assert json.loads(labels[0].scores)["min"] == pytest.approx(-0.1)
        assert "forty" not in str(labels)
        assert audits.threshold(router.runtime.services.live()) > 0.5
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_what_may_not_leave_is_not_audited() -> None:
    async with pair(scored("a", -0.1), STRONG, more=AUDITED) as (_, strong, router):
        await router.chat(x_spillway_privacy="local-only")
        await router.chat({"model": "local/m"})
        await router.chat({"provider": {"allow_fallbacks": False}})
        await router.chat(x_spillway_route="local")
        await router.runtime.services.audits.settled()
        assert not strong.seen


async def test_a_budget_that_is_used_up_stops_audits(tmp_path: Path) -> None:
    more = AUDITED + "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with pair(scored("a", -0.1), STRONG, more=more, folder=tmp_path) as (_, strong, router):
        await router.chat()
        await router.runtime.services.audits.settled()
        assert not strong.seen
        assert router.runtime.services.audits.state.unasked == 1


async def test_streams_are_audited_too_and_wrong_ones_close_the_gate() -> None:
    """Every answer is wrong: soon none is kept, and the certificate is called back once."""
    score = {"content": [{"token": "bad", "logprob": -0.05, "top_logprobs": []}]}
    delta = {"index": 0, "delta": {"content": "bad"}, "logprobs": score, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    body = b"".join(b"data: " + json.dumps({"choices": [c]}).encode() + b"\n\n" for c in (delta, end))
    says = Answer.stream(body + b"data: [DONE]\n\n")
    async with pair(says, answer("something else altogether"), more=AUDITED) as (_, _, router):
        audits = router.runtime.services.audits
        for _ in range(6):
            await router.chat({"stream": True, "messages": MESSAGES})
            await audits.settled()
        assert audits.state.drift.wrong == audits.state.drift.audits > 0
        assert audits.state.drift.revoked
        assert audits.threshold(router.runtime.services.live()) > 1


async def test_audits_find_the_same_in_other_words() -> None:
    async with (
        FaultUpstream(scored('{"a": 1, "b": "x"}', -0.1)) as engine,
        FaultUpstream(answer('```json\n{"b": "x ", "a": 1.0}\n```')) as other,
        routing(settings(local(engine), cloud(other), more=AUDITED)) as router,
    ):
        await router.chat()
        audits = router.runtime.services.audits
        await audits.settled()
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (1, 0)
