"""The configuration in force: how to reach each backend, within which limits, by which rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field, replace

from spillway_router.caching.cache import AnswerCache
from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.confidence.referee import Referee
from spillway_router.core.confidence.self_check import SelfCheck
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.redaction import NOTHING_SECRET, Redactor
from spillway_router.core.routing.hedging import HedgeRule
from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.policy import Policy
from spillway_router.core.routing.rules import Rules
from spillway_router.core.routing.traits.reader import TraitReader
from spillway_router.http_client.pool import Pool
from spillway_router.providers.interface import Provider
from spillway_router.proxy.client.replies import naming_headers
from spillway_router.proxy.request.auth import Auth
from spillway_router.proxy.request.facts import PrivacyRule

HELD_BYTES = 256 * 1024 * 1024
"""What all answers that are read to their usage may keep in memory together."""
Pace = Callable[[int], Awaitable[None]]
"""Waits until so many bytes more may have been read."""


@fast_frozen(frozen=True, slots=True)
class DrainLimits:
    """Limits of the answers that are read to their usage after their client left (drains.py), in bytes and seconds."""

    count: int = 128
    """At a time; a further one is charged by an estimate."""
    most_bytes: int = 16 * 1024 * 1024
    """Of each."""
    within_s: float = 120.0
    """For each."""
    stop_s: float = 5.0
    """For all of them when the router stops."""

    @property
    def held_bytes(self) -> int:
        """The bytes of a whole answer, or of an event of a stream, that one of them may keep in memory at a time."""
        return HELD_BYTES // max(1, self.count)


@fast_frozen(frozen=True, slots=True)
class Limits:
    """Limits of one request, in bytes and seconds."""

    body_bytes: int = 32 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024
    body_s: float = 30.0
    first_event_s: float = 120.0
    """From sending to the first content of a stream; after it the next candidate is asked."""
    answer_s: float = 600.0
    """Longest wait for a whole non-stream answer."""
    stall_s: float = 30.0
    """Between two events of a stream."""
    stall_is_set: bool = False
    """Whether `stall_s` is set in the configuration, so that it counts before the catalogue's values."""
    in_flight: int = 4096
    """Requests in progress; further ones are refused with 503."""
    bodies_bytes: int = 1024 * 1024 * 1024
    """Bytes of the bodies of all requests in progress; a request whose body has no room is refused with 503."""
    drains: DrainLimits = DrainLimits()
    write_stall_s: float = 30.0
    """How long a client may read nothing of an answer that waits for it."""
    connections_per_address: int = 1024
    """Connections of one address, beyond which new ones are refused with 503; 0: any number."""


@fast_frozen(frozen=True, slots=True)
class Silence:
    """The longest silence between two events of a backend's streams, in seconds; 0 stands for `Limits.stall_s`.

    Some providers say nothing while they assemble a tool call, whose arguments may be a whole file.
    """

    always_s: float = 0.0
    with_tools_s: float = 0.0


@fast_frozen(frozen=True, slots=True)
class BackendRoute:
    """How to reach a backend."""

    backend: Backend
    provider: Provider
    pool: Pool
    naming_headers: bytes
    """Header lines that name the backend in the client's answer."""
    credentials: bytes = field(default=b"", repr=False)
    """Header lines with a caller's own key, for one request only."""
    redactor: Redactor = NOTHING_SECRET
    """Cuts the keys and header values of the configuration, of all backends, out of what the backend says."""
    silence: Silence = Silence()
    own_headers: frozenset[str] = frozenset()
    """Lowercase names of the headers that every call carries by configuration: a client's do not replace them."""

    def stall_s(self, *, tools: bool) -> float:
        """Return the longest silence of a stream in seconds, for a request with or without tools; 0: the general
        limit."""
        return max(self.silence.always_s, self.silence.with_tools_s) if tools else self.silence.always_s


@fast_frozen(frozen=True, slots=True)
class ScoringRules:
    """How local answers are scored.

    `hold_tokens`: tokens of a stream to hold back before it is released; None: as many as the promised time to first
    token leaves room for. `top_logprobs`: alternatives per token to ask the engine for. `audit_share`: share of local
    answers that a stronger model answers again. `rules`: an answer whose values break one counts as unsure.
    """

    calibration: Calibration | None = None
    hold_tokens: int | None = None
    top_logprobs: int = 2
    audit_share: float = 0.0
    rules: tuple[ValueRule, ...] = ()
    self_check: SelfCheck | None = None
    """When to ask the engine about its own answer; None: never."""
    referee: Referee | None = None
    """Who is asked about answers without log-probabilities; None: nobody."""
    uncalibrated_backends: frozenset[str] = frozenset()
    """Backends that serve something else than what the calibration was made for."""
    step_calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Calibrations for the steps of escalation, by backend."""

    @property
    def document_calibration(self) -> Calibration | None:
        """The calibration for documents, whose drafts don't name their backend: None if any backend is uncalibrated."""
        return None if self.uncalibrated_backends else self.calibration


@fast_frozen(frozen=True, slots=True)
class ActiveConfig:
    """Everything that a configuration reload replaces at once."""

    policy: Policy
    backend_routes: Mapping[str, BackendRoute]
    privacy: PrivacyRule
    auth: Auth
    limits: Limits
    created: int
    """Epoch seconds, for /v1/models."""
    policy_header: bytes
    """Header line of every answer: the policy's version."""
    scoring: ScoringRules = ScoringRules()
    redactor: Redactor = NOTHING_SECRET
    """Cuts the keys and header values of all backends out of what is shown."""
    cors_origins: frozenset[str] = frozenset()
    page_origins: frozenset[str] = frozenset()
    """The origins under which browsers see the dashboard, besides its own Host."""
    """Origins whose web pages may call the router."""
    rules: Rules = Rules()
    """The rules of the policy; `ruling.py` applies them to each request."""
    traits: TraitReader | None = None
    """Judges what requests ask for; None where nothing needs it."""
    hedging: HedgeRule | None = None
    """When a second backend is asked for a stream that does not begin; None: never."""
    cache: AnswerCache | None = None
    """The stored answers and the rules for them; None while the cache is off."""
    leaves_by_price: WorkCoefficients | None = None
    """By which GPU work what leaves is chosen among those that wait; None: each request is decided at its arrival."""

    def route_to(self, backend: Backend) -> BackendRoute:
        """Return how to reach a backend. One model of many is reached as the backend of them all."""
        route = self.backend_routes[backend.name]
        if route.backend is backend or not backend.one_of_many:
            return route
        return replace(route, backend=backend, naming_headers=naming_headers(backend))
