"""Streams of a local engine are held back until they are sure enough; otherwise only the next tier up answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.proxy.helpers import asking

from spillway_router.proxy.exchange.held_stream import tokens_to_hold
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import (
    LIMIT_S,
    MESSAGES,
    Router,
    cloud,
    escalating,
    events,
    local,
    routing,
    settings,
)
from spillway_router.testing.streams import DONE, data, delta

RULE = "confidence: {threshold: 0.8, escalate_to: [cloud], hold_tokens: 2}\n"
SURE, UNSURE = -0.01, -3.0
USAGE = data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})


def token(text: str, logprob: float, key: str = "content") -> bytes:
    """Return an event of one token with its log-probability."""
    score = {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}]}
    piece: dict[str, Any] = {"content": text}
    if key == "tool":
        piece = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
    choice = {"index": 0, "delta": piece, "logprobs": {"content": [score]}, "finish_reason": None}
    return data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def weak(
    logprobs: Sequence[float], *, whole: bool = True, texts: Sequence[str] | None = None, key: str = "content"
) -> bytes:
    """Return a local stream with one token per number; it has no end unless `whole`."""
    texts = texts or [f"w{i} " for i in range(len(logprobs))]
    body = delta({"role": "assistant", "content": ""})
    body += b"".join(token(text, logprob, key) for text, logprob in zip(texts, logprobs, strict=True))
    return body + delta({}, "stop") + USAGE + DONE if whole else body


STRONG = delta({"role": "assistant", "content": ""}) + delta({"content": "strong"}) + delta({}, "stop") + USAGE + DONE


def setup(
    engine_says: Answer, strong: Answer | None = None, folder: Path | None = None, more: str = RULE
) -> AbstractAsyncContextManager[tuple[FaultUpstream, FaultUpstream, Router]]:
    return escalating(FaultUpstream(engine_says), strong or Answer.stream(STRONG), rule=more, folder=folder)


async def release_held(router: Router, engine: FaultUpstream, body: bytes, fields: dict[str, Any]) -> httpx.Response:
    """Return the reply to a stream whose third token comes only once the client has the head of its answer."""
    gate = asyncio.Event()
    engine.answer = Answer.stream(body).pausing(body.index(b"w2 ") - 100, gate)
    sent = {"model": "auto", "messages": MESSAGES, "stream": True, **fields}
    async with router.client.stream("POST", "/v1/chat/completions", json=sent) as reply:
        gate.set()
        await reply.aread()
        return reply


async def stream(router: Router, fields: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return await router.chat({"stream": True, **(fields or {})}, **headers)


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    sse_events = events(reply)
    assert sse_events[-1] == b"[DONE]"
    choices = [c for e in sse_events[:-1] for c in json.loads(e)["choices"]]
    return "".join(c["delta"].get("content") or "" for c in choices)


async def test_a_doubtful_stream_is_escalated_before_its_first_byte(tmp_path: Path) -> None:
    says = Answer.stream(weak([UNSURE, UNSURE], whole=False), end="hang")
    async with setup(says, folder=tmp_path) as (engine, strong, router):
        reply = await stream(router)
        assert text_of(reply) == "strong"
        assert reply.headers["x-spillway-decision"] == "escalated"
        assert reply.headers["x-spillway-reason"] == "confidence"
        assert reply.headers["x-spillway-backend"] == "cloud"
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(math.exp(UNSURE), abs=1e-4)
        assert engine.seen[0].json["logprobs"] is True
        assert "logprobs" not in strong.seen[0].json
        await router.until(engine.seen[0].closed.is_set)
        draft, better = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert (draft.backend, draft.status, draft.amount_nano) == ("local", "discarded", 0)
        assert draft.completion_tokens >= 2
        assert draft.gpu_us > 0
        assert draft.confidence == pytest.approx(math.exp(UNSURE))
        assert (better.backend, better.status, better.decision) == ("cloud", "ok", "escalated")
        assert better.amount_nano == 3 * 1000 + 4 * 2000
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_a_sure_stream_stays_without_its_logprobs() -> None:
    for piece in (0, 1, 7, 64):
        async with setup(Answer.stream(weak([SURE] * 5), piece=piece)) as (_, strong, router):
            reply = await stream(router)
            assert text_of(reply) == "w0 w1 w2 w3 w4 "
            assert b'"logprob"' not in reply.content
            assert b"usage" not in reply.content
            assert b"spillway" not in reply.content
            assert reply.headers["x-spillway-decision"] == "local"
            assert float(reply.headers["x-spillway-confidence"]) > 0.9
            assert not strong.seen
            assert [(r.status, r.decision, r.completion_tokens) for r in router.rows(reply)] == [("ok", "local", 4)]


async def test_logprobs_that_were_asked_for_pass_untouched() -> None:
    body = weak([SURE] * 4)
    async with setup(Answer.stream(body)) as (engine, _, router):
        asked = {"logprobs": True, "stream_options": {"include_usage": True}}
        reply = await stream(router, asked, x_spillway_min_confidence="0.5")
        assert "top_logprobs" not in engine.seen[0].json
        assert reply.content.startswith(body.removesuffix(USAGE + DONE))


async def test_low_confidence_after_the_commit_is_told_at_the_end() -> None:
    body = weak([SURE, SURE, *[UNSURE] * 20])
    async with setup(Answer.stream(body)) as (engine, strong, router):
        for usage_asked in (False, True):
            fields = {"stream_options": {"include_usage": True}} if usage_asked else {}
            reply = await release_held(router, engine, body, fields)
            assert text_of(reply).startswith("w0 w1 w2 ")
            assert reply.headers["x-spillway-decision"] == "local"
            assert float(reply.headers["x-spillway-confidence"]) > 0.9
            last = json.loads(events(reply)[-2])
            assert last["choices"] == []
            assert ("usage" in last) == usage_asked
            assert last["spillway"]["confidence"] == pytest.approx(math.exp(UNSURE), abs=1e-3)
            record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
            assert record["confidence"] == pytest.approx(math.exp(UNSURE))
            assert "confidence" in record["reasons"]
        assert not strong.seen


async def test_the_sdk_reads_over_what_is_told_at_the_end() -> None:
    body, gate = weak([SURE, SURE, *[UNSURE] * 20]), asyncio.Event()
    says = Answer.stream(body).pausing(body.index(b"w2 ") - 100, gate)
    async with setup(says) as (_, _, router):
        async with openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="x", max_retries=0) as client:
            reply = await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "?"}], stream=True
            )
            gate.set()
            chunks = [chunk async for chunk in reply]
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert said.split() == [f"w{i}" for i in range(22)]
        extra = chunks[-1].model_extra
        assert extra is not None
        assert extra["spillway"]["decision"] == "local"


@pytest.mark.parametrize("kind", ["json", "tool"])
@pytest.mark.parametrize("last", [SURE, UNSURE])
async def test_documents_and_tool_calls_are_judged_whole(kind: str, last: float) -> None:
    """The last value of a document matters as much as its first."""
    texts = ['{"a": ', "12", ', "b": ', "34", "}"]
    logprobs = [SURE, SURE, SURE, last, SURE]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    fields = {"response_format": {"type": "json_object"}} if kind == "json" else {"tools": [tool]}
    body = weak(logprobs, texts=texts, key="tool" if kind == "tool" else "content")
    for piece in (0, 50):
        async with setup(Answer.stream(body, piece=piece)) as (_, strong, router):
            reply = await stream(router, fields)
            assert reply.content.endswith(DONE)
            assert bool(strong.seen) == (last == UNSURE)
            assert (b"strong" in reply.content) == (last == UNSURE)
            assert (b"34" in reply.content) == (last == SURE)
            if last == UNSURE:
                draft = min(router.rows(reply), key=lambda row: row.attempt_no)
                assert (draft.status, draft.completion_tokens) == ("discarded", 4)


FAILURES = {
    "500": Answer.json({"error": {"message": "no"}}, 500),
    "reset": Answer(silent=True, end="rst"),
    "silence": Answer(silent=True, end="hang"),
    "no content": Answer.stream(delta({"role": "assistant"}), end="fin"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_when_the_cloud_fails_the_held_stream_stands(name: str, tmp_path: Path) -> None:
    more = RULE + "limits: {first_event_s: 0.4}\n"
    async with setup(Answer.stream(weak([UNSURE] * 6)), FAILURES[name], tmp_path, more) as (_, strong, router):
        reply = await stream(router)
        assert text_of(reply) == "w0 w1 w2 w3 w4 w5 "
        assert reply.headers["x-spillway-backend"] == "local"
        assert "confidence" in reply.headers["x-spillway-reason"]
        assert len(strong.seen) == 1
        rows = {r.backend: r for r in router.rows(reply)}
        assert (rows["local"].status, rows["local"].completion_tokens) == ("ok", 4)
        assert rows["cloud"].status in ("error", "unknown", "")
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_a_better_stream_that_breaks_off_is_not_mended_with_the_draft(tmp_path: Path) -> None:
    broken = Answer.stream(delta({"content": "str"}), end="rst")
    async with setup(Answer.stream(weak([UNSURE] * 6)), broken, tmp_path) as (_, _, router):
        reply = await stream(router)
        assert b"str" in reply.content
        assert b"w0" not in reply.content
        assert reply.content.count(b"upstream_interrupted") == 1
        assert DONE not in reply.content
        assert {r.backend: r.status for r in router.rows(reply)}["local"] == "discarded"


async def test_an_engine_that_dies_while_held_is_a_failover(tmp_path: Path) -> None:
    says = Answer.stream(weak([SURE], whole=False), end="rst")
    async with setup(says, folder=tmp_path) as (_, _, router):
        reply = await stream(router)
        assert text_of(reply) == "strong"
        assert reply.headers["x-spillway-decision"] == "fallback"
        first, second = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert (first.backend, first.status, first.amount_nano) == ("local", "error", 0)
        assert (second.backend, second.status, second.amount_nano) == ("cloud", "ok", 3 * 1000 + 4 * 2000)


async def test_who_leaves_while_the_stream_is_held_stops_the_engine(tmp_path: Path) -> None:
    says = Answer.stream(weak([SURE], whole=False), end="hang")
    async with setup(says, folder=tmp_path) as (engine, strong, router):
        async with asking(router, {"stream": True}):
            arrived = await engine.arrival()
            await router.until(lambda: _first_token(router))
        await asyncio.wait_for(arrived.closed.wait(), LIMIT_S)
        await router.until(lambda: bool(router.runtime.services.records.recent(1)))
        (record,) = router.runtime.services.records.recent(1)
        await router.until(lambda: bool(router.ledger.entries_of(record.facts.request_id)))
        (row,) = router.ledger.entries_of(record.facts.request_id)
        assert (row.backend, row.status, row.amount_nano) == ("local", "aborted", 0)
        assert row.completion_tokens >= 1
        assert not strong.seen


async def test_who_leaves_while_the_better_answer_is_sought_ends_both(tmp_path: Path) -> None:
    says = Answer.stream(weak([UNSURE, UNSURE], whole=False), end="hang")
    async with setup(says, Answer(silent=True, end="hang"), tmp_path) as (engine, strong, router):
        async with asking(router, {"stream": True}):
            first, second = await engine.arrival(), await strong.arrival()
        for arrived in (first, second):
            await asyncio.wait_for(arrived.closed.wait(), LIMIT_S)
        await router.until(lambda: bool(router.runtime.services.records.recent(1)))
        (record,) = router.runtime.services.records.recent(1)
        await router.until(lambda: len(router.ledger.entries_of(record.facts.request_id)) == 3)
        rows = {r.backend: r for r in router.ledger.entries_of(record.facts.request_id) if r.kind != "reserved"}
        assert (rows["local"].status, rows["local"].completion_tokens) == ("discarded", 3)
        assert rows["cloud"].kind in ("charged", "released")
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


def _first_token(router: Router) -> bool:
    backend = router.runtime.board.current(router.runtime.services.clock() + 1).backends["local"]
    in_flight = router.runtime.board.in_flight()["local"]
    return in_flight == 1 and backend.backlog is not None and backend.backlog.waiting_first_token == 0


async def test_a_budget_that_is_used_up_keeps_the_draft(tmp_path: Path) -> None:
    more = RULE + "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with setup(Answer.stream(weak([UNSURE] * 4)), folder=tmp_path, more=more) as (_, strong, router):
        reply = await stream(router)
        assert text_of(reply) == "w0 w1 w2 w3 "
        assert {"confidence", "budget"} <= set(reply.headers["x-spillway-reason"].split(","))
        assert not strong.seen
        (row,) = router.rows(reply)
        assert (row.status, row.decision) == ("ok", "local")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": "local/m"}, {}),
        ({"provider": {"allow_fallbacks": False}}, {}),
        ({}, {"x_spillway_route": "local"}),
        ({}, {"x_spillway_privacy": "local-only"}),
    ],
)
async def test_what_can_not_be_escalated_is_not_held_back(fields: dict[str, Any], headers: dict[str, str]) -> None:
    """The first token is seen although the second never comes."""
    says = Answer.stream(weak([UNSURE], whole=False), end="hang")
    more = RULE + "limits: {stall_s: 0.3}\n"
    async with setup(says, more=more) as (_, strong, router):
        reply = await stream(router, fields, **headers)
        assert b"w0" in reply.content
        assert reply.content.count(b"upstream_interrupted") == 1
        assert not strong.seen


async def test_with_nothing_to_hold_the_first_token_goes_out_at_once() -> None:
    more = "confidence: {threshold: 0.8, escalate_to: [cloud], hold_tokens: 0}\n"
    body = weak([UNSURE] * 4)
    async with setup(Answer.stream(body), more=more) as (engine, strong, router):
        reply = await release_held(router, engine, body, {})
        assert text_of(reply) == "w0 w1 w2 w3 "
        assert json.loads(events(reply)[-2])["spillway"]["confidence"] < 0.1
        assert not strong.seen


@pytest.mark.parametrize(("slack_s", "step_s", "tokens"), [(-1, 0.1, 1), (0.35, 0.1, 4), (9, 0.1, 64), (0.01, 0.1, 1)])
def test_as_many_tokens_are_held_as_the_promise_leaves_time_for(slack_s: float, step_s: float, tokens: int) -> None:
    assert tokens_to_hold(slack_s, step_s) == tokens


async def test_past_the_promised_time_the_client_is_kept_waiting_visibly() -> None:
    """The 200 and comments come while the engine and the better answer are silent; then a single answer follows."""
    more = RULE + "slo: {ttft_ms: 30}\nlimits: {stall_s: 0.4}\n"
    says = Answer.stream(weak([SURE], whole=False), end="hang")
    async with setup(says, more=more) as (_, _, router):
        reply = await stream(router)
        assert reply.content.startswith(b": waiting\n\n")
        assert text_of(reply) == "strong"
        assert "x-spillway-backend" not in reply.headers
        summary = json.loads(events(reply)[-2])["spillway"]
        assert (summary["backend"], summary["decision"]) == ("cloud", "fallback")

    dead = Answer(silent=True, end="rst")
    async with setup(says, dead, more=more) as (_, _, router):
        reply = await stream(router)
        assert reply.status_code == 200
        assert reply.content.startswith(b": waiting\n\n")
        assert reply.content.count(b"upstream_interrupted") == 1
        assert b"w0" not in reply.content
        assert DONE not in reply.content


async def test_an_engine_without_a_signal_is_let_go() -> None:
    async with setup(Answer.stream(weak([0.0] * 6))) as (_, strong, router):
        reply = await stream(router)
        assert text_of(reply).startswith("w0")
        assert "x-spillway-confidence" not in reply.headers
        assert not strong.seen


async def test_the_usage_of_a_held_stream_is_read_in_its_engines_dialect(tmp_path: Path) -> None:
    timings = data({"choices": [], "timings": {"cache_n": 236, "prompt_n": 1, "predicted_n": 4}})
    body = delta({"role": "assistant", "content": ""}) + token("a", SURE) + token("b", SURE) + delta({}, "stop")
    for logprobs, backend in ((body, "local"), (body.replace(str(SURE).encode(), str(UNSURE).encode()), "cloud")):
        answer = Answer.stream(logprobs + timings + DONE)
        async with FaultUpstream(answer) as engine, FaultUpstream(Answer.stream(STRONG)) as strong:
            llamacpp = local(engine).replace("provider: vllm", "provider: llamacpp")
            async with routing(settings(llamacpp, cloud(strong), more=RULE)) as router:
                reply = await stream(router)
                assert reply.headers.get("x-spillway-backend", backend) == backend
                row = router.rows(reply)[0]
                assert (row.backend, row.prompt_tokens, row.completion_tokens) == ("local", 237, 4)
                assert row.cached_tokens == 236
