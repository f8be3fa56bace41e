"""decide(): every filter, the order, overflow, names and refusals; and that private content never leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import (
    ALL,
    BUSY,
    CLOUD,
    FULL,
    GROQ,
    IDLE,
    LOCAL,
    NOW,
    OPENAI,
    POLICY,
    facts,
    names,
    signals,
    why,
)

from spillway_router.core.money.tariff import upper_bound
from spillway_router.core.routing.backlog import BacklogView, EngineRates
from spillway_router.core.routing.filters import cost_bound_nano
from spillway_router.core.routing.model import (
    BackendSignals,
    Caller,
    Capability,
    Endpoint,
    Hints,
    Preferences,
    PrivacyVerdict,
    RequestFacts,
    Signals,
)
from spillway_router.core.routing.policy import UNKNOWN, Policy, decide, decide_byok, decide_escalation

PRIVATE = PrivacyVerdict(False, ("header",))


def test_an_idle_engine_keeps_the_request() -> None:
    decision = decide(facts(), signals(), POLICY)
    assert (decision.kind, decision.reasons, decision.policy) == ("local", (), "v1")
    assert names(decision) == ["local", "groq", "openai"]
    assert decision.refusal is None
    assert decision.removed == ()
    first = decision.candidates[0]
    assert (first.bound_nano, first.reasons) == (0, ())
    assert 0 < first.ttft_s < 2
    assert GROQ.tariff is not None
    assert decision.candidates[1].bound_nano == upper_bound(GROQ.tariff, input_tokens=300 + 64, output_tokens=100)


def test_the_same_inputs_give_the_same_decision() -> None:
    assert decide(facts(), signals(local=BUSY), POLICY) == decide(facts(), signals(local=BUSY), POLICY)


# --- filters: each removes with its reason


@pytest.mark.parametrize(
    ("request_facts", "backend_signals", "gone"),
    [
        (facts(hints=Hints(route="local")), {}, {"groq": "route", "openai": "route"}),
        (facts(hints=Hints(route="cloud")), {}, {"local": "route"}),
        (facts(privacy=PRIVATE), {}, {"groq": "privacy", "openai": "privacy"}),
        (facts(caller=Caller(local_only=True)), {}, {"groq": "privacy", "openai": "privacy"}),
        (facts(preferences=Preferences(only=frozenset({"groq"}))), {}, {"local": "preference", "openai": "preference"}),
        (facts(preferences=Preferences(ignore=frozenset({"vllm"}))), {}, {"local": "preference"}),
        (facts(preferences=Preferences(max_input_per_million=1.0)), {}, {"openai": "preference"}),
        (facts(preferences=Preferences(max_output_per_million=1.0)), {}, {"openai": "preference"}),
        (facts(endpoint="embeddings"), {}, {"groq": "endpoint", "openai": "space"}),
        (facts(needs=frozenset({"logprobs"})), {}, {"groq": "capability"}),
        (facts(prompt_bytes=900_000), {}, {"groq": "context"}),
        (facts(max_tokens=200_000), {}, {"groq": "context"}),
        (facts(), {"local": replace(IDLE, health="down", health_reason="no answer")}, {"local": "health"}),
        (facts(), {"local": replace(IDLE, health="starting")}, {"local": "health"}),
        (facts(), {"groq": replace(CLOUD, breaker_open=True)}, {"groq": "health"}),
        (facts(), {"openai": replace(CLOUD, headroom_nano=1)}, {"openai": "budget"}),
        (facts(hints=Hints(max_cost_nano=100_000)), {}, {"openai": "budget"}),
        (facts(), {"groq": replace(CLOUD, limited_until=NOW + 3)}, {"groq": "rate_limit"}),
    ],
)
def test_each_filter_removes_with_its_reason(
    request_facts: RequestFacts, backend_signals: dict[str, BackendSignals], gone: dict[str, str]
) -> None:
    decision = decide(request_facts, signals(**backend_signals), POLICY)
    assert why(decision) == gone
    assert set(names(decision)) == {"local", "groq", "openai"} - gone.keys()
    assert all(removed.detail for removed in decision.removed)


def test_what_is_equal_to_a_limit_stays() -> None:
    bound = cost_bound_nano(facts(), OPENAI)
    enough = replace(CLOUD, headroom_nano=bound, limited_until=NOW)
    assert names(decide(facts(hints=Hints(max_cost_nano=bound)), signals(openai=enough), POLICY)) == [
        "local",
        "groq",
        "openai",
    ]
    short = replace(CLOUD, headroom_nano=bound - 1)
    assert why(decide(facts(), signals(openai=short), POLICY)) == {"openai": "budget"}


def test_a_cloud_without_a_price_is_barred_never_free() -> None:
    policy = replace(POLICY, backends={**POLICY.backends, "groq": replace(GROQ, tariff=None)})
    assert why(decide(facts(), signals(), policy)) == {"groq": "price"}


def test_data_collection_denied() -> None:
    policy = replace(POLICY, backends={**POLICY.backends, "groq": replace(GROQ, collects_data=True)})
    denied = facts(preferences=Preferences(no_data_collection=True))
    assert why(decide(denied, signals(), policy)) == {"groq": "preference"}
    assert why(decide(facts(), signals(), policy)) == {}


def test_a_backend_of_which_nothing_is_known_is_down() -> None:
    backend_signals = Signals(NOW, {"groq": CLOUD})
    decision = decide(facts(), backend_signals, POLICY)
    assert why(decision) == {"local": "health", "openai": "health"}
    assert (decision.kind, names(decision), decision.reasons) == ("fallback", ["groq"], ("health",))
    assert UNKNOWN.health == "down"


# --- overflow


@pytest.mark.parametrize(("engine", "reason"), [(BUSY, "queue"), (FULL, "kv")])
def test_an_engine_past_its_promise_overflows(engine: BackendSignals, reason: str) -> None:
    decision = decide(facts(), signals(local=engine), POLICY)
    assert (decision.kind, decision.reasons) == ("overflow", (reason,))
    assert names(decision) == ["groq", "openai", "local"]


def test_waiting_beats_a_cloud_that_is_slower_still() -> None:
    slow = replace(CLOUD, ttft_s=60.0)
    decision = decide(facts(), signals(local=BUSY, groq=slow, openai=slow), POLICY)
    assert (decision.kind, decision.reasons) == ("local", ())
    assert names(decision)[0] == "local"


def test_a_wait_that_breaks_the_promise_is_refused_where_nobody_else_may_answer() -> None:
    decision = decide(facts(privacy=PRIVATE), signals(local=BUSY), POLICY)
    assert (names(decision), decision.reasons) == ([], ("queue", "privacy"))
    refusal = decision.refusal
    assert refusal is not None
    assert (refusal.status, refusal.code) == (503, "local_only_unavailable")
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 60


def test_waiting_beats_refusing_where_each_prompt_takes_long() -> None:
    slow = replace(BUSY, rates=EngineRates(prefill_tokens_per_s=20))
    wait_s = BUSY.backlog.prefill_tokens / 20 if BUSY.backlog is not None else 0.0
    long = facts(privacy=PRIVATE, prompt_bytes=3 * int(20 * wait_s))
    assert names(decide(long, signals(local=slow), POLICY)) == ["local"]


def test_a_throttled_gpu_is_slower_and_named() -> None:
    # 18,000 tokens ahead: 1.5 s at the learned rate, 3 s at half of it; the promise is 1.7 s.
    ahead = replace(
        IDLE,
        backlog=BacklogView(in_flight=6, waiting_first_token=6, prefill_tokens=18_000, decoding=0, kv_tokens=20_000),
    )
    assert decide(facts(), signals(local=ahead), POLICY).kind == "local"
    decision = decide(facts(), signals(local=replace(ahead, gpu_rate=0.5)), POLICY)
    assert (decision.kind, decision.reasons) == ("overflow", ("queue", "gpu"))


def test_the_request_may_ask_for_another_promise() -> None:
    ahead = replace(
        IDLE,
        backlog=BacklogView(in_flight=6, waiting_first_token=6, prefill_tokens=12_000, decoding=0, kv_tokens=20_000),
    )  # one second
    assert decide(facts(hints=Hints(slo_ttft_s=0.5)), signals(local=ahead), POLICY).kind == "overflow"
    assert decide(facts(hints=Hints(slo_ttft_s=5.0)), signals(local=BUSY), POLICY).kind == "overflow"
    assert decide(facts(hints=Hints(slo_ttft_s=9.0)), signals(local=BUSY), POLICY).kind == "local"


def test_the_freer_engine_comes_first_and_serves_before_a_cloud() -> None:
    decision = decide(facts(model="both"), signals(local=BUSY), POLICY)
    assert (decision.kind, names(decision)[:2]) == ("local", ["spare", "local"])
    decision = decide(facts(model="both"), signals(local=BUSY, spare=BUSY), POLICY)
    assert (decision.kind, names(decision)[0]) == ("overflow", "groq")


def test_a_local_engine_that_is_down_falls_back() -> None:
    decision = decide(facts(), signals(local=replace(IDLE, health="down", health_reason="hangs")), POLICY)
    assert (decision.kind, decision.reasons, names(decision)) == ("fallback", ("health",), ["groq", "openai"])


# --- names, suffixes, preferences


@pytest.mark.parametrize("model", ["groq/openai/gpt-oss-20b", "groq", "groq/", "openai/gpt-oss-20b"])
def test_pinned(model: str) -> None:
    decision = decide(facts(model=model), signals(), POLICY)
    assert (decision.kind, decision.reasons, names(decision)) == ("pinned", ("pinned",), ["groq"])


def test_a_pinned_engine_is_not_left_even_when_it_is_busy() -> None:
    busy = replace(BUSY, backlog=None if BUSY.backlog is None else replace(BUSY.backlog, prefill_tokens=18_000))
    decision = decide(facts(model="local/demo"), signals(local=busy), POLICY)
    assert (decision.kind, names(decision)) == ("pinned", ["local"])
    refusal = decide(facts(model="local/demo"), signals(local=BUSY), POLICY).refusal
    assert refusal is not None
    assert refusal.code == "overloaded"


def test_a_model_served_by_two_engines_may_use_both() -> None:
    assert set(names(decide(facts(model="demo"), signals(), POLICY))) == {"local", "spare"}


def test_suffixes() -> None:
    quick = replace(CLOUD, ttft_s=0.001)
    assert names(decide(facts(model="auto:fastest"), signals(openai=quick), POLICY))[0] == "openai"
    assert names(decide(facts(model="cloud:cheapest"), signals(openai=quick), POLICY)) == ["groq", "openai"]
    assert names(decide(facts(model="auto:cheapest"), signals(openai=quick), POLICY))[0] == "local"
    by_field = facts(preferences=Preferences(sort="fastest"))
    assert names(decide(by_field, signals(openai=quick), POLICY))[0] == "openai"


def test_a_suffix_that_belongs_to_the_models_name_stays_with_it() -> None:
    hub = replace(GROQ, name="hf", provider="huggingface", model="org/model:fastest")
    policy = replace(POLICY, backends={**POLICY.backends, "hf": hub})
    backend_signals = signals(hf=CLOUD)
    assert names(decide(facts(model="hf/org/model:fastest"), backend_signals, policy)) == ["hf"]
    assert names(decide(facts(model="org/model:fastest"), backend_signals, policy)) == ["hf"]


def test_models_adds_alternatives() -> None:
    request = facts(
        model="local/demo", preferences=Preferences(models=("openai/gpt-5.4-mini", "no-such", "local/demo"))
    )
    assert names(decide(request, signals(), POLICY)) == ["local", "openai"]
    only_alternative = facts(model="no-such", preferences=Preferences(models=("auto",)))
    assert names(decide(only_alternative, signals(), POLICY)) == ["local", "groq", "openai"]


def test_order_and_fallbacks() -> None:
    ordered = facts(preferences=Preferences(order=("openai", "groq")))
    decision = decide(ordered, signals(), POLICY)
    assert names(decision) == ["openai", "groq", "local"]
    assert (decision.kind, decision.reasons) == ("routed", ("preference",))
    single = facts(preferences=Preferences(order=("openai",), allow_fallbacks=False))
    assert names(decide(single, signals(), POLICY)) == ["openai"]


# --- refusals


def test_an_unknown_model_is_a_404_that_says_which_are_known() -> None:
    decision = decide(facts(model="gpt-99"), signals(), POLICY)
    assert decision.refusal is not None
    assert (decision.refusal.status, decision.refusal.code, decision.refusal.param) == (404, "model_not_found", "model")
    assert "auto" in decision.refusal.message
    assert decision.candidates == ()


DOWN = replace(IDLE, health="down", health_reason="no answer")
LATER = replace(CLOUD, limited_until=NOW + 20)


@pytest.mark.parametrize(
    ("request_facts", "backend_signals", "status", "code", "wait"),
    [
        (facts(privacy=PRIVATE), {"local": DOWN}, 503, "local_only_unavailable", 5.0),
        (facts(model="cloud", privacy=PRIVATE), {"local": DOWN, "spare": DOWN}, 503, "local_only_unavailable", 5.0),
        (facts(privacy=PRIVATE, hints=Hints(route="cloud")), {}, 503, "local_only_unavailable", 5.0),
        (facts(model="cloud", hints=Hints(max_cost_nano=0)), {}, 402, "budget_exceeded", None),
        (facts(hints=Hints(max_cost_nano=0)), {"local": DOWN}, 402, "budget_exceeded", None),
        (
            facts(model="cloud"),
            {"groq": LATER, "openai": replace(LATER, limited_until=NOW + 9)},
            503,
            "overloaded",
            9.0,
        ),
        (facts(model="groq"), {"groq": LATER, "local": replace(IDLE, limited_until=NOW + 1)}, 503, "overloaded", 20.0),
        (facts(model="groq"), {"groq": replace(LATER, limited_until=NOW + 900)}, 503, "overloaded", 60.0),
        (facts(), {"local": DOWN, "groq": DOWN, "openai": DOWN}, 503, "no_backend", 5.0),
        (facts(model="groq", needs=frozenset({"logprobs"})), {}, 400, "invalid_request", None),
    ],
)
def test_refusals(
    request_facts: RequestFacts, backend_signals: dict[str, BackendSignals], status: int, code: str, wait: float | None
) -> None:
    decision = decide(request_facts, signals(**backend_signals), POLICY)
    assert decision.candidates == ()
    refusal = decision.refusal
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s, refusal.final) == (status, code, wait, True)
    assert decision.reasons == tuple(dict.fromkeys(why(decision).values()))
    for backend, _ in why(decision).items():
        assert backend in refusal.message


# --- escalation


def test_escalation_goes_to_the_clouds_in_their_order_through_the_same_filters() -> None:
    decision = decide_escalation(facts(), signals(), POLICY)
    assert (decision.kind, decision.reasons, names(decision)) == ("escalated", ("confidence",), ["groq", "openai"])
    broke = signals(groq=replace(CLOUD, headroom_nano=0))
    assert names(decide_escalation(facts(), broke, POLICY)) == ["openai"]
    decision = decide_escalation(facts(privacy=PRIVATE), signals(), POLICY)
    assert (decision.kind, names(decision), decision.reasons) == ("local", [], ("confidence", "privacy"))


# --- private content never leaves

ENGINES = st.builds(
    BackendSignals,
    health=st.sampled_from(["up", "starting", "down"]),
    breaker_open=st.booleans(),
    limited_until=st.floats(0, 2 * NOW),
    ttft_s=st.floats(0, 100),
    tokens_per_byte=st.floats(0.01, 2),
    backlog=st.one_of(st.none(), st.builds(BacklogView, *[st.integers(0, 10**6)] * 5)),
    rates=st.just(EngineRates()),
    margin=st.floats(0.1, 2),
    gpu_rate=st.floats(0.1, 1),
    headroom_nano=st.one_of(st.none(), st.integers(0, 10**12)),
)
NAMES = st.sampled_from(["local", "spare", "groq", "openai", "vllm"])
CAPABILITIES: st.SearchStrategy[Capability] = st.sampled_from(["tools", "vision", "json_schema", "logprobs"])
ENDPOINTS: st.SearchStrategy[Endpoint] = st.sampled_from(sorted(ALL))
MODELS = st.sampled_from(
    [
        "auto",
        "both",
        "cloud",
        "demo",
        "groq",
        "openai/gpt-5.4-mini",
        "local/demo",
        "x",
        "auto:fastest",
        "cloud:cheapest",
    ]
)
WANTED = st.builds(
    Preferences,
    models=st.lists(MODELS, max_size=3).map(tuple),
    sort=st.sampled_from(["", "fastest", "cheapest"]),
    order=st.lists(NAMES, max_size=3).map(tuple),
    only=st.frozensets(NAMES, max_size=2),
    ignore=st.frozensets(NAMES, max_size=2),
    allow_fallbacks=st.booleans(),
)
REQUESTS = st.builds(
    facts,
    endpoint=ENDPOINTS,
    model=MODELS,
    prompt_bytes=st.integers(0, 10**6),
    max_tokens=st.one_of(st.none(), st.integers(1, 10**6)),
    needs=st.frozensets(CAPABILITIES, max_size=1),
    hints=st.builds(Hints, route=st.sampled_from(["auto", "local", "cloud"]), slo_ttft_s=st.floats(0.01, 10)),
    preferences=WANTED,
)
WORLDS = st.fixed_dictionaries({}, optional=dict.fromkeys(["local", "spare", "groq", "openai"], ENGINES)).map(
    lambda backends: Signals(NOW, backends)
)


@settings(max_examples=500, deadline=None)
@given(REQUESTS, WORLDS, st.booleans())
def test_private_content_never_gets_a_cloud_candidate(
    request_facts: RequestFacts, world: Signals, by_key: bool
) -> None:
    private = (
        replace(request_facts, caller=Caller(local_only=True)) if by_key else replace(request_facts, privacy=PRIVATE)
    )
    for decision in (decide(private, world, POLICY), decide_escalation(private, world, POLICY)):
        assert all(c.backend.local for c in decision.candidates)
        assert decision.kind in ("local", "pinned", "refused")


@settings(max_examples=500, deadline=None)
@given(REQUESTS, WORLDS)
def test_a_decision_has_candidates_or_a_refusal_and_accounts_for_the_chain(
    request_facts: RequestFacts, world: Signals
) -> None:
    decision = decide(request_facts, world, POLICY)
    assert bool(decision.candidates) != (decision.refusal is not None)
    ordered = names(decision)
    assert len(set(ordered)) == len(ordered)
    assert not set(ordered) & set(why(decision))
    for candidate in decision.candidates:
        state = world.backends[candidate.backend.name]
        assert (state.health, state.breaker_open) == ("up", False)
        assert candidate.backend.local == (candidate.bound_nano == 0)


def test_local_backends_are_told_from_clouds_by_their_flag_alone() -> None:
    lookalike = replace(LOCAL, name="far", local=False, tariff=OPENAI.tariff)
    policy = Policy("v2", {"far": lookalike}, {"auto": ("far",)})
    decision = decide(facts(privacy=PRIVATE), Signals(NOW, {"far": IDLE}), policy)
    assert why(decision) == {"far": "privacy"}


def test_an_own_key_goes_to_its_place_whatever_is_busy_or_spent() -> None:
    with_own_key = replace(GROQ, name="own-groq", tariff=None)
    decision = decide_byok(facts(model="openai/gpt-oss-20b"), with_own_key, signals(local=BUSY), POLICY)
    assert (decision.kind, decision.reasons, names(decision)) == ("byok", ("byok",), ["own-groq"])
    assert decision.candidates[0].bound_nano == 0


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"privacy": PrivacyVerdict(False, ("header",))}, 503, "privacy"),
        ({"caller": Caller(local_only=True)}, 503, "privacy"),
        ({"hints": Hints(route="local")}, 400, "route"),
        ({"endpoint": "embeddings"}, 400, "endpoint"),
    ],
)
def test_an_own_key_lifts_no_restriction(changes: dict[str, Any], status: int, reason: str) -> None:
    with_own_key = replace(GROQ, name="own-groq", tariff=None)
    decision = decide_byok(facts(**changes), with_own_key, signals(), POLICY)
    assert not decision.candidates
    assert decision.refusal is not None
    assert (decision.refusal.status, decision.reasons) == (status, (reason,))
