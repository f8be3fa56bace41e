"""What each decision word means: one table of situations. Spend and load tests are read by these words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.core.scenes import BUSY, CLOUD, FULL, IDLE, NOW, POLICY, facts, names, signals

from spillway_router.core.routing.model import BackendSignals, Hints, Preferences
from spillway_router.core.routing.policy import decide

DOWN = replace(IDLE, health="down", health_reason="no answer")
STARTING = replace(IDLE, health="starting")
OPEN = replace(CLOUD, breaker_open=True)
BUSY_ENGINE = replace(IDLE, limited_until=NOW + 9)
QUICK = replace(CLOUD, ttft_s=0.001)
BY_HINT = {"hints": Hints(route="cloud")}
LIMITED = replace(CLOUD, limited_until=NOW + 9)
SHORT = replace(IDLE, engine_context_tokens=50)
BLIND = replace(IDLE, engine_lacks=frozenset({"vision"}))
BROKE = replace(CLOUD, headroom_nano=0)
PICTURE = frozenset({"vision"})
ALIASES = {
    "auto": ("local", "groq", "openai"),
    "cloud": ("groq", "openai"),
    "cloud-first": ("groq", "local", "openai"),
    "both": ("local", "spare", "groq"),
}
WORLD = replace(POLICY, aliases=ALIASES)


@dataclass(frozen=True, slots=True)
class Case:
    """A situation, and the decision, the reasons and the first backend that belong to it."""

    name: str
    kind: str
    reasons: tuple[str, ...]
    first: str
    asks: dict[str, Any] = field(default_factory=dict)
    state: dict[str, BackendSignals] = field(default_factory=dict)


CASES = (
    Case("an idle GPU", "local", (), "local"),
    Case("a warm spare", "local", (), "spare", asks={"model": "both"}, state={"local": DOWN}),
    # The GPU is in order, but can't serve the request in time or at all.
    Case("a queue", "overflow", ("queue",), "groq", state={"local": BUSY}),
    Case("a full cache", "overflow", ("kv",), "groq", state={"local": FULL}),
    Case("a start", "overflow", ("health",), "groq", state={"local": STARTING}),
    Case("a prompt too long", "overflow", ("context",), "groq", asks={"prompt_bytes": 3000}, state={"local": SHORT}),
    Case("no vision", "overflow", ("capability",), "openai", asks={"needs": PICTURE},
         state={"local": BLIND, "groq": OPEN}),
    Case("an engine's own limit", "overflow", ("rate_limit",), "groq", state={"local": BUSY_ENGINE}),
    Case("a queue, and the next one is down", "overflow", ("queue",), "openai", state={"local": BUSY, "groq": OPEN}),
    # A backend that stood before it is down.
    Case("the GPU is down", "fallback", ("health",), "groq", state={"local": DOWN}),
    Case("its breaker is open", "fallback", ("health",), "groq", state={"local": replace(IDLE, breaker_open=True)}),
    Case("one of two is down", "fallback", ("health", "context"), "groq",
         asks={"model": "both", "prompt_bytes": 3000}, state={"local": DOWN, "spare": SHORT}),
    Case("the first cloud is down", "fallback", ("health",), "openai", asks={"model": "cloud"}, state={"groq": OPEN}),
    Case("the first cloud is limited", "fallback", ("rate_limit",), "openai", asks={"model": "cloud"},
         state={"groq": LIMITED}),
    Case("the asked cloud is down", "fallback", ("health",), "openai", asks=BY_HINT, state={"groq": OPEN}),
    Case("cheapest, but the GPU is down", "fallback", ("health",), "groq", asks={"model": "auto:cheapest"},
         state={"local": DOWN}),
    # Nobody was down and no GPU was passed over: somebody asked for this cloud.
    Case("a cloud first", "routed", ("alias",), "groq", asks={"model": "cloud-first"}),
    Case("a cloud first, and the GPU behind it down", "routed", ("alias",), "groq", asks={"model": "cloud-first"},
         state={"local": DOWN}),
    Case("no GPU in the alias", "routed", ("alias",), "groq", asks={"model": "cloud"}),
    Case("the hint", "routed", ("hint",), "groq", asks=BY_HINT),
    Case("the hint while the GPU is down", "routed", ("hint",), "groq", asks=BY_HINT, state={"local": DOWN}),
    Case("the order", "routed", ("preference",), "openai", asks={"preferences": Preferences(order=("openai",))}),
    Case("only", "routed", ("preference",), "openai", asks={"preferences": Preferences(only=frozenset({"openai"}))}),
    Case("fastest", "routed", ("fastest",), "openai", asks={"model": "auto:fastest"}, state={"openai": QUICK}),
    Case("cheapest of clouds", "routed", ("cheapest",), "groq", asks={"model": "cloud:cheapest"}),
    Case("models", "routed", ("model", "budget"), "groq",
         asks={"model": "gpt-5.4-mini", "preferences": Preferences(models=("openai/gpt-oss-20b",))},
         state={"openai": BROKE}),
    Case("a cloud that can't", "routed", ("alias", "endpoint"), "openai",
         asks={"model": "cloud", "endpoint": "embeddings"}),
    Case("a cloud over its budget", "routed", ("alias", "budget"), "openai", asks={"model": "cloud"},
         state={"groq": BROKE}),
    Case("one backend by name", "pinned", ("pinned",), "groq", asks={"model": "groq"}, state={"local": DOWN}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_situation_has_its_word(case: Case) -> None:
    decision = decide(facts(**case.asks), signals(**case.state), WORLD)
    assert (decision.kind, decision.reasons, names(decision)[0]) == (case.kind, case.reasons, case.first)


def test_the_words_keep_their_meaning_whatever_happens() -> None:
    """`fallback` needs something that is down, `overflow` a local backend that was passed over in order."""
    states = (IDLE, BUSY, FULL, DOWN, STARTING, SHORT, BLIND)
    clouds = (CLOUD, OPEN, LIMITED, BROKE)
    models = ("auto", "cloud", "cloud-first", "auto:fastest", "auto:cheapest")
    hints = (Hints(), Hints(route="cloud"))
    seen = set()
    for model in models:
        for local in states:
            for groq in clouds:
                for hint in hints:
                    world = signals(local=local, groq=groq)
                    decision = decide(facts(model=model, hints=hint, prompt_bytes=3000), world, WORLD)
                    assert (decision.kind == "refused") == (not decision.candidates)
                    if not decision.candidates:
                        continue
                    seen.add(decision.kind)
                    down = local is DOWN or groq in (OPEN, LIMITED)
                    if decision.kind == "fallback":
                        assert down, (model, hint)
                    if decision.kind == "overflow":
                        assert hint.route == "auto", model
                        assert local not in (IDLE, BLIND, DOWN), model
                        assert model != "cloud", local
                    if decision.kind == "local":
                        assert decision.candidates[0].backend.local
                    if hint.route == "cloud" and not down:
                        assert decision.kind == "routed"
    assert seen == {"local", "overflow", "fallback", "routed"}
