"""Degrade steps: which backends drop out as a budget runs low, and what the client is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.scenes import BUSY, CLOUD, DEAR, GROQ, LOCAL, OPENAI, POLICY, facts, names, signals, why

from spillway_router.core.money.budget import BudgetLine, LineBalance, LineKey, opening, period_start
from spillway_router.core.money.degrade import DegradeStep, reached, shares_used, steps_of
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import BackendSignals, Decision, ExpectedGain, PrivacyVerdict, Signals
from spillway_router.core.routing.policy import Policy, decide, decide_escalation

DAY: LineKey = ("all", "day")
RULES = (
    DegradeStep("all", "day", 0.8, frozenset({"openai"})),
    DegradeStep("all", "day", 0.95, frozenset({"groq"})),
)
NOON = 1_700_049_600.0
DOWN = BackendSignals(health="down", health_reason="refused")


def policy(rules: tuple[DegradeStep, ...] = RULES) -> Policy:
    backends = {b.name: replace(b, degrade_steps=steps_of(b.name, rules)) for b in (LOCAL, GROQ, OPENAI)}
    return replace(POLICY, backends=backends, aliases={"auto": ("local", "openai", "groq")})


def used(share: float, local: BackendSignals = BUSY, line: LineKey = DAY) -> Signals:
    cloud = replace(CLOUD, budget_used={line: share})
    return signals(local=local, groq=cloud, openai=cloud)


def decided(share: float, local: BackendSignals = BUSY) -> Decision:
    return decide(facts(), used(share, local), policy())


def test_dear_before_cheap_before_local_before_a_refusal() -> None:
    """All rules under overload: strong cloud, cheap cloud, a local wait that is refused; and 402 once local is gone."""
    plenty, low, lower = decided(0.79), decided(0.8), decided(0.95)
    assert (plenty.kind, names(plenty)[0], plenty.reasons) == ("overflow", "openai", ("queue",))
    assert (low.kind, names(low), low.reasons) == ("overflow", ["groq", "local"], ("queue", "budget"))
    assert why(low) == {"openai": "budget"}
    assert lower.refusal is not None
    assert (lower.refusal.status, names(lower), lower.reasons) == (503, [], ("queue", "budget"))
    refused = decided(0.95, DOWN).refusal
    assert refused is not None
    assert (refused.status, refused.code, refused.final) == (402, "budget_exceeded", True)
    assert "groq: the day budget for all is 95% used; from 95% on it gets no requests (degrade)" in refused.message


def test_the_sentence_names_the_rule_and_the_use() -> None:
    [removed] = decided(0.834).removed
    assert removed.detail == "the day budget for all is 83.4% used; from 80% on it gets no requests (degrade)"


def test_without_need_the_rules_are_no_reason() -> None:
    idle = decide(facts(), used(0.99, signals().backends["local"]), policy())
    assert (idle.kind, idle.reasons) == ("local", ())
    assert why(idle) == {"openai": "budget", "groq": "budget"}
    behind = replace(policy(), aliases={"auto": ("groq", "openai")})
    assert decide(facts(), used(0.9), behind).reasons == ("alias",)  # openai would not have been first anyway


def test_private_content_is_refused_for_privacy_not_for_the_budget() -> None:
    refusal = decide(facts(privacy=PrivacyVerdict(False, ("header",))), used(0.99, DOWN), policy()).refusal
    assert refusal is not None
    assert refusal.code == "local_only_unavailable"


def test_escalation_takes_the_next_tier_or_stays() -> None:
    up = replace(policy(), confidence=replace(POLICY.confidence, escalate_to=("openai", "groq")))
    assert names(decide_escalation(facts(), used(0.5), up)) == ["openai", "groq"]
    assert names(decide_escalation(facts(), used(0.85), up)) == ["groq"]
    none = decide_escalation(facts(), used(0.96), up)
    assert (none.candidates, none.reasons) == ((), ("confidence", "budget"))


def test_a_line_that_does_not_concern_the_caller_leaves_nobody_out() -> None:
    assert names(decide(facts(), used(1.0, line=("key:k1", "day")), policy())) == ["openai", "groq", "local"]


def test_shares_used_of_the_lines_that_concern_the_caller() -> None:
    lines = [
        BudgetLine("all", "day", 100),
        BudgetLine("backend:groq", "hour", 50),
        BudgetLine("key:k1", "day", 10),
        BudgetLine("tier:free", "month", 0),
    ]
    day, hour = period_start("day", NOON), period_start("hour", NOON)
    balances = {
        ("all", "day"): LineBalance(day, 3, 5),
        ("backend:groq", "hour"): LineBalance(hour, 8),
        ("key:k1", "day"): LineBalance(day, 0, 8),
    }
    state = opening(lines, NOON, balances)  # type: ignore[arg-type]
    assert shares_used(state, "", "", NOON) == {("all", "day"): 0.08, ("backend:groq", "hour"): 0.16}
    assert shares_used(state, "k1", "free", NOON)[("key:k1", "day")] == 0.8
    assert shares_used(state, "k1", "free", NOON)[("tier:free", "month")] == 1.0
    assert shares_used(state, "k1", "", NOON + 86_400)[("key:k1", "day")] == 0  # a new period starts at the top


@given(st.floats(0, 1.5), st.floats(0, 1.5))
def test_more_used_never_brings_a_backend_back(a: float, b: float) -> None:
    low, high = sorted((a, b))
    for backend in ("openai", "groq"):
        rules = steps_of(backend, RULES)
        assert reached(rules, {DAY: low}) is None or reached(rules, {DAY: high}) is not None


# pacing


@pytest.mark.parametrize(("gain", "escalated"), [(0.9, ["groq", "openai"]), (0.2, ["groq"]), (0.0001, [])])
def test_a_paced_budget_escalates_what_is_worth_its_price(gain: float, escalated: list[str]) -> None:
    """1000 prompt and 500 answer tokens cost 0.00015 USD at groq and 0.0075 USD at openai."""
    paced = replace(CLOUD, price_of_gain=50.0)
    decision = decide_escalation(
        facts(), signals(groq=paced, openai=paced), POLICY, ExpectedGain(gain, Usage(1000, 500))
    )
    assert names(decision) == escalated
    assert [r.reason for r in decision.removed] == ["budget"] * (2 - len(escalated))
    if not escalated:
        assert decision.reasons == ("confidence", "budget")
        assert decision.removed[1].detail == (
            "a gain of 0.0001 for $0.0075 is below the 50 per USD that the paced budget requires now"
        )


def test_without_a_paced_budget_every_doubt_is_escalated() -> None:
    doubt = ExpectedGain(0.0, Usage(10**6, 10**6))
    assert names(decide_escalation(facts(), signals(), POLICY, doubt)) == ["groq", "openai"]
    assert names(decide_escalation(facts(), signals(), POLICY)) == ["groq", "openai"]
    assert OPENAI.tariff is DEAR
