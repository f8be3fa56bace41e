"""The arms of experiments: who is in which, and that an arm never adds a candidate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from tests.core.scenes import POLICY, facts, names, signals

from spillway_router.core.routing.experiments import PLACES, Arm, By, place_of, title_of
from spillway_router.core.routing.model import Caller, Hints, Preferences, PrivacyVerdict, RequestFacts
from spillway_router.core.routing.policy import ConfidenceRule, decide, decide_escalation
from spillway_router.core.routing.rules import Conditions, Moment, Rule, Rules, ruled

NOW = Moment(wall_s=0.0)
TENTH = PLACES // 10


def arm(experiment: str, name: str, begins: int, ends: int) -> Arm:
    """An arm of an experiment over users."""
    return Arm(experiment=experiment, name=name, by="user", begins=begins, ends=ends)


B = Rule("cheaper/b", Conditions(), chain=("openai",), arm=arm("cheaper", "b", 0, TENTH))
CONTROL = Rule("cheaper/control", Conditions(), arm=arm("cheaper", "control", TENTH, PLACES))
EXPERIMENT = Rules((B, CONTROL))


def of_user(number: int) -> RequestFacts:
    return facts(user_id=f"user-{number}", request_id=f"r{number}")


def test_a_unit_has_the_same_place_for_ever() -> None:
    """Another place would move everybody to another arm with an upgrade."""
    assert place_of("cheaper", "user", of_user(1)) == 0x2C23DFD3
    assert B.arm is not None
    assert title_of(B.arm.mark(of_user(1))) == "cheaper/b"


def test_an_arm_gets_its_share_and_experiments_are_independent() -> None:
    inside = [EXPERIMENT.matching(of_user(number), NOW) == (0,) for number in range(20_000)]
    assert binomtest(sum(inside), len(inside), 0.1).pvalue > 0.001
    both = sum(place_of("other", "user", of_user(number)) < TENTH for number in range(20_000) if inside[number])
    assert binomtest(both, sum(inside), 0.1).pvalue > 0.001


@pytest.mark.parametrize(
    ("by", "one", "same", "another"),
    [
        ("key", facts(caller=Caller(key_id="k")), facts(caller=Caller(key_id="k"), user_id="u"), Caller(key_id="l")),
        ("user", facts(user_id="u"), facts(user_id="u", hints=Hints(session_id="s")), Caller(key_id="l")),
        ("user", facts(caller=Caller(key_id="k")), facts(caller=Caller(key_id="k")), Caller(key_id="l")),
        ("session", facts(hints=Hints(session_id="s")), facts(hints=Hints(session_id="s"), user_id="u"), None),
    ],
)
def test_what_stays_together(by: By, one: RequestFacts, same: RequestFacts, another: Caller | None) -> None:
    same = replace(same, request_id="another request")
    assert place_of("e", by, one) == place_of("e", by, same)
    if another is not None:
        assert place_of("e", by, one) != place_of("e", by, facts(caller=another, request_id="another request"))


def test_without_any_unit_each_request_counts_by_itself() -> None:
    assert len({place_of("e", "user", facts(request_id=f"r{number}")) for number in range(100)}) == 100


@pytest.mark.parametrize(
    "chosen", [{"hints": Hints(route="local")}, {"preferences": Preferences(only=frozenset({"groq"}))}]
)
def test_who_says_where_a_request_goes_is_in_no_experiment(chosen: dict[str, Hints | Preferences]) -> None:
    assert {EXPERIMENT.matching(facts(request_id=str(n), **chosen), NOW) for n in range(50)} == {()}


def test_a_request_is_in_the_first_experiment_that_takes_it() -> None:
    whole = Rule("later/a", Conditions(), chain=("groq",), arm=arm("later", "a", 0, PLACES))
    rules = Rules((replace(B, when=Conditions(tiers=frozenset({"paid"}))), CONTROL, whole, Rule("r", Conditions())))
    matching = Counter(rules.matching(of_user(number), NOW) for number in range(300))
    assert set(matching) == {(1, 3), (2, 3)}  # a unit of b's places without the tier is free for the later one
    assert {EXPERIMENT.matching(of_user(number), NOW) for number in range(300)} == {(0,), (1,)}


def test_the_reason_is_the_experiment_where_an_arm_chose() -> None:
    by_arm = decide(facts(), signals(), ruled(POLICY, EXPERIMENT, (0,)))
    assert (names(by_arm), by_arm.reasons, by_arm.rules) == (["openai"], ("experiment",), ("cheaper/b",))
    as_always = decide(facts(), signals(), ruled(POLICY, EXPERIMENT, (1,)))
    assert as_always.candidates == decide(facts(), signals(), POLICY).candidates
    assert (as_always.reasons, as_always.rules) == ((), ("cheaper/control",))
    stays = Rules((replace(B, chain=("local",)),))
    assert decide(facts(), signals(), ruled(POLICY, stays, (0,))).reasons == ("experiment",)


ARMS = st.builds(
    lambda chain, prefer, forbid, to: replace(
        B, chain=chain, prefer=prefer, forbid=forbid, confidence=ConfidenceRule(0.9, to) if to else None
    ),
    st.sampled_from([(), ("groq",), ("openai", "local"), ("local",)]),
    st.sampled_from([(), ("openai",), ("groq", "local")]),
    st.sampled_from([frozenset[str](), frozenset({"local"}), frozenset({"openai"})]),
    st.sampled_from([(), ("groq",), ("openai",)]),
)


@given(one=ARMS, forbidden=st.frozensets(st.sampled_from(["local", "groq", "openai"])), private=st.booleans())
def test_an_arm_brings_back_nothing_that_a_rule_or_privacy_forbids(
    one: Rule, forbidden: frozenset[str], private: bool
) -> None:
    rules = Rules((one, Rule("never", Conditions(), forbid=forbidden)))
    policy = ruled(POLICY, rules, (0, 1))
    request = facts(privacy=PrivacyVerdict(not private, ("keyword",) if private else ()))
    for decision in (decide(request, signals(), policy), decide_escalation(request, signals(), policy)):
        assert not forbidden & set(names(decision))
        assert not private or all(candidate.backend.local for candidate in decision.candidates)
