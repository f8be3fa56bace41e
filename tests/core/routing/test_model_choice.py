"""The client's choice of models: fallback lists, suffixes and OpenRouter's `provider`, which only ever restrict."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.scenes import CLOUD, DEAR, GROQ, LOCAL, OPENAI, POLICY, facts, names, signals, why

from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.model import Backend, Caller, KeyRules, Preferences, PrivacyVerdict, RequestFacts
from spillway_router.core.routing.policy import decide
from spillway_router.core.routing.rules import Conditions, Moment, Rule, Rules, ruled

MANY = Backend(
    name="openrouter",
    provider="openrouter",
    model="openai/gpt-oss-120b",
    local=False,
    endpoints=GROQ.endpoints,
    capabilities=GROQ.capabilities,
    tariff=DEAR,
    knows_preferences=True,
)
WIDE = replace(POLICY, backends={**POLICY.backends, "openrouter": MANY})
KNOWN = signals(openrouter=CLOUD)


def decided(model: str = "cloud", **wanted: Any) -> Any:
    return decide(facts(model=model, preferences=Preferences(**wanted)), KNOWN, WIDE)


def test_a_fallback_list_keeps_its_order() -> None:
    assert names(decided("openai", models=("openai", "groq", "local"))) == ["openai", "groq", "local"]


def test_an_unknown_name_in_the_list_is_told_and_left_out() -> None:
    decision = decided("gpt-9", models=("groq", "gpt-8"))
    assert names(decision) == ["groq"]
    assert why(decision) == {"gpt-9": "model", "gpt-8": "model"}


def test_a_list_of_unknown_names_is_refused() -> None:
    decision = decided("gpt-9", models=("gpt-8",))
    assert decision.refusal is not None
    assert (decision.refusal.status, decision.refusal.code) == (404, "model_not_found")


@pytest.mark.parametrize("suffix", ["cheapest", "floor"])
def test_suffixes_sort_also_in_the_list(suffix: str) -> None:
    dear_first = replace(WIDE, aliases={**WIDE.aliases, "cloud": ("openai", "groq")})
    wanted = Preferences(models=(f"cloud:{suffix}", "local"))
    assert names(decide(facts(model="gpt-9", preferences=wanted), KNOWN, dear_first)) == ["groq", "openai", "local"]
    assert names(decide(facts(model=f"cloud:{suffix}"), KNOWN, dear_first)) == ["groq", "openai"]


def test_fastest_and_nitro_put_the_quicker_one_first() -> None:
    slow = signals(openrouter=CLOUD, groq=replace(CLOUD, ttft_s=3.0))
    for suffix in ("fastest", "nitro"):
        assert names(decide(facts(model=f"cloud:{suffix}"), slow, WIDE)) == ["openai", "groq"]


def test_a_sort_stays_within_each_model_unless_it_goes_across_all() -> None:
    assert names(decided("openai", models=("groq",), sort="cheapest")) == ["openai", "groq"]
    across = decided("openai", models=("groq",), sort="cheapest", across_models=True)
    assert names(across) == ["groq", "openai"]


def test_an_order_without_fallbacks_keeps_to_the_list() -> None:
    decision = decided("auto", order=("openai", "groq"), allow_fallbacks=False)
    assert names(decision) == ["openai", "groq"]
    assert why(decision) == {"local": "preference"}
    assert names(decided("auto", allow_fallbacks=False)) == ["local"]


def test_zero_retention_needs_a_promise() -> None:
    assert names(decided("auto", zero_retention=True)) == ["local"]
    promised = replace(WIDE, backends={**WIDE.backends, "groq": replace(GROQ, zero_retention=True)})
    request = facts(preferences=Preferences(zero_retention=True))
    assert names(decide(request, KNOWN, promised)) == ["local", "groq"]


def test_parameters_that_would_be_dropped_remove_a_backend_where_all_are_required() -> None:
    dropping = replace(WIDE, backends={**WIDE.backends, "groq": replace(GROQ, drops_fields=frozenset({"top_k"}))})
    request = facts(model="cloud", preferences=Preferences(needed_fields=frozenset({"top_k", "messages"})))
    decision = decide(request, KNOWN, dropping)
    assert names(decision) == ["openai"]
    assert why(decision) == {"groq": "preference"}


def test_what_nobody_knows_of_a_backend_is_not_promised() -> None:
    decision = decided("local", models=("groq", "openrouter"), unjudged=("provider.quantizations",))
    assert names(decision) == ["openrouter"]


def test_the_price_per_request_is_a_price() -> None:
    fee = replace(OPENAI, tariff=Tariff(Decimal(1), Decimal(1), per_request=Decimal("0.01")))
    priced = replace(WIDE, backends={**WIDE.backends, "openai": fee})
    decision = decide(facts(model="cloud", preferences=Preferences(max_per_request=0.0)), KNOWN, priced)
    assert names(decision) == ["groq"]


def test_names_of_providers_behind_one_backend_are_left_to_it() -> None:
    pinned = decided("openrouter", only=frozenset({"cerebras"}), order=("cerebras",), allow_fallbacks=False)
    assert names(pinned) == ["openrouter"]
    assert decided("openrouter", ignore=frozenset({"openrouter"})).refusal is not None
    beside = decided("groq", models=("openrouter",), only=frozenset({"groq"}))
    assert names(beside) == ["groq"], "with a choice of backends the names are those of backends"


@pytest.mark.parametrize("field", ["order", "only", "ignore", "needed_fields", "unjudged"])
def test_a_key_that_may_not_choose_places_chooses_none_by_preferences(field: str) -> None:
    value = ("groq",) if field in ("order", "unjudged") else frozenset({"groq"})
    request = facts(caller=Caller(may_route=False), preferences=Preferences(**{field: value}))
    decision = decide(request, KNOWN, WIDE)
    assert decision.refusal is not None
    assert decision.refusal.status == 403


def test_a_rule_that_forbids_binds_an_alias_in_the_list_too() -> None:
    rules = Rules((Rule("r", Conditions(models=frozenset({"cloud"})), forbid=frozenset({"openai"})),))
    request = facts(model="gpt-9", preferences=Preferences(models=("cloud",)))
    places = rules.matching(request, Moment(0.0))
    assert names(decide(request, KNOWN, ruled(WIDE, rules, places))) == ["groq"]


MODELS = st.lists(st.sampled_from(["auto", "cloud", "both:floor", "groq", "openai", "openrouter", "gpt-9"]), max_size=4)
NAMES = st.sets(st.sampled_from(["local", "spare", "groq", "openai", "openrouter", "vllm"]), max_size=3)
WANTED = st.builds(
    Preferences,
    models=MODELS.map(tuple),
    sort=st.sampled_from(["", "fastest", "cheapest"]),
    order=NAMES.map(lambda one: tuple(sorted(one))),
    only=NAMES.map(frozenset),
    ignore=NAMES.map(frozenset),
    allow_fallbacks=st.booleans(),
    max_input_per_million=st.sampled_from([None, 0.1, 5.0]),
    max_per_request=st.sampled_from([None, 0.0]),
    no_data_collection=st.booleans(),
    zero_retention=st.booleans(),
    needed_fields=st.sampled_from([frozenset(), frozenset({"top_k"})]),
    unjudged=st.sampled_from([(), ("provider.quantizations",)]),
    across_models=st.booleans(),
)
RESTRICTIONS: tuple[tuple[str, Any], ...] = (
    ("ignore", frozenset({"groq", "vllm"})),
    ("max_input_per_million", 0.1),
    ("no_data_collection", True),
    ("zero_retention", True),
    ("unjudged", ("provider.quantizations",)),
)


def asking(model: str, wanted: Preferences, *, private: bool, rules: KeyRules | None) -> RequestFacts:
    verdict = PrivacyVerdict(False, ("header",)) if private else PrivacyVerdict(True)
    return facts(model=model, preferences=wanted, privacy=verdict, caller=Caller(key_id="k", rules=rules))


@given(
    model=st.sampled_from(["auto", "cloud:nitro", "openrouter", "gpt-9", "groq"]),
    wanted=WANTED,
    private=st.booleans(),
    rules=st.sampled_from(
        [None, KeyRules(backends=frozenset({"local", "groq"})), KeyRules(models=frozenset({"auto"}))]
    ),
)
def test_preferences_bring_nothing_back(model: str, wanted: Preferences, private: bool, rules: KeyRules | None) -> None:
    request = asking(model, wanted, private=private, rules=rules)
    decision = decide(request, KNOWN, WIDE)
    assert decision == decide(request, KNOWN, WIDE)
    assert decision.candidates or decision.refusal
    for candidate in decision.candidates:
        backend = candidate.backend
        assert backend.local or not private
        assert rules is None or not rules.backends or backend.name in rules.backends
        assert not {backend.name, backend.provider} & wanted.ignore
    for field, value in RESTRICTIONS:
        if getattr(wanted, field) == getattr(Preferences(), field):
            narrower = decide(replace(request, preferences=replace(wanted, **{field: value})), KNOWN, WIDE)
            if wanted.allow_fallbacks or wanted.order:
                assert set(names(narrower)) <= set(names(decision))


def test_local_is_a_backend_like_any_other() -> None:
    assert names(decided("gpt-9", models=("local", "openai"), zero_retention=True)) == [LOCAL.name]
