"""All parts of the policy together: rules, arms, shadows, keys, hints, preferences, budgets, health, on every way to a
backend. A restriction never adds a candidate, private content stays, the same inputs give the same decision, and every
decision is explained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import BUSY, CLOUD, FULL, GROQ, IDLE, NOW, OPENAI, POLICY, facts

from spillway_router.core.routing.experiments import PLACES, Arm
from spillway_router.core.routing.model import (
    NO_PREFERENCES,
    Backend,
    BackendSignals,
    Caller,
    Decision,
    Hints,
    KeyRules,
    Preferences,
    PrivacyVerdict,
    RequestFacts,
    Signals,
)
from spillway_router.core.routing.policy import (
    ConfidenceRule,
    Policy,
    backends_to_count,
    decide,
    decide_better,
    decide_byok,
    decide_escalation,
    may_be_given,
    referee_candidate,
)
from spillway_router.core.routing.rules import Conditions, Moment, Rule, Rules, Span, ruled
from spillway_router.core.routing.traits.conversation import Traits

MANY = replace(GROQ, name="many", provider="openrouter", model="x/y", knows_preferences=True, collects_data=True)
BACKENDS = {**POLICY.backends, "many": MANY}
WIDE = replace(
    POLICY,
    backends=BACKENDS,
    aliases={**POLICY.aliases, "wide": tuple(BACKENDS)},
    gpu_busy_above=0.9,
    confidence=ConfidenceRule(0.8, ("groq", "many", "openai"), {"groq": 0.6}),
)
NAMES = tuple(BACKENDS)
MODELS = ("auto", "both", "cloud", "wide", "cloud:cheapest", "wide:nitro", "groq", "local", "many", "demo", "nobody")
MOMENT = Moment(wall_s=1_793_534_400.0, budget_left=0.3, waiting=2, gpu_utilisation=0.95)

some = st.sampled_from
subsets = st.frozensets(some(NAMES), max_size=2)
chains = st.lists(some(NAMES), unique=True, max_size=3).map(tuple)

CONDITIONS = st.builds(
    Conditions,
    models=some([frozenset(), frozenset({"auto"}), frozenset({"cloud", "wide"})]),
    tasks=some([frozenset(), frozenset({"code"})]),
    tiers=some([frozenset(), frozenset({"paid"})]),
    complexity=some([None, Span(5)]),
    private=some([None, True, False]),
    budget_left_below=some([None, 0.5]),
    gpu_busy_above=some([None, 0.9]),
    arms=some([frozenset(), frozenset({"x/b"}), frozenset({"x/control"})]),
    confidence_below=some([None, None, 0.4]),
)
STEPS = st.none() | st.builds(ConfidenceRule, threshold=some([0.5, 0.9]), escalate_to=chains)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Rules of a policy after the arms of one experiment, one of which may be a shadow."""
    arms_and_rules: list[Rule] = []
    for place in range(draw(st.integers(0, 2))):
        shadow = draw(some(["", "dry", "asked"]))
        begins = place * PLACES // 2
        arm = Arm(experiment="x", name="b" if place == 0 else "c", by="key", begins=begins, ends=begins + PLACES // 2)
        effects = {"chain": draw(chains), "prefer": draw(chains), "forbid": draw(subsets), "confidence": draw(STEPS)}
        arms_and_rules.append(Rule(arm.title, Conditions(), **effects, arm=replace(arm, shadow=shadow)))
    for number in range(draw(st.integers(0, 3))):
        effects = {"chain": draw(chains), "prefer": draw(chains), "forbid": draw(subsets), "confidence": draw(STEPS)}
        arms_and_rules.append(Rule(f"rule {number}", draw(CONDITIONS), **effects))
    return Rules(tuple(arms_and_rules))


PREFERENCES = (
    st.just(NO_PREFERENCES)
    | st.just(NO_PREFERENCES)
    | st.builds(
        Preferences,
        models=st.lists(some(MODELS), max_size=2).map(tuple),
        sort=some(["", "fastest", "cheapest"]),
        order=chains,
        only=some([frozenset(), frozenset({"groq", "vllm"})]),
        ignore=some([frozenset(), frozenset({"groq"})]),
        allow_fallbacks=st.booleans(),
        max_input_per_million=some([None, 1.0]),
        no_data_collection=st.booleans(),
        zero_retention=st.booleans(),
        across_models=st.booleans(),
    )
)
KEYS = some(
    [
        None,
        None,
        None,
        KeyRules(backends=frozenset({"local", "groq"})),
        KeyRules(models=frozenset({"auto", "cloud"})),
        KeyRules(models=frozenset({"auto"}), backends=frozenset({"spare", "openai"})),
    ]
)
CALLERS = st.builds(
    Caller,
    key_id=some(["", "k1", "k2"]),
    tier=some(["", "paid"]),
    may_route=some([True, True, False]),
    local_only=some([False] * 6 + [True]),
    rules=KEYS,
)
HINTS = st.builds(
    Hints,
    route=some(["auto"] * 5 + ["local", "cloud"]),
    slo_ttft_s=some([None, 0.2]),
    max_cost_nano=some([None, None, None, 0, 10**9]),
)
REQUESTS = st.builds(
    facts,
    model=some(MODELS),
    endpoint=some(["chat", "chat", "chat", "responses", "embeddings"]),
    prompt_bytes=some([300, 300, 300, 900_000]),
    needs=some([frozenset(), frozenset({"logprobs"})]),
    privacy=some([*[PrivacyVerdict(True)] * 4, PrivacyVerdict(False, ("header",))]),
    caller=CALLERS,
    hints=HINTS,
    preferences=PREFERENCES,
    traits=some([None, Traits(task="code", complexity=7, factors=(), language="en")]),
)
STATES = some([IDLE, IDLE, BUSY, FULL, replace(IDLE, health="down"), replace(IDLE, gpu_utilisation=0.95)])
CLOUDS = some([CLOUD, CLOUD, replace(CLOUD, breaker_open=True), replace(CLOUD, limited_until=NOW + 9)])
SIGNALS = st.fixed_dictionaries(
    {"local": STATES, "spare": STATES, "groq": CLOUDS, "openai": CLOUDS, "many": CLOUDS}
).map(lambda backends: Signals(NOW, backends))


@dataclass(frozen=True)
class Way:
    """One way to a backend: how it is called, who may be asked by it, and its decision if it makes one."""

    name: str
    backends: tuple[Backend, ...]
    decision: Decision | None = None


def ways(request: RequestFacts, signals: Signals, configured: Rules) -> Iterator[Way]:
    """Every way by which a request can reach a backend."""
    places = configured.matching(request, MOMENT)
    policy = ruled(WIDE, configured, places)
    yield _decided("decide", decide(request, signals, policy))
    unsure = configured.matching(request, replace(MOMENT, confidence=0.1))
    for name, holding in (("escalate", places), ("escalate, unsure", unsure)):
        yield _decided(name, decide_escalation(request, signals, ruled(WIDE, configured, holding)))
    yield _decided("escalate further", decide_escalation(request, signals, policy, above="groq"))
    yield _decided("better", decide_better(request, signals, policy, "local"))
    yield _decided("own key", decide_byok(request, replace(OPENAI, name="own-openai"), signals, policy))
    judges = [referee_candidate(request, signals, policy, name) for name in NAMES]
    yield Way("referee", tuple(one.backend for one in judges if one is not None))
    yield Way("cache", tuple(BACKENDS[name] for name in NAMES if may_be_given(request, name, policy)))
    counting = backends_to_count(request, signals, policy)
    yield Way("count", tuple(counting) if isinstance(counting, list) else ())
    shadow = ruled(WIDE, configured, places, in_shadow=True)
    if shadow.ruling.arm is not None and shadow.ruling.arm.shadow:
        yield _decided("shadow", decide(shadow.ruling.arm.in_shadow(request), signals, shadow))


def _decided(name: str, decision: Decision) -> Way:
    return Way(name, tuple(candidate.backend for candidate in decision.candidates), decision)


def forbidden_names(request: RequestFacts, configured: Rules) -> set[str]:
    chosen = [configured.rules[place] for place in configured.matching(request, MOMENT)]
    return {name for rule in chosen if rule.arm is None or not rule.arm.shadow for name in rule.forbid}


@settings(max_examples=300)
@given(REQUESTS, SIGNALS, rules())
def test_what_is_forbidden_is_forbidden_on_every_way(
    request: RequestFacts, signals: Signals, configured: Rules
) -> None:
    private = not request.privacy.may_leave or request.caller.local_only
    forbidden, allowed = forbidden_names(request, configured), request.caller.rules
    for way in ways(request, signals, configured):
        for backend in way.backends:
            assert backend.local or not private, way
            assert backend.name not in forbidden, way
            # An own key is the caller's: its backend has no name that a key could list.
            if allowed is not None and allowed.backends:
                assert backend.name in allowed.backends, way
            assert not {backend.name, backend.provider} & request.preferences.ignore, way


@settings(max_examples=300)
@given(REQUESTS, SIGNALS, rules())
def test_every_decision_is_the_same_again_and_is_explained(
    request: RequestFacts, signals: Signals, configured: Rules
) -> None:
    places = configured.matching(request, MOMENT)
    policy = ruled(WIDE, configured, places)
    decision = decide(request, signals, policy)
    assert decision == decide(request, signals, policy)
    assert places == configured.matching(request, MOMENT)
    assert decision.policy == WIDE.version
    assert decision.rules == (policy.ruling.rules if policy.ruling.rules else ())
    assert bool(decision.candidates) != (decision.refusal is not None)
    if decision.refusal is not None:
        assert decision.refusal.status in (400, 402, 403, 404, 503)
        assert len(decision.refusal.message) > 20
    elif not decision.candidates[0].backend.local:
        assert decision.reasons, "whoever leaves gets a reason"
        assert decision.kind != "local"
    for removed in decision.removed:
        assert removed.reason
        assert len(removed.detail) > 5
    _all_are_accounted_for(request, policy, decision)


def _all_are_accounted_for(request: RequestFacts, policy: Policy, decision: Decision) -> None:
    """Every backend of an alias's chain is a candidate or was removed with a reason."""
    if request.model not in policy.aliases or request.preferences.models or decision.refusal is not None:
        return
    if not request.preferences.allow_fallbacks or request.caller.rules is not None or not request.caller.may_route:
        return
    accounted = {one.backend.name for one in decision.candidates} | {one.backend for one in decision.removed}
    assert set(policy.aliases[request.model]) <= accounted


def _without(request: RequestFacts, name: str) -> Iterator[tuple[str, RequestFacts]]:
    """The request with one restriction more, each time another one."""
    wanted, caller = request.preferences, request.caller
    yield "hint", replace(request, hints=replace(request.hints, max_cost_nano=0))
    yield "ignore", replace(request, preferences=replace(wanted, ignore=wanted.ignore | {name}))
    yield "zdr", replace(request, preferences=replace(wanted, zero_retention=True))
    yield "data", replace(request, preferences=replace(wanted, no_data_collection=True))
    yield "price", replace(request, preferences=replace(wanted, max_input_per_million=0.0))
    if caller.rules is None:
        yield "key", replace(request, caller=replace(caller, rules=KeyRules(backends=frozenset({name}))))


@settings(max_examples=300)
@given(REQUESTS, SIGNALS, rules(), some(NAMES))
def test_a_restriction_never_adds_a_candidate(
    request: RequestFacts, signals: Signals, configured: Rules, name: str
) -> None:
    # What cuts the list to its first candidate is no restriction of who may answer.
    if not request.preferences.allow_fallbacks and not request.preferences.order:
        return
    before = {way.name: {backend.name for backend in way.backends} for way in ways(request, signals, configured)}
    for title, narrower in _without(request, name):
        for way in ways(narrower, signals, configured):
            added = {backend.name for backend in way.backends} - before[way.name]
            assert not added, (title, way.name, added)
    rule = Rule("one more", Conditions(), forbid=frozenset({name}))
    stricter = replace(configured, rules=(*configured.rules, rule))
    for way in ways(request, signals, stricter):
        assert {backend.name for backend in way.backends} <= before[way.name] - {name}, way.name


@settings(max_examples=200)
@given(REQUESTS, SIGNALS, rules())
def test_privacy_brings_nobody_but_engines(request: RequestFacts, signals: Signals, configured: Rules) -> None:
    """Private requests for an alias of clouds may go to an engine; else privacy only takes away."""
    public = replace(request, privacy=PrivacyVerdict(True), caller=replace(request.caller, local_only=False))
    if any(rule.when.private is not None for rule in configured.rules):
        return
    private = replace(public, privacy=PrivacyVerdict(False, ("header",)))
    before = {way.name: {backend.name for backend in way.backends} for way in ways(public, signals, configured)}
    for way in ways(private, signals, configured):
        added = {backend.name for backend in way.backends} - before.get(way.name, set())
        if not public.preferences.allow_fallbacks:
            continue
        assert all(BACKENDS[name].local for name in added), (way.name, added)


def test_the_search_has_not_gone_blind() -> None:
    """The generated requests are of use: some are answered, refused, ruled, escalated and in a shadow."""
    seen: dict[str, int] = {}

    @settings(max_examples=300, database=None, derandomize=True)
    @given(REQUESTS, SIGNALS, rules())
    def count(request: RequestFacts, signals: Signals, configured: Rules) -> None:
        for way in ways(request, signals, configured):
            seen[way.name] = seen.get(way.name, 0) + bool(way.backends)
            if way.decision is not None and way.decision.refusal is not None:
                seen[f"{way.name} refused"] = seen.get(f"{way.name} refused", 0) + 1

    count()
    for name in ("decide", "decide refused", "escalate", "better", "own key", "referee", "cache", "count", "shadow"):
        assert seen.get(name, 0) > 1, seen


def any_signals(**changes: BackendSignals) -> Any:
    return Signals(NOW, {name: changes.get(name, IDLE if BACKENDS[name].local else CLOUD) for name in NAMES})


def test_an_idle_world_serves_the_chain() -> None:
    decision = decide(facts(model="wide"), any_signals(), WIDE)
    assert {candidate.backend.name for candidate in decision.candidates} == set(NAMES)
