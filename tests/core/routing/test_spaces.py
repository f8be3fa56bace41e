"""No decision on embeddings mixes spaces, and nothing that concerns generation alone moves them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.core.scenes import BUSY, CLOUD, FULL, IDLE, LOCAL, NOW, OPENAI, facts, names, signals

from spillway_router.core.routing.model import Backend, BackendSignals, Hints, Preferences, PrivacyVerdict, Signals
from spillway_router.core.routing.policy import (
    ConfidenceRule,
    Forbidden,
    Policy,
    Ruling,
    decide,
    decide_better,
    decide_escalation,
)
from spillway_router.core.routing.spaces import space_of

SPACES = st.sampled_from(["", "a", "b"])
STATES = st.sampled_from(
    [IDLE, BUSY, FULL, CLOUD, BackendSignals(health="down"), replace(CLOUD, limited_until=NOW + 9)]
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Policy, Signals]:
    """Draw a policy of six backends in up to eight spaces, and how they are."""
    backends: dict[str, Backend] = {}
    for number in range(6):
        base = draw(st.sampled_from([LOCAL, OPENAI]))
        name, model = f"b{number}", draw(st.sampled_from(["m", "n"]))
        space, embeds = draw(SPACES), draw(st.booleans())
        backends[name] = replace(base, name=name, model=model, embedding_space=space, embeds=embeds)
    chains = st.lists(st.sampled_from(sorted(backends)), min_size=1, max_size=6, unique=True).map(tuple)
    aliases = {"auto": draw(chains), "other": draw(chains)}
    spaces = {alias: space_of([backends[name] for name in chain]) for alias, chain in aliases.items()}
    ruled = {"auto": draw(chains), "other": aliases["other"]}  # a rule may change the chain, and never the space
    ruling = Ruling(forbidden=(Forbidden("r", frozenset(draw(chains)[:1])),) if draw(st.booleans()) else ())
    policy = Policy("v", backends, ruled, confidence=ConfidenceRule(0.8, draw(chains)), ruling=ruling, spaces=spaces)
    return policy, Signals(NOW, {name: draw(STATES) for name in backends})


ASKED = st.sampled_from(["auto", "other", "auto:fastest", "auto:cheapest", "b0", "b3", "m", "n", "m:cheapest"])
PREFERENCES = st.builds(
    Preferences,
    models=st.lists(ASKED, max_size=2).map(tuple),
    order=st.lists(st.sampled_from(["b1", "b4", "openai", "vllm"]), max_size=2).map(tuple),
    ignore=st.frozensets(st.sampled_from(["b1", "b2"])),
)


@given(worlds(), ASKED, PREFERENCES, st.sampled_from(["auto", "local", "cloud"]), st.booleans())
def test_the_candidates_for_one_name_are_always_of_one_space(
    world: tuple[Policy, Signals], model: str, preferences: Preferences, route: str, private: bool
) -> None:
    policy, state = world
    asked = facts(
        endpoint="embeddings",
        model=model,
        preferences=preferences,
        hints=Hints(route=route),  # type: ignore[arg-type]
        privacy=PrivacyVerdict(not private, ("header",) if private else ()),
    )
    calm = Signals(NOW, dict.fromkeys(state.backends, IDLE))
    plain = replace(
        asked, preferences=Preferences(models=preferences.models), hints=Hints(), privacy=PrivacyVerdict(True)
    )
    decisions = [decide(asked, state, policy), decide(plain, calm, replace(policy, ruling=Ruling()))]
    decisions += [decide_escalation(asked, state, policy), decide_better(asked, state, policy, "b0")]
    spaces = {candidate.backend.space for decision in decisions for candidate in decision.candidates}
    assert len(spaces) <= 1


def test_a_full_kv_cache_and_slow_tokens_move_no_embeddings() -> None:
    """Engines of encoder models report a cache of one block, and generate nothing."""
    policy = Policy(
        "v",
        {"local": LOCAL, "openai": replace(OPENAI, model="demo", embedding_space="vllm/demo")},
        {"auto": ("local", "openai")},
    )
    embeddings = facts(endpoint="embeddings")
    assert names(decide(facts(), signals(local=FULL), policy))[0] == "openai"
    assert names(decide(embeddings, signals(local=FULL), policy)) == ["local", "openai"]
    assert names(decide(embeddings, signals(local=BUSY), policy)) == ["openai", "local"]
