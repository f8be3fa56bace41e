"""A request whose local answer is unsure is sent one tier up; logprobs that only the router asked for stay hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from spillway_router.config.load import ConfigError, parse
from spillway_router.testing import Answer, FakeEngine, FaultUpstream
from spillway_router.testing.harness import Router, escalating

RULE = "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
STRONG = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "strong"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }
)
LOW, HIGH = (-1.0, -2.0), (-0.01, -0.02)


def setup(
    logprobs: Sequence[float], answer: Answer = STRONG, folder: Path | None = None, rule: str = RULE
) -> AbstractAsyncContextManager[tuple[FakeEngine, FaultUpstream, Router]]:
    return escalating(FakeEngine(["we", "ak"], logprobs), answer, rule=rule, folder=folder)


def said(reply: Any) -> str:
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


async def test_a_doubtful_answer_is_escalated(tmp_path: Path) -> None:
    async with setup(LOW, folder=tmp_path) as (engine, strong, router):
        reply = await router.chat()
        assert said(reply) == "strong"
        assert reply.headers["x-spillway-decision"] == "escalated"
        assert reply.headers["x-spillway-reason"] == "confidence"
        assert reply.headers["x-spillway-backend"] == "cloud"
        assert reply.headers["x-spillway-attempts"] == "2"
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(math.exp(-1.5), abs=1e-4)
        assert engine.bodies[0]["logprobs"] is True
        assert "logprobs" not in strong.seen[0].json
        draft, better = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert (draft.backend, draft.status, draft.amount_nano) == ("local", "discarded", 0)
        assert draft.confidence == pytest.approx(math.exp(-1.5))
        assert (better.backend, better.status, better.decision) == ("cloud", "ok", "escalated")
        assert better.amount_nano == 9 * 1000 + 1 * 2000
        assert draft.completion_tokens == 2  # its work is still counted


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("max: 40", False),
        ("max: 120", True),
        ("min: 15, pattern: '[0-9]{2}'", True),
        ("pattern: '[0-9]{3}'", False),
        ("in_source: true", False),
    ],
)
async def test_a_value_that_breaks_a_rule_of_the_user_is_not_sure(rule: str, kept: bool) -> None:
    more = f"confidence: {{threshold: 0.8, escalate_to: [cloud], rules: [{{field: /AL, {rule}}}]}}\n"
    async with escalating(FakeEngine(['{"AL": ', "99}"], HIGH), STRONG, rule=more) as (_, _, router):
        reply = await router.chat({"response_format": {"type": "json_object"}})
        assert (said(reply) == '{"AL": 99}') is kept


def test_a_rule_that_is_no_regular_expression_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="is not a valid regular expression"):
        parse("confidence: {rules: [{field: /AL, pattern: '['}]}", {})


async def test_a_sure_answer_stays_and_its_logprobs_too() -> None:
    async with setup(HIGH) as (engine, strong, router):
        reply = await router.chat()
        assert said(reply) == "weak"
        assert reply.headers["x-spillway-decision"] == "local"
        assert float(reply.headers["x-spillway-confidence"]) > 0.9
        assert reply.json()["choices"][0]["logprobs"] is None
        assert b'"logprob"' not in reply.content
        assert engine.bodies[0]["logprobs"] is True
        assert not strong.seen
        assert [(r.status, r.decision) for r in router.rows(reply)] == [("ok", "local")]


async def test_logprobs_that_were_asked_for_arrive() -> None:
    async with setup(HIGH) as (_, _, router):
        reply = await router.chat({"logprobs": True})
        assert [t["logprob"] for t in reply.json()["choices"][0]["logprobs"]["content"]] == list(HIGH)
        refused = await router.chat({"logprobs": False})
        assert refused.json()["choices"][0]["logprobs"] is None


FAILURES = {
    "500": Answer.json({"error": {"message": "no"}}, 500),
    "429": Answer.json({"error": {"message": "no"}}, 429),
    "400": Answer.json({"error": {"message": "no"}}, 400),
    "reset": Answer(silent=True, end="rst"),
    "silence": Answer(silent=True, end="hang"),
    "broken": Answer(b"{}" * 30, cut=20, end="fin"),
    "no choices": Answer.json({"choices": []}),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_when_the_cloud_fails_the_local_draft_stands(name: str) -> None:
    rule = RULE + "limits: {answer_s: 0.3}\n"
    async with setup(LOW, FAILURES[name], rule=rule) as (_, strong, router):
        reply = await router.chat()
        assert said(reply) == "weak"
        assert reply.headers["x-spillway-decision"] == "local"
        assert reply.headers["x-spillway-backend"] == "local"
        assert "confidence" in reply.headers["x-spillway-reason"]
        assert len(strong.seen) == 1
        assert b'"logprob"' not in reply.content
        local_row = next(r for r in router.rows(reply) if r.backend == "local")
        assert (local_row.status, local_row.decision) == ("ok", "local")


@pytest.mark.parametrize(("logprobs", "escalated"), [((0.0, 0.0), False), ((0.0, -9.0), True)])
async def test_logprobs_of_only_zeros_are_no_signal(logprobs: tuple[float, ...], escalated: bool) -> None:
    async with setup(logprobs) as (_, strong, router):
        reply = await router.chat(x_spillway_min_confidence="1")
        assert ("x-spillway-confidence" in reply.headers) == escalated
        assert bool(strong.seen) == escalated


async def test_the_request_may_set_the_bar() -> None:
    async with setup(LOW) as (_, strong, router):
        assert said(await router.chat(x_spillway_min_confidence="0.1")) == "weak"
        assert not strong.seen
        assert said(await router.chat(x_spillway_min_confidence="0.5")) == "strong"


async def test_without_a_tier_above_nothing_is_asked_of_the_engine() -> None:
    async with setup(LOW, rule="") as (engine, strong, router):
        reply = await router.chat()
        assert said(reply) == "weak"
        assert "logprobs" not in engine.bodies[0]
        assert "x-spillway-confidence" not in reply.headers
        assert not strong.seen


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": "local/m"}, {}),
        ({"provider": {"allow_fallbacks": False}}, {}),
        ({}, {"x_spillway_route": "local"}),
        ({}, {"x_spillway_max_cost_usd": "0.000001"}),
    ],
)
async def test_who_keeps_a_request_local_keeps_its_answer_local(
    fields: dict[str, Any], headers: dict[str, str]
) -> None:
    async with setup(LOW) as (_, strong, router):
        reply = await router.chat(fields, **headers)
        assert said(reply) == "weak"
        assert reply.headers["x-spillway-decision"] in ("local", "pinned")
        assert not strong.seen
