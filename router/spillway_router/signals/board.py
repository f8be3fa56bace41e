"""The board: what is known of every backend now, and the one place where that knowledge changes.

Readers get an immutable `Signals`; writers tell it events (sent, first event, ended, health, scrape). The reducers of
core (breaker, retry budget, backlog, estimators) do the thinking; the board only keeps their states per backend. One
event loop, no locks. A backend's snapshot is built again only after something about it changed or ran out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import field

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing import breaker, retry_budget
from spillway_router.core.routing.backlog import Backlog, EngineLoad, EngineRates
from spillway_router.core.routing.breaker import CLOSED, Breaker, BreakerRule
from spillway_router.core.routing.estimators import EWMA_WEIGHT, MarginLearner, TokenEstimator
from spillway_router.core.routing.model import Backend, BackendSignals, Candidate, Health, Outcome, Signals

CLOUD_TTFT_S = 0.5
"""Believed of a cloud backend before its first answer."""
OVERLOADED_WAIT_S = 0.25
"""How long a local engine whose queue cap answered is left alone, so that a burst does not hammer it."""


@dataclass(slots=True)
class _State:
    """Everything that changes about one backend."""

    backend: Backend
    backlog: Backlog | None
    health: Health = "up"
    health_reason: str = ""
    breaker: Breaker = CLOSED
    limited_until: float = 0.0
    ttft_s: float = CLOUD_TTFT_S
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    margin: MarginLearner = field(default_factory=MarginLearner)
    gpu_rate: float = 1.0
    gpu_reason: str = ""
    """Why NVML says that the GPU must not be used; empty when it may."""
    in_flight: int = 0
    unread: deque[TrackedCall] = field(default_factory=deque)
    """Non-stream calls whose first token is to be presumed, in the order of sending: so an engine reads prompts."""
    snapshot: BackendSignals | None = None
    fresh_until: float = -math.inf


@dataclass(slots=True)
class TrackedCall:
    """One upstream call as the board follows it; `ended` may be told twice, the second time does nothing."""

    ticket: int
    backend: str
    sent_at: float
    predicted_ttft_s: float
    prompt_bytes: int
    slo_ttft_s: float
    first_event_at: float | None = None
    presumed_at: float = math.inf
    """When the first token of a whole answer is presumed to have come."""
    open: bool = True


@dataclass(frozen=True, slots=True)
class BoardRules:
    """Tuning of the board."""

    breaker: BreakerRule = BreakerRule()
    rates: Mapping[str, EngineRates] = field(default_factory=dict)
    """Configured rates per local backend."""


class Board:
    """See the module docstring. Not safe across threads."""

    def __init__(self, backends: Iterable[Backend], rules: BoardRules | None = None) -> None:
        self._rules = rules or BoardRules()
        self._states: dict[str, _State] = {}
        self._retry = retry_budget.RetryBudget()
        self._arrived = 0
        """Requests that the retry budget has not heard of yet."""
        self._next_ticket = 1
        self.update(backends)

    def update(self, backends: Iterable[Backend]) -> None:
        """Take a new set of backends; what is known of those that stay is kept."""
        states: dict[str, _State] = {}
        for backend in backends:
            known = self._states.get(backend.name)
            if known is not None and known.backend.local == backend.local:
                known.backend = backend
                known.snapshot = None
                states[backend.name] = known
                continue
            rates = self._rules.rates.get(backend.name, EngineRates())
            backlog = Backlog(rates) if backend.local else None
            state = _State(backend, backlog)
            if backend.local:
                state.health, state.health_reason = "starting", "not probed yet"
            states[backend.name] = state
        self._states = states

    def current(self, now: float) -> Signals:
        """The snapshot at `now` (monotonic seconds)."""
        found = {name: self._view(state, now) for name, state in self._states.items()}
        return Signals(now, found)

    def _view(self, state: _State, now: float) -> BackendSignals:
        unread = state.unread
        while unread and (not unread[0].open or unread[0].presumed_at <= now):
            trip = unread.popleft()
            self._presume_first(trip, trip.presumed_at)
        if state.snapshot is not None and now < state.fresh_until:
            return state.snapshot
        backlog = state.backlog
        is_open = breaker.is_open(state.breaker, now)
        state.snapshot = BackendSignals(
            "down" if state.gpu_reason else state.health,
            state.gpu_reason or state.health_reason,
            is_open,
            state.limited_until,
            state.ttft_s,
            state.tokens.tokens_per_byte,
            None if backlog is None else backlog.view(now),
            None if backlog is None else backlog.rates(now),
            300 if backlog is None else backlog.expected_output(),
            state.margin.margin,
            state.gpu_rate,
        )
        # A backlog's view ages (load from elsewhere goes stale), an open breaker closes: look again soon.
        state.fresh_until = now + (0.05 if is_open or backlog is not None else 1.0)
        return state.snapshot

    # the request path

    def arrived(self) -> None:
        """A request came: it earns its share of the retry budget."""
        self._arrived += 1

    def may_retry(self, now: float) -> bool:
        """Takes one attempt from the retry budget; False if there is none left."""
        arrived, self._arrived = self._arrived, 0
        self._retry = retry_budget.on_requests(self._retry, arrived, now)
        after = retry_budget.on_retry(self._retry)
        if after is None:
            return False
        self._retry = after
        return True

    def sent(self, candidate: Candidate, prompt_bytes: int, slo_ttft_s: float, now: float) -> TrackedCall | None:
        """A call is about to leave. None: the local backlog is at its bound, send it elsewhere."""
        state = self._states.get(candidate.backend.name)
        ticket = self._next_ticket
        self._next_ticket += 1
        trip = TrackedCall(ticket, candidate.backend.name, now, candidate.ttft_s, prompt_bytes, slo_ttft_s)
        if state is None:
            return trip
        if state.backlog is not None and not state.backlog.admit(
            ticket, candidate.prompt_tokens, candidate.output_tokens, now
        ):
            return None
        state.in_flight += 1
        if state.breaker is not CLOSED:
            state.breaker = breaker.on_send(state.breaker, now)
        state.snapshot = None
        return trip

    def first_event(self, trip: TrackedCall, now: float) -> None:
        """The first content of a streamed answer came."""
        state = self._states.get(trip.backend)
        if state is None or trip.first_event_at is not None or not trip.open:
            return
        trip.first_event_at = now
        ttft = now - trip.sent_at
        if state.backlog is None:
            state.ttft_s += EWMA_WEIGHT * 4 * (ttft - state.ttft_s)
        else:
            state.backlog.first_token(trip.ticket, now)
            state.margin.observe(trip.predicted_ttft_s, ttft, trip.slo_ttft_s)
        state.snapshot = None

    def ended(self, trip: TrackedCall, outcome: Outcome, now: float, *, streamed: bool) -> None:
        """The call ended, well or not. Harmless when repeated."""
        if not trip.open:
            return
        if trip.presumed_at <= now:
            self._presume_first(trip, trip.presumed_at)
        trip.open = False
        state = self._states.get(trip.backend)
        if state is None:
            return
        state.in_flight -= 1
        state.snapshot = None
        usage = outcome.usage
        if state.backlog is not None:
            if outcome.kind == "ok" and trip.first_event_at is None:
                self._guess_first_token(state, trip, outcome, now)
            output = usage.completion_tokens if usage is not None and outcome.kind == "ok" else None
            state.backlog.finish(trip.ticket, now, output)
            if outcome.kind == "overloaded":
                state.limited_until = now + OVERLOADED_WAIT_S
        elif outcome.kind == "ok" and not streamed and usage is not None and usage.completion_tokens <= 8:
            # A short whole answer is about as long as a first token; a long one says nothing of it.
            state.ttft_s += EWMA_WEIGHT * 4 * (now - trip.sent_at - state.ttft_s)
        if usage is not None:
            state.tokens.observe(trip.prompt_bytes, usage.prompt_tokens)
        if outcome.kind == "rate_limited":
            state.limited_until = max(state.limited_until, now + (outcome.retry_after_s or 1.0))
        elif outcome.kind == "failed" and outcome.status == 503 and outcome.retry_after_s:
            state.limited_until = max(state.limited_until, now + min(60.0, outcome.retry_after_s))
        state.breaker = breaker.on_outcome(state.breaker, outcome.kind, now, self._rules.breaker)

    def presume_first(self, trip: TrackedCall) -> None:
        """From its predicted time to first token on, count the prompt of a non-stream call as read.

        Nobody sees the first token of a non-stream answer. Without the guess its prompt would count as unread
        until the last token. If the engine was slower than believed, the whole answer's time still tells: it
        shows as time per token.
        """
        trip.presumed_at = trip.sent_at + trip.predicted_ttft_s
        state = self._states.get(trip.backend)
        if state is not None:
            state.unread.append(trip)

    def _presume_first(self, trip: TrackedCall, now: float) -> None:
        state = self._states.get(trip.backend)
        if state is not None and state.backlog is not None and trip.open and trip.first_event_at is None:
            trip.first_event_at = now
            state.backlog.first_token(trip.ticket, now)
            state.snapshot = None

    @staticmethod
    def _guess_first_token(state: _State, trip: TrackedCall, outcome: Outcome, now: float) -> None:
        """The answer came whole before its first token was expected: the decode steps are taken off its time."""
        backlog = state.backlog
        assert backlog is not None
        output = outcome.usage.completion_tokens if outcome.usage is not None else 0
        decode_s = max(0, output - 1) * backlog.step_time_s
        trip.first_event_at = max(trip.sent_at + 0.2 * (now - trip.sent_at), now - decode_s)
        backlog.first_token(trip.ticket, trip.first_event_at)

    def limited(self, name: str, seconds: float, now: float) -> None:
        """A provider's x-ratelimit headers say that nothing is left for `seconds`."""
        state = self._states.get(name)
        if state is not None and seconds > 0:
            state.limited_until = max(state.limited_until, now + seconds)
            state.snapshot = None

    # the watchers

    def health(self, name: str, health: Health, reason: str) -> None:
        """A prober's verdict."""
        state = self._states.get(name)
        if state is not None and (state.health, state.health_reason) != (health, reason):
            state.health, state.health_reason = health, reason
            state.snapshot = None
            if health == "up":
                state.breaker = CLOSED

    def engine_load(self, name: str, load: EngineLoad | None, now: float) -> None:
        """A scrape of the engine's gauges; None where it failed or series are missing."""
        state = self._states.get(name)
        if state is not None and state.backlog is not None:
            state.backlog.observe_engine(load, now)
            state.snapshot = None

    def engine_capacity(self, name: str, kv_tokens: int) -> None:
        """The KV capacity that the engine reports of itself, in tokens."""
        state = self._states.get(name)
        if state is not None and state.backlog is not None:
            known = state.backlog.rates(-math.inf)
            if known.kv_capacity_tokens != kv_tokens:
                state.backlog.observe_capacity(kv_tokens, known.max_sequences)
                state.snapshot = None

    def gpu(self, rate: float, reasons: tuple[str, ...], healthy: bool) -> None:
        """NVML's verdict; it concerns every local backend of this machine."""
        for state in self._states.values():
            if state.backlog is None:
                continue
            state.gpu_rate = min(1.0, max(0.1, rate))
            state.gpu_reason = "" if healthy else "gpu: " + ", ".join(reasons)
            state.snapshot = None

    def in_flight(self) -> Mapping[str, int]:
        """Calls under way per backend."""
        return {name: state.in_flight for name, state in self._states.items()}
