"""Near the threshold the engine is asked about its own answer. A self check that fails never costs the answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.helpers import CALIBRATION, STAGE, asking, rule, streamed, whole

from spillway_router.config.assemble import assembly_of
from spillway_router.config.load import Loaded, parse
from spillway_router.core.confidence.self_check import QUESTIONS
from spillway_router.ledger.entries import Entry
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, cloud, escalating, local, settings
from spillway_router.testing.streams import DONE, data

WITH_P_TRUE = {**STAGE, "features": ["min", "p_true"], "fill": [-1.0, 0.5], "centre": [0.0, 0.5], "scale": [1.0, 1.0]}
KNOWS: dict[str, Any] = {**CALIBRATION, "answer": {**WITH_P_TRUE, "weights": [1.0, 2.0]}}
"""Threshold 0.6. P(right) is 1 + min / 2 as with CALIBRATION, and p_true above or below 0.5 moves it by that much."""
OPEN, CLEAR = -0.9, -0.2
"""Least log-probabilities of an answer at 0.55, within 0.1 of the threshold, and of one at 0.9."""
ASKS = ", self_check: {ask: p_true, timeout_ms: 5000}"
STRONG = whole("strong", 0.0)
JSON_ASKED = {"response_format": {"type": "json_object"}}


def says(*alternatives: tuple[str, float]) -> Answer:
    """Return a reply of one token with the probabilities of its alternatives."""
    top = [{"token": text, "logprob": math.log(p) if p else -9999.0} for text, p in alternatives]
    choice = {"index": 0, "message": {"role": "assistant", "content": top[0]["token"]}, "finish_reason": "length"}
    usage = {"prompt_tokens": 40, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 32}}
    return Answer.json(
        {"choices": [{**choice, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}], "usage": usage}
    )


def writes(text: str, end: str = "stop") -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 40, "completion_tokens": 2}})


YES, NO = says(("True", 0.9), (" false", 0.1)), says(("False", 0.72), (" True", 0.08), ("{", 0.2))


def setup(
    folder: Path, answer: Answer, second: Answer, more: str = ASKS, file: Mapping[str, Any] = KNOWS
) -> AbstractAsyncContextManager[tuple[FaultUpstream, FaultUpstream, Router]]:
    engine = FaultUpstream(Answer.json({"error": {"message": "asked too often"}}, 500))
    engine.script.extend((answer, second))
    return escalating(engine, STRONG, rule=rule(folder, dict(file), more), folder=folder)


@pytest.mark.parametrize(("second", "score", "kept"), [(YES, 0.9, True), (NO, 0.1, False)])
async def test_the_engine_is_asked_about_its_own_answer(
    second: Answer, score: float, kept: bool, tmp_path: Path
) -> None:
    async with setup(tmp_path, whole("weak", OPEN), second) as (engine, strong, router):
        reply = await router.chat({"user": "u", "tools": [{"type": "function", "function": {"name": "f"}}]})
        assert (b"weak" in reply.content) == kept
        assert bool(strong.seen) != kept
        expected = 0.55 + (score - 0.5)
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(expected, abs=1e-4)
        assert reply.headers["x-spillway-attempts"] == ("2" if kept else "3")
        asked = engine.seen[1].json
        question = asked["messages"][-1]
        assert asked["messages"] == [*MESSAGES, {"role": "assistant", "content": "weak"}, question]
        assert question == {"role": "user", "content": QUESTIONS["p_true"]}
        assert (asked["max_tokens"], asked["temperature"], asked["logprobs"]) == (1, 0, True)
        assert asked["tools"] == engine.seen[0].json["tools"]
        assert not asked.keys() & {"stream", "response_format", "user"}
        rows = {row.attempt_no: row for row in router.rows(reply)}
        assert (rows[2].backend, rows[2].decision, rows[2].reasons) == ("local", "audit", "self_check")
        assert (rows[2].status, rows[2].amount_nano, rows[2].confidence) == ("discarded", 0, None)
        assert rows[2].gpu_us > 0
        assert rows[2].cached_tokens == 32
        assert rows[1].status == ("ok" if kept else "discarded")
        assert rows[1].confidence == pytest.approx(expected)
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert [a["confidence"] for a in record["attempts"]][1] == pytest.approx(score)


@pytest.mark.parametrize(("second", "kept"), [(YES, True), (NO, False)])
async def test_a_stream_that_was_held_to_its_end_is_asked_about_too(second: Answer, kept: bool, tmp_path: Path) -> None:
    async with setup(tmp_path, streamed('{"a": 1}', OPEN), second) as (engine, strong, router):
        strong.answer = streamed("strong", 0.0)
        reply = await router.chat({"stream": True, **JSON_ASKED})
        assert (b'{\\"a\\": 1}' in reply.content) == kept
        assert (b"strong" in reply.content) != kept
        assert reply.content.endswith(DONE)
        assert engine.seen[1].json["messages"][-2] == {"role": "assistant", "content": '{"a": 1}'}


async def draft_of(router: Router, reply: httpx.Response) -> Entry:
    """Return the row of the first attempt, once the ledger has it."""
    await router.until(lambda: any(row.attempt_no == 1 for row in router.rows(reply)))
    return min(router.rows(reply), key=lambda row: row.attempt_no)


async def test_a_number_is_a_score_only_if_it_is_one(tmp_path: Path) -> None:
    file = {**KNOWS, "answer": {**KNOWS["answer"], "features": ["min", "stated"]}}
    for reply, confidence in (
        (writes(" 90%"), 0.95),
        (writes("10"), 0.15),
        (writes("10", "length"), 0.55),
        (writes("101"), 0.55),
        (writes("about 90"), 0.55),
        (writes(""), 0.55),
    ):
        asks = ", self_check: {ask: stated, timeout_ms: 5000, question: 'How sure?'}"
        async with setup(tmp_path, whole("weak", OPEN), reply, asks, file) as (engine, _, router):
            escalated = await router.chat(x_spillway_min_confidence="0.6")
            draft = await draft_of(router, escalated)
            assert draft.confidence == pytest.approx(confidence), reply.body
            assert engine.seen[1].json["messages"][-1]["content"] == "How sure?"
            assert "logprobs" not in engine.seen[1].json
        (tmp_path / "ledger.db").unlink()


NO_ANSWERS = {
    "500": Answer.json({"error": {"message": "no"}}, 500),
    "503": Answer.json({"error": {"message": "queue is full"}}, 503),
    "reset": Answer(silent=True, end="rst"),
    "silence": Answer(silent=True, end="hang"),
    "broken": Answer(b"{}" * 30, cut=20, end="fin"),
    "no JSON": Answer(b"yes"),
    "no choices": Answer.json({"choices": []}),
    "no alternatives": says(("True", 1.0)),
    "another word": says(("Well", 0.9), ("True", 0.05), ("False", 0.02)),
    "all zeros": says(("True", 1.0), ("False", 1.0)),
    "forced": says(("True", 1.0), ("False", 0.0)),
    "no log-probabilities": writes("True"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_whatever_goes_wrong_with_it_the_answer_stands_as_it_was_judged(name: str, tmp_path: Path) -> None:
    asks = ", threshold: 0.5, self_check: {ask: p_true, timeout_ms: 150}"
    async with setup(tmp_path, whole("weak", OPEN), NO_ANSWERS[name], asks) as (engine, strong, router):
        reply = await router.chat()
        assert reply.status_code == 200
        assert b"weak" in reply.content
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.55)
        assert len(engine.seen) == 2
        assert not strong.seen
        await router.until(lambda: len(router.rows(reply)) == 2)  # an answer that costs nothing waits only so long
        rows = {row.attempt_no: row for row in router.rows(reply)}
        assert (rows[1].status, rows[1].confidence) == ("ok", pytest.approx(0.55))
        assert (rows[2].decision, rows[2].amount_nano) == ("audit", 0)
        assert rows[2].status in ("error", "discarded")
        backend = router.runtime.board.current(router.runtime.services.clock()).backends["local"]
        assert not backend.breaker_open
        assert router.runtime.board.in_flight()["local"] == 0


NOT_ASKED: dict[str, tuple[float, dict[str, Any], dict[str, str], str]] = {
    "off": (OPEN, {}, {}, ""),
    "sure": (CLEAR, {}, {}, ASKS),
    "hopeless": (-1.9, {}, {}, ASKS),
    "private": (OPEN, {}, {"x_spillway_privacy": "local-only"}, ASKS),
    "pinned": (OPEN, {"model": "local/m"}, {}, ASKS),
    "local only": (OPEN, {}, {"x_spillway_route": "local"}, ASKS),
    "no time left": (OPEN, {}, {}, ASKS + "}\nslo: {ttft_ms: 1, tpot_ms: 0.001}\naliases: {auto: {chain: [local]}"),
}


@pytest.mark.parametrize("name", NOT_ASKED)
async def test_it_is_asked_only_where_it_could_change_anything(name: str, tmp_path: Path) -> None:
    logprob, fields, headers, more = NOT_ASKED[name]
    async with setup(tmp_path, whole("weak", logprob), YES, more) as (engine, _, router):
        assert (await router.chat(fields, **headers)).status_code == 200
        assert len(engine.seen) == 1


async def test_who_leaves_while_the_engine_is_asked_stops_it(tmp_path: Path) -> None:
    asks = ", self_check: {ask: p_true, timeout_ms: 60000}}\nslo: {ttft_ms: 60000"
    async with setup(tmp_path, whole("weak", OPEN), Answer(silent=True, end="hang"), asks) as (
        engine,
        strong,
        router,
    ):
        async with asking(router, {}):
            await engine.arrival()
            question = await engine.arrival()
        await asyncio.wait_for(question.closed.wait(), LIMIT_S)
        await router.until(lambda: bool(router.runtime.services.records.recent(1)))
        (record,) = router.runtime.services.records.recent(1)
        await router.until(lambda: len(router.ledger.entries_of(record.facts.request_id)) == 2)
        rows = router.ledger.entries_of(record.facts.request_id)
        assert {(row.decision, row.status) for row in rows} == {("local", "aborted"), ("audit", "error")}
        assert router.runtime.board.in_flight()["local"] == 0
        assert not strong.seen


async def test_a_stream_that_goes_out_already_is_not_asked_about(tmp_path: Path) -> None:
    first = streamed("weak", -0.5).body.removesuffix(DONE).replace(b'"finish_reason":"stop"', b'"finish_reason":null')
    last = data({"choices": [{"index": 0, "delta": {"content": " end"}, "finish_reason": "stop"}]}) + DONE
    gate = asyncio.Event()
    says = Answer.stream(first + last).pausing(len(first), gate)
    async with setup(tmp_path, says, YES, ASKS + ", hold_tokens: 1") as (engine, _, router):
        sent = {"model": "auto", "messages": MESSAGES, "stream": True}
        bar = {"x-spillway-min-confidence": "0.7"}
        async with router.client.stream("POST", "/v1/chat/completions", json=sent, headers=bar) as reply:
            gate.set()
            assert b" end" in await reply.aread()
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.75)
        assert len(engine.seen) == 1


@pytest.mark.parametrize("calibrated", [True, False])
async def test_where_it_can_change_nothing_the_router_says_so(calibrated: bool, tmp_path: Path) -> None:
    plain = f"confidence: {{escalate_to: [cloud]{ASKS}}}\n"
    more = rule(tmp_path, CALIBRATION, ASKS) if calibrated else plain
    text = settings(local("http://127.0.0.1:9/v1"), cloud("http://127.0.0.1:9/v1"), more=more)
    assembly = assembly_of(Loaded(parse(text, {}), None, text, {}), date(2026, 11, 21))
    (problem,) = [w.problem for w in assembly.warnings if w.where == "confidence.self_check"]
    assert ("until a calibration is made with it" if calibrated else "make one with `spillway calibrate`") in problem
    engine = FaultUpstream(whole("weak", OPEN))
    async with escalating(engine, STRONG, rule=more) as (_, strong, router):
        engine.script.extend((whole("weak", OPEN), NO))
        await router.chat(x_spillway_min_confidence="0.5")
        assert len(engine.seen) == (2 if calibrated else 1)
        assert bool(strong.seen) != calibrated  # without one: exp(-0.9)
