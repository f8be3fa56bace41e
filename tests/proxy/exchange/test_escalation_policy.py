"""Whether an answer is escalated or audited, asked of the policy functions alone."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proxy.exchange.scene import scene

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Decision, Outcome
from spillway_router.proxy.exchange.escalation import (
    calibration,
    criteria,
    draw_audit,
    may_escalate,
    offer_audit,
    should_escalate,
    threshold,
)
from spillway_router.testing.harness import cloud, local, settings

NOWHERE = "http://127.0.0.1:9/v1"
RULE = "confidence: {threshold: 0.7, escalate_to: [cloud], audit_share: 1.0}\n"
TEXT = settings(local(NOWHERE), cloud(NOWHERE), more=RULE)
PRIVATE = {"metadata": {"privacy": "local-only"}}
NO_FALLBACKS = {"provider": {"allow_fallbacks": False}}


@pytest.mark.parametrize(("confidence", "escalated"), [(0.69, True), (0.7, False), (1.0, False), (None, False)])
async def test_the_threshold_decides(confidence: float | None, escalated: bool) -> None:
    async with scene(TEXT) as stage:
        assert should_escalate(stage.state("local"), stage.candidate("local").backend, confidence) == escalated


async def test_audits_move_the_threshold_but_not_the_one_of_a_request() -> None:
    async with scene(TEXT) as stage:
        stage.audits.moved, engine = 0.9, stage.candidate("local").backend
        assert threshold(stage.state("local"), engine) == 0.9
        strict = stage.state("local", facts=stage.facts(x_spillway_min_confidence="0.2"))
        assert threshold(strict, engine) == 0.2


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        pytest.param(PRIVATE, {}, id="private"),
        pytest.param(NO_FALLBACKS, {}, id="no fallbacks"),
        pytest.param({}, {"x_spillway_route": "local"}, id="local only"),
    ],
)
async def test_a_request_that_may_not_leave_is_never_escalated(fields: dict[str, Any], headers: dict[str, str]) -> None:
    async with scene(TEXT) as stage:
        assert may_escalate(stage.state("local"))
        assert not may_escalate(stage.state("local", facts=stage.facts(fields, **headers)))


async def test_a_pinned_backend_keeps_its_answer() -> None:
    async with scene(TEXT) as stage:
        state = stage.state("local")
        state.decision = Decision(
            kind="pinned", candidates=state.decision.candidates, reasons=(), removed=(), policy="v1"
        )
        assert not may_escalate(state)
        assert not should_escalate(state, stage.candidate("local").backend, 0.0)


async def test_without_a_tier_above_nothing_is_escalated() -> None:
    async with scene(settings(local(NOWHERE), cloud(NOWHERE))) as stage:
        assert not may_escalate(stage.state("local"))


async def test_without_a_calibration_answers_are_judged_by_the_conservative_rule() -> None:
    async with scene(TEXT) as stage:
        state = stage.state("local")
        attempt = await stage.opened(state, "local")
        assert calibration(state, attempt) is None
        assert criteria(state, attempt).calibration is None
        attempt.close(Outcome("ok", 200, usage=Usage(1, 1)))


async def test_only_an_answer_under_the_configured_threshold_is_drawn() -> None:
    async with scene(TEXT) as stage:
        engine, other = stage.candidate("local").backend, stage.candidate("cloud").backend
        assert not draw_audit(stage.state("local"), engine)
        stage.audits.draws = True
        assert draw_audit(stage.state("local"), engine)
        assert not draw_audit(stage.state("local"), other)
        own = stage.state("local", facts=stage.facts(x_spillway_min_confidence="0.2"))
        assert not draw_audit(own, engine)


async def test_a_sample_takes_the_next_attempt_number() -> None:
    async with scene(TEXT) as stage:
        state = stage.state("local")
        attempt = await stage.opened(state, "local")
        attempt.close(Outcome("ok", 200, usage=Usage(1, 1)))
        state.commit(attempt)
        offer_audit(state, "the answer")
        (sample,) = stage.audits.samples
        assert (sample.answer, sample.attempt_no, sample.scored) == ("the answer", 2, None)
