"""The nouns of routing, as frozen values: what was asked, who may serve it, what was decided, how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.budget import LineKey
from spillway_router.core.money.degrade import Ladder
from spillway_router.core.money.tariff import STANDARD, Tariff, Usage
from spillway_router.core.routing.backlog import BacklogView, EngineRates

Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages"]
Capability = Literal["tools", "vision", "json_schema", "logprobs"]
DecisionKind = Literal["local", "overflow", "escalated", "fallback", "pinned", "byok", "cache", "audit"]
Health = Literal["up", "starting", "down"]
Sort = Literal["", "fastest", "cheapest"]
Route = Literal["auto", "local", "cloud"]

OutcomeKind = Literal[
    "ok",  # the whole answer arrived
    "overloaded",  # the engine's queue cap answered; counts as overflow, never as failure
    "rate_limited",  # 429: stay away until `retry_after_s`
    "rejected",  # the request itself is at fault (4xx): another backend would say the same
    "unauthorized",  # our credentials or credit are at fault (401, 402, 403)
    "unserved",  # it has no such endpoint or model (404, 405): nothing is broken, another backend may have it
    "failed",  # 5xx, broken connection, malformed answer
    "timeout",  # no event within the limit
    "cancelled",  # the client left
]


@fast_frozen(frozen=True, slots=True)
class ExpectedGain:
    """What escalating a doubtful answer is expected to bring: the chance that it gets better, and the tokens to pay."""

    gain: float
    usage: Usage


@fast_frozen(frozen=True, slots=True)
class Caller:
    """Who asks. `key_id` is empty where no key was required."""

    key_id: str = ""
    role: str = "inference"
    tier: str = ""
    may_route: bool = True
    local_only: bool = False


@fast_frozen(frozen=True, slots=True)
class Hints:
    """What the request's headers ask for; None where they are silent."""

    route: Route = "auto"
    min_confidence: float | None = None
    slo_ttft_s: float | None = None
    max_cost_nano: int | None = None
    session_id: str = ""


@fast_frozen(frozen=True, slots=True)
class Preferences:
    """OpenRouter's `models` and `provider` fields, and the suffix of the model name."""

    models: tuple[str, ...] = ()
    sort: Sort = ""
    order: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    allow_fallbacks: bool = True
    max_input_per_million: float | None = None
    max_output_per_million: float | None = None
    no_data_collection: bool = False


NO_PREFERENCES = Preferences()
"""Of nearly every request: rules may compare by identity."""


@fast_frozen(frozen=True, slots=True)
class PrivacyVerdict:
    """May the content leave for the cloud? Reasons name the rules that said no; rules can only restrict."""

    may_leave: bool
    reasons: tuple[str, ...] = ()


@fast_frozen(frozen=True, slots=True)
class RequestFacts:
    """What routing may know of a request. No text in it, only sizes and marks."""

    request_id: str
    endpoint: Endpoint
    model: str
    stream: bool
    prompt_bytes: int
    """UTF-8 bytes of everything the model will read: messages, tools, schema."""
    max_tokens: int | None
    choices: int
    needs: frozenset[Capability]
    privacy: PrivacyVerdict
    caller: Caller
    hints: Hints = Hints()
    preferences: Preferences = NO_PREFERENCES
    service: str = STANDARD
    """The provider's service asked for (`service_tier`): flex, priority… cost differently."""
    task: str = ""
    """What kind of work it is, for reports and calibration; "" where nobody said."""
    document: bool = False
    """One step of a document's extraction: reports count it, and what it costs, per document."""
    unseen_tokens: int = 0
    """Most input tokens that `prompt_bytes` doesn't show: of images, and of what the provider keeps from before."""
    billed_choices: int = 0
    """Choices that are billed where they are more than `choices` (`best_of`)."""


@fast_frozen(frozen=True, slots=True)
class Backend:
    """One place that serves a model, as configured. `tariff` is None for local backends only."""

    name: str
    provider: str
    model: str
    local: bool
    endpoints: frozenset[Endpoint]
    capabilities: frozenset[Capability]
    tariff: Tariff | None = None
    context_tokens: int | None = None
    max_output_tokens: int = 4096
    """Output bound for the reservation where the request sets none."""
    collects_data: bool = False
    stops_billing_on_cancel: bool = False
    longest_s: int = 600
    """Longest an attempt may take, in seconds: bounds a price per second."""
    rungs: Ladder = ()
    """The rungs of the degrade ladder that leave it out."""


@fast_frozen(frozen=True, slots=True)
class BackendSignals:
    """What is known of one backend right now. `backlog` and `rates` are None for cloud backends."""

    health: Health = "up"
    health_reason: str = ""
    breaker_open: bool = False
    limited_until: float = 0.0
    """Monotonic seconds until which the provider asked us to stay away (429, x-ratelimit-*)."""
    ttft_s: float = 0.5
    """Recent time to first token, for backends without a backlog."""
    tokens_per_byte: float = 1 / 3
    backlog: BacklogView | None = None
    rates: EngineRates | None = None
    expected_output_tokens: int = 300
    margin: float = 0.85
    gpu_rate: float = 1.0
    """Factor on the prefill rate for thermal or power throttling, in (0, 1]."""
    budget_left_nano: int | None = None
    """Tightest budget headroom for this backend; None where no budget applies."""
    budget_used: Mapping[LineKey, float] | None = None
    """Share used of each budget line that concerns the caller; None where no degrade ladder asks."""
    price_of_gain: float = 0.0
    """What an escalation to it must gain per USD (core/money/pacing.py); 0 where no paced budget covers it."""


@fast_frozen(frozen=True, slots=True)
class Signals:
    """An immutable snapshot of what is known of every backend."""

    monotonic_s: float
    """When it was taken, in seconds of the monotonic clock."""
    backends: Mapping[str, BackendSignals]


@fast_frozen(frozen=True, slots=True)
class Candidate:
    """A backend that may serve the request, with what was predicted for it."""

    backend: Backend
    reasons: tuple[str, ...]
    ttft_s: float
    prompt_tokens: int
    output_tokens: int
    cost_bound_nano: int
    """Upper bound of what this attempt can cost: reserved before it leaves. 0 for local backends."""


@fast_frozen(frozen=True, slots=True)
class Removed:
    """A backend that may not serve the request: the rule's reason token and a sentence."""

    backend: str
    reason: str
    detail: str


@fast_frozen(frozen=True, slots=True)
class Refusal:
    """A final no, in the shape the client gets."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    final: bool = True
    """Sends `x-should-retry: false`: asking again at once would not help."""


@fast_frozen(frozen=True, slots=True)
class Decision:
    """Ordered candidates or a refusal, and why."""

    kind: DecisionKind
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    removed: tuple[Removed, ...]
    policy: str
    refusal: Refusal | None = None


@fast_frozen(frozen=True, slots=True)
class Outcome:
    """How one upstream call ended. `billed` says that the provider may charge for it although it failed."""

    kind: OutcomeKind
    status: int = 0
    detail: str = ""
    retry_after_s: float | None = None
    usage: Usage | None = None
    billed: bool = False
    stale_connection: bool = False
    """The server closed a kept-alive connection before a byte of the answer came. It may have worked on the call."""


@fast_frozen(frozen=True, slots=True)
class Attempt:
    """One upstream call, for the request record: monotonic seconds relative to the request's start."""

    no: int
    backend: str
    model: str
    started_s: float
    ended_s: float
    outcome: Outcome
    first_event_s: float | None = None
    charge_nano: int = 0
    confidence: float | None = None
    reasons: tuple[str, ...] = field(default=())


@fast_frozen(frozen=True, slots=True)
class RequestRecord:
    """What became of a request: served by /v1/requests/{id} and given to the hooks. No text of it."""

    facts: RequestFacts
    decision: Decision
    attempts: tuple[Attempt, ...]
    status: int
    code: str
    backend: str
    decided: str
    reasons: tuple[str, ...]
    wall_s: float
    total_s: float
    overhead_s: float
    cost_nano: int
    confidence: float | None
