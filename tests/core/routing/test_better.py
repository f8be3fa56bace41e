"""Answers one tier up, and sessions that keep their engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.scenes import BUSY, IDLE, POLICY, facts, names, signals, why

from spillway_router.core.routing.model import PrivacyVerdict
from spillway_router.core.routing.policy import ConfidenceRule, decide, decide_better, prefer_backend


@pytest.mark.parametrize(
    ("above", "tiers"),
    [("local", ["groq", "openai"]), ("spare", ["groq", "openai"]), ("groq", ["openai"])],
)
def test_the_tiers_above_are_asked(above: str, tiers: list[str]) -> None:
    decision = decide_better(facts(), signals(), POLICY, above)
    assert names(decision) == tiers
    assert (decision.kind, decision.reasons) == ("escalated", ("feedback",))


def test_without_tiers_the_chain_goes_on() -> None:
    plain = replace(POLICY, confidence=ConfidenceRule())
    assert names(decide_better(facts(), signals(), plain, "local")) == ["groq", "openai"]
    assert names(decide_better(facts(), signals(), plain, "groq")) == ["openai"]


def test_the_last_tier_has_none_above() -> None:
    refusal = decide_better(facts(), signals(), POLICY, "openai").refusal
    assert refusal is not None
    assert (refusal.status, "no tier above openai" in refusal.message) == (400, True)


def test_private_content_has_no_tier_above() -> None:
    decision = decide_better(facts(privacy=PrivacyVerdict(False, ("header",))), signals(), POLICY, "local")
    assert why(decision) == {"groq": "privacy", "openai": "privacy"}
    assert decision.refusal is not None
    assert decision.refusal.code == "local_only_unavailable"


def test_an_unknown_model_is_refused() -> None:
    refusal = decide_better(facts(model="nope"), signals(), POLICY, "local").refusal
    assert refusal is not None
    assert refusal.status == 404


def test_a_session_keeps_its_engine_unless_it_would_break_the_promise() -> None:
    request = facts(model="both")
    first = decide(request, signals(), POLICY)
    assert names(first) == ["local", "spare", "groq"]
    assert names(prefer_backend(first, "spare")) == ["spare", "local", "groq"]
    assert prefer_backend(first, "local") is first
    assert prefer_backend(first, "groq") is first
    assert prefer_backend(first, "gone") is first
    busy = decide(request, signals(local=IDLE, spare=BUSY), POLICY)
    assert names(prefer_backend(busy, "spare"))[0] == "local"
