"""Small worlds for routing tests: two local engines and two clouds, and what is known of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.backlog import BacklogView, EngineRates
from spillway_router.core.routing.model import (
    Backend,
    BackendSignals,
    Caller,
    Capability,
    Decision,
    Endpoint,
    PrivacyVerdict,
    RequestFacts,
    Signals,
)
from spillway_router.core.routing.policy import ConfidenceRule, Policy

NOW = 1000.0
ALL: frozenset[Endpoint] = frozenset({"chat", "completions", "embeddings", "responses", "messages"})
CAN: frozenset[Capability] = frozenset({"tools", "vision", "json_schema", "logprobs"})
CHEAP = Tariff(Decimal("0.05"), Decimal("0.20"))
DEAR = Tariff(Decimal("2.50"), Decimal("10"))

LOCAL = Backend(name="local", provider="vllm", model="demo", local=True, endpoints=ALL, capabilities=CAN)
SPARE = Backend(name="spare", provider="llamacpp", model="demo", local=True, endpoints=ALL, capabilities=CAN)
GROQ = Backend(
    name="groq",
    provider="groq",
    model="openai/gpt-oss-20b",
    local=False,
    endpoints=frozenset({"chat"}),
    capabilities=CAN - {"logprobs"},
    tariff=CHEAP,
    context_tokens=131_072,
)
OPENAI = Backend(
    name="openai",
    provider="openai",
    model="gpt-5.4-mini",
    local=False,
    endpoints=ALL,
    capabilities=CAN,
    tariff=DEAR,
    context_tokens=272_000,
)
POLICY = Policy(
    "v1",
    {b.name: b for b in (LOCAL, SPARE, GROQ, OPENAI)},
    {"auto": ("local", "groq", "openai"), "both": ("local", "spare", "groq"), "cloud": ("groq", "openai")},
    confidence=ConfidenceRule(0.8, ("groq", "openai")),
)

IDLE = BackendSignals(backlog=BacklogView(), rates=EngineRates())
BUSY = replace(
    IDLE, backlog=BacklogView(in_flight=20, waiting_first_token=20, prefill_tokens=60_000, decoding=0, kv_tokens=80_000)
)
"""60,000 tokens unread at 12,000 a second: five seconds to the first token, past any promise of two."""
FULL = replace(
    IDLE, backlog=BacklogView(in_flight=100, waiting_first_token=0, prefill_tokens=0, decoding=100, kv_tokens=199_000)
)
"""No queue, but the KV cache is taken."""
CLOUD = BackendSignals(ttft_s=0.4)


def facts(**changes: Any) -> RequestFacts:
    """A small public chat request for `auto`."""
    usual = RequestFacts(
        request_id="r1",
        endpoint="chat",
        model="auto",
        stream=False,
        prompt_bytes=300,
        max_tokens=100,
        choices=1,
        needs=frozenset(),
        privacy=PrivacyVerdict(True),
        caller=Caller(),
    )
    return replace(usual, **changes)


def signals(**changes: BackendSignals) -> Signals:
    """Everything up and idle, but for the changes."""
    return Signals(NOW, {"local": IDLE, "spare": IDLE, "groq": CLOUD, "openai": CLOUD} | changes)


def names(decision: Decision) -> list[str]:
    """The candidates in order."""
    return [c.backend.name for c in decision.candidates]


def why(decision: Decision) -> dict[str, str]:
    """Removed backend -> reason token."""
    return {r.backend: r.reason for r in decision.removed}
