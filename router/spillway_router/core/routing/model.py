"""The values of routing: the request, the backends that may serve it, the decision, and how each attempt ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Literal

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.bounds import ItemRules, RequestItem, UnboundedModel
from spillway_router.core.money.budget import BudgetLine, LineKey
from spillway_router.core.money.credits import CreditLine
from spillway_router.core.money.degrade import DegradeSteps
from spillway_router.core.money.tariff import STANDARD, Tariff, Usage
from spillway_router.core.routing.backlog import BacklogView, EngineRates
from spillway_router.core.routing.pictures import Size
from spillway_router.core.routing.traits.conversation import Traits
from spillway_router.core.trace_context import TraceContext

Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages"]
Capability = Literal["tools", "vision", "json_schema", "logprobs"]
OnDisconnect = Literal["continues", "stops", "unknown"]
"""What a provider does when the connection closes in the middle of an answer: it goes on generating and bills all of
it, it stops and bills what it made, or nobody knows."""
ANY_MODEL = "*"
"""The model of a backend that serves any model of its provider."""
DecisionKind = Literal[
    "local",
    "overflow",  # the local engine can't serve it in time, or not at all
    "escalated",  # the local answer was not sure enough
    "fallback",  # a backend that stood before it was down, limited, or failed
    "routed",  # a cloud that stands first, or that the request asks for
    "pinned",
    "byok",  # the caller brought a provider and a key
    "audit",  # a stronger model answers again, to check a local answer
    "referee",  # a model says how likely an answer without log-probabilities is right
    "shadow",  # the arm of an experiment that no client sees is asked too
    "cache",  # the answer to an earlier request of the same content was given again
    "refused",  # nobody may be asked, or nobody was
]
Health = Literal["up", "starting", "down"]
Sort = Literal["", "fastest", "cheapest"]
Route = Literal["auto", "local", "cloud"]
SEMANTIC = "semantic"
"""The reason token of a stored answer to a similar question."""
CacheHint = Literal["", "use", "sampled", "refresh", "off"]
"""What a request asks of the cache: an answer, also for a temperature above 0 (`sampled`), an answer that is made anew
and stored, or nothing; empty if it does not say."""

OutcomeKind = Literal[
    "ok",  # the whole answer arrived
    "overloaded",  # the engine's queue is full; counts as overflow, never as failure
    "rate_limited",  # 429: send nothing for `retry_after_s`
    "rejected",  # the request is at fault (4xx): another backend would reject it, too
    "unauthorized",  # our credentials or our credit are at fault (401, 402, 403): it leaves the rotation
    "withdrawn",  # the backend does not have its model (unknown, withdrawn, not loaded): it leaves the rotation
    "unserved",  # this backend can't serve this request (404, 405, a missing capability); another may
    "failed",  # 5xx, broken connection, malformed answer
    "timeout",  # no event within the limit
    "cancelled",  # the client left
    "unsent",  # the router had no descriptor, memory or port left for the call, which says nothing of the backend
]


@fast_frozen(frozen=True, slots=True)
class ExpectedGain:
    """What escalating an unsure answer is expected to bring: the chance of a better one, and the tokens to pay for."""

    gain: float
    usage: Usage


@fast_frozen(frozen=True, slots=True)
class KeyRules:
    """What a key may use. `models` and `backends` are names, all if empty; `budget` is its own cap, if it has one."""

    models: frozenset[str] = frozenset()
    backends: frozenset[str] = frozenset()
    per_minute: int = 0
    """The most requests per minute; 0 for any number."""
    budget: BudgetLine | None = None
    tokens_per_minute: int = 0
    """The most tokens of prompts and answers per minute; 0 for any number."""
    concurrent: int = 0
    """The most requests in progress at one router; 0 for any number."""
    user_budget: BudgetLine | None = None
    """The cap of each end user of the key, with the scope `each user`."""
    credits: tuple[CreditLine, ...] = ()
    """How many requests and better answers each end user of the key may have."""


@fast_frozen(frozen=True, slots=True)
class Caller:
    """The authenticated caller. `key_id` is empty where no key was required."""

    key_id: str = ""
    role: str = "inference"
    tier: str = ""
    may_route: bool = True
    local_only: bool = False
    rules: KeyRules | None = None
    """None for a key that may use everything, as often as it likes."""


@fast_frozen(frozen=True, slots=True)
class Hints:
    """What the request's headers ask for; None where they ask for nothing."""

    route: Route = "auto"
    min_confidence: float | None = None
    slo_ttft_s: float | None = None
    max_cost_nano: int | None = None
    session_id: str = ""
    cache: CacheHint = ""


@fast_frozen(frozen=True, slots=True)
class Preferences:
    """What OpenRouter's `models` and `provider` fields and the suffix of the model name ask for."""

    models: tuple[str, ...] = ()
    sort: Sort = ""
    order: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    allow_fallbacks: bool = True
    max_input_per_million: float | None = None
    max_output_per_million: float | None = None
    max_per_request: float | None = None
    no_data_collection: bool = False
    zero_retention: bool = False
    """Whether only backends that keep nothing of a request may have it."""
    needed_fields: frozenset[str] = frozenset()
    """The fields of the body that its backend must take (`require_parameters`); empty if it need not take all."""
    unjudged: tuple[str, ...] = ()
    """Restrictions that only a provider which knows these fields itself can keep to, by the names of the fields."""
    across_models: bool = False
    """Whether `sort` orders the backends of all models together, not those of each model among themselves."""


NO_PREFERENCES = Preferences()
"""The value of nearly every request; filters may compare by identity."""


@fast_frozen(frozen=True, slots=True)
class PrivacyVerdict:
    """Whether the content may leave for a cloud. `reasons` name the rules that forbid it; rules can only restrict."""

    may_leave: bool
    reasons: tuple[str, ...] = ()


@fast_frozen(frozen=True, slots=True)
class RequestFacts:
    """What routing may know of a request: sizes and flags, but none of its text."""

    request_id: str
    endpoint: Endpoint
    model: str
    stream: bool
    prompt_bytes: int
    """UTF-8 bytes of everything that the model will read: messages, tools, schema, but no base64 of media."""
    max_tokens: int | None
    choices: int
    needs: frozenset[Capability]
    privacy: PrivacyVerdict
    caller: Caller
    hints: Hints = Hints()
    preferences: Preferences = NO_PREFERENCES
    service: str = STANDARD
    """The provider's service that the request asks for (`service_tier`); flex and priority, say, have other prices."""
    task: str = ""
    """The kind of work, for reports and calibration; "" where the request doesn't say."""
    document: bool = False
    """Whether it is one step of a document's extraction; reports then count it and its cost per document."""
    unseen_tokens: int = 0
    """Most input tokens of what `prompt_bytes` doesn't show: context that the provider stored, documents, files."""
    billed_choices: int = 0
    """Number of billed choices where it is larger than `choices` (`best_of`)."""
    pictures: tuple[Size, ...] = ()
    """Width and height of each picture in the prompt, as far as they are known."""
    media_tokens: int = 0
    """Expected tokens of the recordings, documents and films in the prompt."""
    items: tuple[RequestItem, ...] = ()
    """The fields, content parts and tools by kind, if it is more than a plain conversation."""
    stored_at: frozenset[str] | None = None
    """Backends that have the earlier response which the request follows; None if it follows none."""
    user_id: str = ""
    """The pseudonym of the end user whom the request names (core/money/users.py); empty if it names none."""
    traits: Traits | None = None
    """What its text asks for; None unless the policy has rules that look at it."""
    inputs: int = 1
    """Number of inputs of a request for embeddings, each of which gets a vector."""
    experiment: str = ""
    """The mark of the experiment and the arm in which it is (experiments.py); empty if it is in none."""

    @property
    def work(self) -> str:
        """The kind of work, for reports: as the request says it, else as its text shows it; "" if neither does."""
        return self.task or ("" if self.traits is None else self.traits.task)


@fast_frozen(frozen=True, slots=True)
class Backend:
    """One place that serves a model, as configured. Only a local backend has no tariff."""

    name: str
    provider: str
    model: str
    local: bool
    endpoints: frozenset[Endpoint]
    capabilities: frozenset[Capability]
    tariff: Tariff | None = None
    context_tokens: int | None = None
    max_output_tokens: int = 4096
    """Output tokens to reserve for where the request sets no bound."""
    collects_data: bool = False
    zero_retention: bool = False
    """Whether its provider keeps nothing of a request, as its operator has agreed with it."""
    knows_preferences: bool = False
    """Whether its provider acts on OpenRouter's `provider` field itself, so that it is sent on."""
    drops_fields: frozenset[str] = frozenset()
    """Fields of a body that are not sent to it."""
    on_disconnect: OnDisconnect = "unknown"
    on_disconnect_whole: OnDisconnect = "unknown"
    """The same for an answer without a stream."""
    drains: bool = False
    """Whether an answer that goes on without its client is read to its usage in the background."""
    longest_s: int = 600
    """Longest time one attempt may take, in seconds; it bounds the cost of a price per second."""
    degrade_steps: DegradeSteps = ()
    """The degrade steps that drop this backend."""
    item_rules: Mapping[Endpoint, ItemRules] = field(default_factory=dict)
    """The items whose cost is bounded here, by endpoint."""
    holds_unbounded: bool = False
    """Whether items that are not in `item_rules` may be sent under a cap, held as far as the context of the model."""
    unbounded_model: UnboundedModel | None = None
    """Why the cost of a request to this model is not bounded, whatever it contains; None if it is."""
    default_modes: tuple[str, ...] = ()
    """Services that may serve a request that asks for none."""
    usual_service: str = ""
    """What to send as service_tier where the request has none; empty: nothing."""
    output_is_bounded: bool = True
    """Whether the model can't give more than `max_output_tokens`, so that no bound has to be sent."""
    output_fields: Mapping[Endpoint, tuple[str, ...]] = field(default_factory=dict)
    """The fields by which the provider bounds its output, by endpoint; the first one is sent."""
    output_field_unsure: bool = False
    """Whether the server may obey another field than those, so that the client's own stays beside the one sent."""
    sends_max_price: bool = False
    """Whether to send the prices of the tariff as OpenRouter's `provider.max_price`."""
    retired_on: str = ""
    """The day (ISO) from which on its provider no longer serves the model; empty if none is known."""
    successor: str = ""
    """The model that its provider recommends instead; empty if none is known."""
    one_of_many: bool = False
    """Whether other models are served under this name too, so that a model which is missing takes none of them away."""
    embedding_space: str = ""
    """The configured name of the space in which its vectors lie; empty: a space of its provider and model."""
    embeds: bool = False
    """Whether it is known to serve embeddings: by its space, its endpoints, or a price of input alone."""
    max_inputs: int | None = None
    """The most inputs of one call for embeddings; None for any number."""
    hides_too_long: bool = False
    """Whether nothing says that a prompt was longer than its context: it is shortened, or the answer is empty."""

    @property
    def space(self) -> str:
        """The space in which its vectors lie. Vectors of one space can be compared, whichever backend made them."""
        return self.embedding_space or f"{self.provider}/{self.model}"

    @property
    def any_model(self) -> bool:
        """True if it stands for any model of its provider, and so can't be asked itself."""
        return self.model == ANY_MODEL and self.one_of_many

    def goes_on(self, *, stream: bool) -> bool:
        """Return whether the provider goes on generating, and bills all of it, when the connection closes."""
        return (self.on_disconnect if stream else self.on_disconnect_whole) == "continues"

    def may_go_on(self, *, stream: bool) -> bool:
        """Return whether nothing says that the provider stops, and stops billing, when the connection closes."""
        return (self.on_disconnect if stream else self.on_disconnect_whole) != "stops"


@fast_frozen(frozen=True, slots=True)
class BackendSignals:
    """What is known of one backend at the moment. `backlog` and `rates` are None for cloud backends."""

    health: Health = "up"
    health_reason: str = ""
    breaker_open: bool = False
    breaker_open_for: tuple[str, ...] = ()
    """The callers for whom alone the breaker is open, because only their requests failed."""
    breaker_reason: str = ""
    """Why the breaker is open, as a sentence; empty while it is closed."""
    limited_until: float = 0.0
    """Until when the provider asked us to send nothing (429, x-ratelimit-*), in seconds of the monotonic clock."""
    ttft_s: float = 0.5
    """Recent time to first token, used for backends without a backlog."""
    tokens_per_byte: float = 1 / 3
    backlog: BacklogView | None = None
    rates: EngineRates | None = None
    expected_output_tokens: int = 300
    margin: float = 0.85
    gpu_rate: float = 1.0
    """Factor on the prefill rate while the GPU is throttled for heat or power, in (0, 1]."""
    leaving: bool = False
    """Whether the engine's machine is about to be taken away: whoever can go elsewhere does."""
    gpu_utilisation: float | None = None
    """The least share of time in which the GPU was busy lately (signals/utilisation.py); None if it is not known."""
    headroom_nano: int | None = None
    """Smallest headroom of the budgets that cover this backend; None where no budget does."""
    budget_used: Mapping[LineKey, float] | None = None
    """Share used of each budget line that concerns the caller; None if no degrade step needs it."""
    engine_context_tokens: int | None = None
    """The context length that the engine itself reports; None if it reports none."""
    engine_lacks: frozenset[Capability] = frozenset()
    """Capabilities that the engine refused when it was asked."""
    refused_bounds: tuple[str, ...] = ()
    """What bounds the cost of the request at hand and is known to be refused here, in the words of a sentence."""
    price_of_gain: float = 0.0
    """What an escalation to it must gain per USD (core/money/pacing.py); 0 where no paced budget covers it."""

    def with_budget(self, headroom_nano: int | None, budget_used: Mapping[LineKey, float] | None) -> BackendSignals:
        """Return the signals with these. `replace` takes four times as long, which adds up over many backends."""
        return BackendSignals(
            health=self.health,
            health_reason=self.health_reason,
            breaker_open=self.breaker_open,
            breaker_open_for=self.breaker_open_for,
            breaker_reason=self.breaker_reason,
            limited_until=self.limited_until,
            ttft_s=self.ttft_s,
            tokens_per_byte=self.tokens_per_byte,
            backlog=self.backlog,
            rates=self.rates,
            expected_output_tokens=self.expected_output_tokens,
            margin=self.margin,
            gpu_rate=self.gpu_rate,
            leaving=self.leaving,
            gpu_utilisation=self.gpu_utilisation,
            headroom_nano=headroom_nano,
            budget_used=budget_used,
            engine_context_tokens=self.engine_context_tokens,
            engine_lacks=self.engine_lacks,
            refused_bounds=self.refused_bounds,
            price_of_gain=self.price_of_gain,
        )


@fast_frozen(frozen=True, slots=True)
class Signals:
    """An immutable snapshot of what is known of every backend."""

    monotonic_s: float
    """When it was taken, in seconds of the monotonic clock."""
    backends: Mapping[str, BackendSignals]


@fast_frozen(frozen=True, slots=True)
class Candidate:
    """A backend that may serve the request, with the prediction for it."""

    backend: Backend
    reasons: tuple[str, ...]
    ttft_s: float
    prompt_tokens: int
    output_tokens: int
    bound_nano: int
    """Upper bound of the attempt's cost, reserved before the attempt starts; 0 for local backends."""
    wait_s: float = 0.0
    """The part of `ttft_s` for which the request waits for others."""
    gives_way: bool = False
    """Whether another one is asked even if it is not expected to be faster."""


@fast_frozen(frozen=True, slots=True)
class Removed:
    """A backend that may not serve the request, with the filter's reason token and a sentence that explains it.

    `param` is the field of the request that is at fault, empty if none is.
    """

    backend: str
    reason: str
    detail: str
    param: str = ""


@fast_frozen(frozen=True, slots=True)
class Refusal:
    """The error that the client gets instead of an answer."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    final: bool = True
    """Whether to send `x-should-retry: false`, because an immediate retry would not help."""
    upstream: Mapping[str, Any] | None = None
    """The error object of the backend that refused the request, without secrets; None if no backend did."""


@fast_frozen(frozen=True, slots=True)
class Decision:
    """Ordered candidates or a refusal, with the reasons."""

    kind: DecisionKind
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    removed: tuple[Removed, ...]
    policy: str
    refusal: Refusal | None = None
    rules: tuple[str, ...] = ()
    """The names of the policy's rules that applied."""


@fast_frozen(frozen=True, slots=True)
class Outcome:
    """How one upstream call ended.

    `billed`: the provider may charge for it although it failed. `doubtful`: it should not, but nobody knows.
    """

    kind: OutcomeKind
    status: int = 0
    detail: str = ""
    """Why, in the router's words. Logs and records show it."""
    said: str = ""
    """Why, in the upstream's words, which may repeat the prompt: only the client of this request may get them."""
    retry_after_s: float | None = None
    usage: Usage | None = None
    billed: bool = False
    doubtful: bool = False
    stale_connection: bool = False
    """The server closed a kept-alive connection before a byte of the answer came. It may have worked on the call."""
    error: Mapping[str, Any] | None = None
    """The error object in the backend's answer, as far as it may be shown; None if there was none."""
    left_rotation: bool = False
    """The backend left the rotation while the request waited there."""
    fault: str = ""
    """What exactly was at fault, from the table of errors (providers/blame.yaml); empty where it is not known."""

    def without_text(self) -> Outcome:
        """Return the outcome without what the upstream wrote."""
        return self if not self.said and self.error is None else replace(self, said="", error=None)


@fast_frozen(frozen=True, slots=True)
class Attempt:
    """One upstream call, for the request record. Its times are seconds since the request started."""

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
    left_out: tuple[str, ...] = ()
    """What the router usually adds to such a request and left out, because the backend refuses it."""
    at_most_nano: int | None = None
    """What it can have cost at most, where the charge is an estimate; None where the charge is known."""
    discarded: bool = False
    """Whether the client got another answer instead. It is charged all the same."""
    draining: bool = False
    """Whether it is still read to its usage, so that its charge is not known yet and its bound is held."""


@fast_frozen(frozen=True, slots=True)
class CacheHit:
    """The stored answer that a request got: the request that it was made for, the backend and the model that gave it,
    its usage, its age in seconds, and the nano-dollars that it had cost. `similarity` is that of the two questions;
    None for a request of the same content."""

    request_id: str
    backend: str
    model: str
    usage: Usage
    age_s: float
    saved_nano: int
    similarity: float | None = None


@fast_frozen(frozen=True, slots=True)
class RequestRecord:
    """What became of a request, for /v1/requests/{id} and the hooks. It holds none of the request's text."""

    facts: RequestFacts
    decision: Decision
    attempts: tuple[Attempt, ...]
    status: int
    code: str
    backend: str
    decided: str
    reasons: tuple[str, ...]
    wall_s: float
    """When the request ended, in epoch seconds."""
    total_s: float
    overhead_s: float
    cost_nano: int
    confidence: float | None
    cache_hit: CacheHit | None = None
    """The stored answer that it got; None if a backend was asked."""
    trace: TraceContext | None = None
    """Where its spans belong; None unless spans are exported."""

    @property
    def model(self) -> str:
        """The model that answered, as its backend knows it; empty if none did."""
        if self.cache_hit is not None:
            return self.cache_hit.model
        return next((a.model for a in reversed(self.attempts) if a.backend == self.backend), "")
