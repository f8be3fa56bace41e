"""The rules of the policy: which apply, what they change, and that a restriction never adds a candidate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.scenes import GROQ, LOCAL, OPENAI, POLICY, facts, names, signals, why

from spillway_router.core.routing.experiments import PLACES, Arm
from spillway_router.core.routing.model import BackendSignals, Caller, PrivacyVerdict, RequestFacts
from spillway_router.core.routing.policy import (
    ConfidenceRule,
    backends_to_count,
    decide,
    decide_better,
    decide_byok,
    decide_escalation,
)
from spillway_router.core.routing.rules import Conditions, Hours, Moment, Rule, Rules, Span, ruled
from spillway_router.core.routing.traits.conversation import Traits

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()  # a Friday
NOW = Moment(wall_s=NOON)
NONE = Rules()
HARD = Traits(task="code", complexity=7, factors=("multi_turn", "analysis", "creativity"), language="en")
PRIVATE = PrivacyVerdict(False, ("keyword",))


def apply(rules: Rules, request: RequestFacts, moment: Moment = NOW) -> Any:
    """The decision for a request under these rules."""
    return decide(request, signals(), ruled(POLICY, rules, rules.matching(request, moment)))


def holds(when: Conditions, request: RequestFacts, moment: Moment = NOW, rules: Rules = NONE) -> bool:
    """Whether a rule with these conditions applies."""
    return replace(rules, rules=(Rule("r", when),)).matching(request, moment) == (0,)


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        (Conditions(models=frozenset({"auto"})), facts(), facts(model="both")),
        (Conditions(models=frozenset({"auto"})), facts(model="auto:fastest"), facts(model="groq")),
        (Conditions(endpoints=frozenset({"chat"})), facts(), facts(endpoint="messages")),
        (Conditions(tasks=frozenset({"code", "chat"})), facts(traits=HARD), facts()),
        (Conditions(tasks=frozenset({"invoice"})), facts(task="invoice", traits=HARD), facts(traits=HARD)),
        (Conditions(languages=frozenset({"en"})), facts(traits=HARD), facts(traits=replace(HARD, language=""))),
        (Conditions(complexity=Span(7)), facts(traits=HARD), facts(traits=replace(HARD, complexity=6))),
        (Conditions(complexity=Span(None, 3)), facts(traits=replace(HARD, complexity=3)), facts(traits=HARD)),
        (Conditions(tiers=frozenset({"paid"})), facts(caller=Caller(tier="paid")), facts()),
        (Conditions(keys=frozenset({"k1"})), facts(caller=Caller(key_id="k1")), facts(caller=Caller(key_id="k2"))),
        (Conditions(needs=frozenset({"tools"})), facts(needs=frozenset({"tools", "vision"})), facts()),
        (Conditions(prompt_tokens=Span(1000)), facts(prompt_bytes=4000), facts(prompt_bytes=3999)),
        (Conditions(private=True), facts(privacy=PRIVATE), facts()),
        (Conditions(private=True), facts(caller=Caller(local_only=True)), facts()),
        (Conditions(private=False), facts(), facts(privacy=PRIVATE)),
        (Conditions(), facts(), None),
    ],
)
def test_conditions(when: Conditions, yes: RequestFacts, no: RequestFacts | None) -> None:
    assert holds(when, yes)
    assert no is None or not holds(when, no)


def test_all_conditions_must_hold() -> None:
    when = Conditions(tasks=frozenset({"code"}), tiers=frozenset({"paid"}))
    assert holds(when, facts(traits=HARD, caller=Caller(tier="paid")))
    assert not holds(when, facts(traits=HARD))


def test_money_and_load_are_conditions() -> None:
    poor, full = Conditions(budget_left_below=0.2), Conditions(waiting=Span(4))
    assert holds(poor, facts(), Moment(NOON, budget_left=0.19))
    assert not holds(poor, facts(), Moment(NOON, budget_left=0.2))
    assert holds(full, facts(), Moment(NOON, waiting=4))
    assert not holds(full, facts(), Moment(NOON, waiting=3))


@pytest.mark.parametrize(
    ("hours", "local", "expected"),
    [
        (Hours(540, 1020), "2026-11-27T09:00", True),
        (Hours(540, 1020), "2026-11-27T17:00", False),
        (Hours(1320, 360), "2026-11-27T23:59", True),
        (Hours(1320, 360), "2026-11-28T05:59", True),
        (Hours(1320, 360), "2026-11-28T06:00", False),
        (Hours(1320, 360, frozenset({"fri"})), "2026-11-28T01:00", True),  # Friday's night goes on
        (Hours(1320, 360, frozenset({"fri"})), "2026-11-27T01:00", False),  # that of Thursday
        (Hours(0, 1440, frozenset({"sat", "sun"})), "2026-11-29T12:00", True),
        (Hours(0, 1440, frozenset({"sat", "sun"})), "2026-11-30T00:00", False),
    ],
)
def test_hours_are_those_of_the_time_zone(hours: Hours, local: str, expected: bool) -> None:
    zone = ZoneInfo("America/New_York")
    moment = Moment(datetime.fromisoformat(local).replace(tzinfo=zone).timestamp())
    assert holds(Conditions(hours=(hours,)), facts(), moment, Rules(timezone=zone)) is expected


def test_a_chain_replaces_that_of_the_alias_and_says_why() -> None:
    rules = Rules((Rule("hard", Conditions(complexity=Span(5), tiers=frozenset({"paid"})), chain=("openai", "groq")),))
    decision = apply(rules, facts(traits=HARD, caller=Caller(tier="paid")))
    assert names(decision) == ["openai", "groq"]
    assert (decision.kind, decision.reasons, decision.rules) == ("routed", ("complexity", "tier"), ("hard",))
    assert names(apply(rules, facts(traits=HARD))) == ["local", "groq", "openai"]


def test_who_names_a_backend_has_chosen() -> None:
    rules = Rules((Rule("all", Conditions(), chain=("openai",)),))
    assert names(apply(rules, facts(model="groq"))) == ["groq"]


def test_the_first_chain_counts_and_what_is_forbidden_adds_up() -> None:
    rules = Rules(
        (
            Rule("one", Conditions(), chain=("groq", "local")),
            Rule("two", Conditions(), chain=("openai",), forbid=frozenset({"groq"})),
            Rule("three", Conditions(), forbid=frozenset({"openai"})),
        )
    )
    decision = apply(rules, facts())
    assert names(decision) == ["local"]
    assert why(decision) == {"groq": "rule"}
    assert decision.removed[0].detail == "the rule 'two' forbids it"
    assert decision.rules == ("one", "two", "three")


def test_a_preference_reorders_the_chain_and_adds_nothing() -> None:
    rules = Rules((Rule("cheap first", Conditions(tasks=frozenset({"code"})), prefer=("openai", "spare")),))
    decision = apply(rules, facts(traits=HARD))
    assert names(decision) == ["openai", "local", "groq"]
    assert (decision.kind, decision.reasons) == ("routed", ("task",))


def test_what_is_forbidden_is_so_on_every_way() -> None:
    """By alias, by name, as an escalation, as a better answer, with a key of one's own, and to count tokens."""
    rules = Rules((Rule("no openai", Conditions(), forbid=frozenset({"openai"})),))
    request = facts()
    policy = ruled(POLICY, rules, rules.matching(request, NOW))
    assert "openai" not in names(decide(request, signals(), policy))
    pinned = decide(facts(model="openai"), signals(), policy)
    assert pinned.refusal is not None
    assert (pinned.refusal.status, pinned.refusal.code) == (403, "permission_denied")
    assert "'no openai'" in pinned.refusal.message
    assert names(decide_escalation(request, signals(), policy)) == ["groq"]
    assert names(decide_better(request, signals(), policy, above="groq")) == []
    own = replace(OPENAI, name="own")  # by the name of its provider
    assert decide_byok(request, own, signals(), policy).refusal is not None
    counting = backends_to_count(request, signals(), policy)
    assert isinstance(counting, list)
    assert [backend.name for backend in counting] == ["local", "groq"]


def test_a_rule_sets_where_unsure_answers_go() -> None:
    rules = Rules(
        (
            Rule("never for free", Conditions(tiers=frozenset({"free"})), confidence=ConfidenceRule(0.8, ())),
            Rule("sure code", Conditions(tasks=frozenset({"code"})), confidence=ConfidenceRule(0.95, ("openai",))),
        )
    )
    free = facts(caller=Caller(tier="free"), traits=HARD)
    policy = ruled(POLICY, rules, rules.matching(free, NOW))
    assert (policy.confidence.escalate_to, policy.ruling.sets_confidence) == ((), True)
    policy = ruled(POLICY, rules, rules.matching(facts(traits=HARD), NOW))
    assert policy.confidence == ConfidenceRule(0.95, ("openai",))
    assert ruled(POLICY, rules, ()) is POLICY


def test_a_private_request_for_clouds_goes_to_a_local_backend_that_can_serve_it() -> None:
    decision = decide(facts(model="cloud", privacy=PRIVATE), signals(), POLICY)
    assert names(decision) == ["local", "spare"]
    assert (decision.kind, decision.reasons) == ("local", ("privacy",))
    down = BackendSignals(health="down", health_reason="is off")
    refused = decide(facts(model="cloud", privacy=PRIVATE), signals(local=down, spare=down), POLICY)
    assert refused.refusal is not None
    assert (refused.refusal.code, refused.candidates) == ("local_only_unavailable", ())
    pinned = decide(facts(model="groq", privacy=PRIVATE), signals(), POLICY)
    assert (pinned.candidates, pinned.refusal is not None) == ((), True)


def conditions() -> st.SearchStrategy[Conditions]:
    """Any conditions on who asks, what for and when."""
    few = st.sampled_from
    return st.builds(
        Conditions,
        tasks=st.sets(few(["code", "chat", "summary"]), max_size=2).map(frozenset),
        tiers=st.sets(few(["free", "paid"]), max_size=1).map(frozenset),
        complexity=st.none() | st.builds(Span, st.integers(0, 10)),
        private=st.none() | st.booleans(),
        budget_left_below=st.none() | st.floats(0.1, 1.0),
        hours=st.just(()) | st.just((Hours(0, 720),)),
    )


def any_rule() -> st.SearchStrategy[Rule]:
    """Any rule over the backends of the scene."""
    backends = st.sampled_from([LOCAL.name, "spare", GROQ.name, OPENAI.name])
    chain = st.lists(backends, max_size=3, unique=True).map(tuple)
    forbid = st.sets(backends | st.sampled_from(["groq", "vllm"]), max_size=2).map(frozenset)
    return st.builds(Rule, st.text("ab", min_size=1, max_size=2), conditions(), chain, chain, forbid)


REQUESTS = st.builds(
    facts,
    model=st.sampled_from(["auto", "both", "cloud", "groq", "openai", "auto:cheapest"]),
    caller=st.builds(Caller, tier=st.sampled_from(["", "free", "paid"]), local_only=st.booleans()),
    privacy=st.sampled_from([PrivacyVerdict(True), PRIVATE]),
    traits=st.none() | st.just(HARD),
)


@given(st.lists(any_rule(), max_size=5, unique_by=lambda rule: rule.name).map(tuple), REQUESTS, st.floats(0, 1))
def test_restrictions_bind_whatever_the_rules_say(rules: tuple[Rule, ...], request: RequestFacts, left: float) -> None:
    """Private content stays, what a rule forbids is never a candidate, and forbidding adds nothing."""
    moment, given_rules = Moment(NOON, budget_left=left), Rules(rules)
    policy = ruled(POLICY, given_rules, given_rules.matching(request, moment))
    decision = decide(request, signals(), policy)
    assert decision == decide(request, signals(), policy)
    private = not request.privacy.may_leave or request.caller.local_only
    applying = [rules[place] for place in given_rules.matching(request, moment)]
    assert decision.rules == tuple(rule.name for rule in applying)
    forbidden = frozenset().union(*[rule.forbid for rule in applying])
    for candidate in decision.candidates:
        assert candidate.backend.local or not private
        assert not forbidden & {candidate.backend.name, candidate.backend.provider}
    assert bool(decision.candidates) != (decision.refusal is not None)
    freed = Rules(tuple(replace(rule, forbid=frozenset()) for rule in rules))
    without = decide(request, signals(), ruled(POLICY, freed, freed.matching(request, moment)))
    if without.kind != "pinned" and not private:
        assert set(names(decision)) <= set(names(without))


def test_an_arm_is_a_condition() -> None:
    arm = Arm(experiment="x", name="b", by="request", begins=0, ends=PLACES)
    shadow = replace(arm, shadow="dry")
    for one, title, applies in ((arm, "x/b", True), (arm, "x/control", False), (shadow, "x/control", True)):
        rule = Rule("r", Conditions(arms=frozenset({title})), forbid=frozenset({"groq"}))
        rules = Rules((Rule("x/b", Conditions(), arm=one), rule))
        assert ("groq" in why(apply(rules, facts()))) == applies
    assert not holds(Conditions(arms=frozenset({"x/b"})), facts())


def test_a_confidence_is_a_condition_once_there_is_an_answer() -> None:
    unsure = Conditions(confidence_below=0.4)
    assert not holds(unsure, facts())
    assert holds(unsure, facts(), Moment(NOON, confidence=0.0))
    assert holds(unsure, facts(), Moment(NOON, confidence=0.39))
    assert not holds(unsure, facts(), Moment(NOON, confidence=0.4))
