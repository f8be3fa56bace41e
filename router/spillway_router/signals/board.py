"""The board: what is known of every backend now, and the one place where that knowledge changes.

Readers get an immutable `Signals`; writers report events (sent, first event, ended, health, scrape). The reducers in
core (breaker, retry budget, backlog, estimators) make the decisions, and the board only keeps their states per backend.
It belongs to one event loop and takes no locks. A backend's snapshot is rebuilt only after something about it changed
or expired. All times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from spillway_router.core.routing import breaker, retry_budget
from spillway_router.core.routing.backlog import Backlog, EngineLoad, EngineRates, predict
from spillway_router.core.routing.breaker import CLOSED, Breaker, BreakerRule
from spillway_router.core.routing.estimators import EWMA_WEIGHT, MarginLearner, TokenEstimator
from spillway_router.core.routing.model import Backend, BackendSignals, Candidate, Capability, Health, Outcome, Signals
from spillway_router.core.routing.retry_budget import RetryBudget
from spillway_router.signals.utilisation import FRESH_S

CLOUD_TTFT_S = 0.5
"""Assumed time to first token of a cloud backend before its first answer."""
CONTRADICTED_S = 5.0
"""A 500 that came within this time after another request succeeded may be the fault of its request alone."""
PROVEN_S = 1.0
"""How long after a request of the router's own succeeded at an engine a failure there is that of its request."""
HELD_UP_S = 1.0
"""From how many seconds on, for which nobody read an answer on, its end says nothing of its backend."""
PROOF_PAUSE_S = 0.5
"""Shortest time between two requests of the router's own that find out whether an engine fails for everybody."""
NOTHING_LACKING: frozenset[Capability] = frozenset()
OVERLOADED_WAIT_S = 0.25
"""How long a local engine gets no requests after its queue cap refused one, so that a burst does not hammer it."""
SILENT_S = 2.0
"""Least time that a call must have waited before its silence says anything of its backend."""
SILENT_FACTOR = 3.0
"""How many times the backend's usual time a call must have waited before its silence says anything."""
GAUGES_FRESH_S = 5.0
"""How long after a scrape the engine's own counters say whether it works. The silence of calls is not needed then."""
GAUGES_BELIEVED_S = 20.0
"""How long a call must have waited before the silence of an engine counts although its counters are read: they may be
wrong. Nothing came from the engine for any other call either in that time."""
UNHURRIED_TRIAL = 8
"""Every so many trials of a silent backend may take all the time there is. A backend that always needs longer than the
others get comes back by it."""


@dataclass(slots=True)
class _State:
    """Everything that changes about one backend."""

    backend: Backend
    backlog: Backlog | None
    configured_sequences: int
    """How many requests the engine runs at once, by the configuration."""
    health: Health = "up"
    health_reason: str = ""
    breaker: Breaker = CLOSED
    breaker_reason: str = ""
    """What the call that opened the breaker ended with; it holds no text of the upstream."""
    last_ok_at: float = -math.inf
    retry: RetryBudget = RetryBudget()
    sent_since_retry: int = 0
    """Calls that have not been added to the retry budget yet."""
    limited_until: float = 0.0
    ttft_s: float = CLOUD_TTFT_S
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    margin: MarginLearner = field(default_factory=MarginLearner)
    engine_context_tokens: int | None = None
    engine_lacks: frozenset[Capability] = frozenset()
    gpu_rate: float = 1.0
    gpu_reason: str = ""
    """Why the GPU must not be used according to NVML; empty if it may be used."""
    gpu_utilisation: float | None = None
    gpu_utilisation_until: float = -math.inf
    """Until when that is believed."""
    in_flight: int = 0
    unread: deque[TrackedCall] = field(default_factory=deque)
    """Calls without a stream whose first token will be presumed, in the order of sending, as engines read prompts."""
    snapshot: BackendSignals | None = None
    published: BackendSignals | None = None
    """The snapshot in the latest `Signals` of the board."""
    fresh_until: float = -math.inf
    calls: dict[int, TrackedCall] = field(default_factory=dict)
    """The calls in progress, by ticket."""
    heard_at: float = -math.inf
    """When anything last came from the backend: the first content of a stream, a whole answer or an error."""
    gauges_until: float = -math.inf
    """Until when the engine's own counters say whether it works."""
    whole_s: float | None = None
    """Recent time of whole answers; None before the first one."""
    silent: bool = False
    """Whether the breaker opened because calls got no byte."""
    trials: int = 0
    """How many calls were to find out whether the silence has ended."""
    proven_at: float = -math.inf
    """When a request of the router's own last succeeded there."""
    proof_at: float = -math.inf
    """When such a request was last wanted."""


@dataclass(slots=True)
class TrackedCall:
    """One upstream call as the board follows it."""

    ticket: int
    backend: str
    sent_at: float
    predicted_ttft_s: float
    prompt_bytes: int
    """0 if the prompt is more than its text."""
    slo_ttft_s: float
    caller: str = ""
    """The key whose request it is; empty where no key was required, so that nobody can be told from the others."""
    failed_before_at: float = math.inf
    """When the same body failed at this backend first; infinity if it never did."""
    first_event_at: float | None = None
    presumed_at: float = math.inf
    """When the first token of an answer without a stream is presumed to have arrived."""
    open: bool = True
    trial: int = 0
    """Which trial of a silent backend the call is, from 1 on; 0 if it is none."""
    replaceable: bool = False
    """Whether another backend, or a draft, may take this one's place."""
    held_up_s: float = 0.0
    """For how long the answer was not read on: its client did not take it, or a better one was sought. The engine has
    finished long before such an answer ends, or its provider has hung up."""
    abandon: Callable[[str], None] | None = None
    """Gives the call up, for the reason given. None before it is sent, and once its answer is there or is shown."""


class Board:
    """The state of every backend. It has none until `update`, and is not safe across threads."""

    def __init__(self, breaker_rule: BreakerRule | None = None) -> None:
        self.on_doubt: Callable[[str], None] | None = None
        """Called with the name of a local backend when a failure there may be the fault of its request: somebody should
        ask the engine for a token and call `proven`."""
        self._breaker_rule = breaker_rule or BreakerRule()
        self._states: dict[str, _State] = {}
        self._in_order: list[_State] = []
        self._latest: dict[str, BackendSignals] = {}
        """The snapshots that `current` returned last. Readers have it, so it is never changed."""
        self._is_leaving = False
        self._next_ticket = 1

    def update(self, backends: Iterable[Backend], rates: Mapping[str, EngineRates]) -> None:
        """Set the backends, with the configured rates of the local ones.

        A backend that stays keeps everything that was learned of it, including its rates.
        """
        states: dict[str, _State] = {}
        for backend in backends:
            previous = self._states.get(backend.name)
            if previous is not None and previous.backend.local == backend.local:
                previous.backend = backend
                previous.snapshot = None
                states[backend.name] = previous
                continue
            configured = rates.get(backend.name, EngineRates())
            backlog = Backlog(configured) if backend.local else None
            state = _State(backend, backlog, configured.max_sequences)
            if backend.local:
                state.health, state.health_reason = "starting", "not probed yet"
            states[backend.name] = state
        self._states, self._in_order, self._latest = states, list(states.values()), {}
        for state in self._in_order:
            state.published = None

    def leave(self) -> None:
        """Have new requests avoid the local engines, whose machine is about to be taken away."""
        self._is_leaving = True
        for state in self._states.values():
            state.snapshot = None

    def current(self, monotonic_s: float) -> Signals:
        """Return the snapshot of all backends."""
        latest, is_copy = self._latest, False
        for state in self._in_order:
            snapshot = state.snapshot
            if snapshot is None or state.unread or monotonic_s >= state.fresh_until:
                snapshot = self._view(state, monotonic_s)
            if snapshot is not state.published:
                if not is_copy:
                    latest, is_copy = latest.copy(), True
                latest[state.backend.name] = state.published = snapshot
        self._latest = latest
        return Signals(monotonic_s, latest)

    def view(self, name: str, monotonic_s: float) -> BackendSignals | None:
        """Return the snapshot of one backend; None if the board does not know it."""
        state = self._states.get(name)
        return None if state is None else self._view(state, monotonic_s)

    def _view(self, state: _State, monotonic_s: float) -> BackendSignals:
        unread = state.unread
        while unread and (not unread[0].open or unread[0].presumed_at <= monotonic_s):
            call = unread.popleft()
            self._presume_first(call, call.presumed_at)
        if state.snapshot is not None and monotonic_s < state.fresh_until:
            return state.snapshot
        backlog = state.backlog
        is_open = breaker.is_open(state.breaker, monotonic_s)
        for_all = state.breaker.for_all
        state.snapshot = BackendSignals(
            health="down" if state.gpu_reason else state.health,
            health_reason=state.gpu_reason or state.health_reason,
            breaker_open=is_open and for_all,
            breaker_open_for=state.breaker.callers if is_open and not for_all else (),
            breaker_reason=state.breaker_reason if is_open else "",
            limited_until=state.limited_until,
            ttft_s=state.ttft_s,
            tokens_per_byte=state.tokens.tokens_per_byte,
            backlog=None if backlog is None else backlog.view(monotonic_s),
            rates=None if backlog is None else backlog.rates(monotonic_s),
            expected_output_tokens=300 if backlog is None else backlog.expected_output(),
            margin=state.margin.margin,
            gpu_rate=state.gpu_rate,
            leaving=self._is_leaving and backlog is not None,
            gpu_utilisation=state.gpu_utilisation if monotonic_s <= state.gpu_utilisation_until else None,
            engine_context_tokens=state.engine_context_tokens,
            engine_lacks=state.engine_lacks,
        )
        # The snapshot expires soon: a backlog's view ages (load from elsewhere goes stale), and an open breaker closes.
        state.fresh_until = monotonic_s + (0.05 if is_open or backlog is not None else 1.0)
        return state.snapshot

    # the request path

    def is_available(self, name: str, monotonic_s: float, caller: str = "") -> bool:
        """Return whether a caller may ask a backend now: it is up, its breaker is closed and no limit makes it wait.

        A backend that the board doesn't know, as that of a caller's own key, is available.
        """
        state = self._states.get(name)
        if state is None:
            return True
        view = self._view(state, monotonic_s)
        is_open = view.breaker_open or caller in view.breaker_open_for
        return view.health == "up" and not is_open and view.limited_until <= monotonic_s

    def is_up(self, name: str, monotonic_s: float) -> bool:
        """Return whether a backend is in the rotation, limits not counted."""
        state = self._states.get(name)
        if state is None:
            return False
        view = self._view(state, monotonic_s)
        return view.health == "up" and not view.breaker_open

    def own_wait_s(self, name: str, prompt_tokens: int, output_tokens: int, monotonic_s: float) -> float:
        """Return for how long a request would wait behind those that this router has at a local backend; 0 if it has
        none there."""
        state = self._states.get(name)
        if state is None or state.backlog is None:
            return 0.0
        view = state.backlog.own_view(monotonic_s)
        if not view.in_flight:
            return 0.0
        prediction = predict(view, state.backlog.rates(monotonic_s), prompt_tokens, output_tokens)
        return max(0.0, prediction.ttft_s - prediction.alone_ttft_s)

    def has_kv_room(
        self, name: str, prompt_tokens: int, output_tokens: int, monotonic_s: float, share_limit: float
    ) -> bool:
        """Return whether a request would fill the KV cache of a local backend to at most `share_limit`; True where
        there is no backlog."""
        state = self._states.get(name)
        if state is None or state.backlog is None:
            return True
        view, rates = state.backlog.view(monotonic_s), state.backlog.rates(monotonic_s)
        return predict(view, rates, prompt_tokens, output_tokens).kv_share <= share_limit

    def predicted_ttft_s(self, name: str, prompt_tokens: int, output_tokens: int, monotonic_s: float) -> float | None:
        """Return the time to first token of a request at a local backend if it is sent now; None for others."""
        state = self._states.get(name)
        if state is None or state.backlog is None:
            return None
        backlog = state.backlog
        return predict(backlog.view(monotonic_s), backlog.rates(monotonic_s), prompt_tokens, output_tokens).ttft_s

    def last_ok_at(self, name: str) -> float:
        """Return when a request last succeeded at a backend (monotonic); minus infinity if none did."""
        state = self._states.get(name)
        return -math.inf if state is None else state.last_ok_at

    def is_silent(self, name: str) -> bool:
        """Return whether the breaker of a backend opened because calls got no byte, and none got one since."""
        state = self._states.get(name)
        return state is not None and state.silent and state.breaker is not CLOSED

    def may_retry(self, name: str, monotonic_s: float) -> bool:
        """Take one token from the backend's retry budget. Return False if none is left."""
        state = self._states.get(name)
        if state is None:
            return False
        sent, state.sent_since_retry = state.sent_since_retry, 0
        state.retry = retry_budget.on_requests(state.retry, sent, monotonic_s)
        after = retry_budget.on_retry(state.retry)
        if after is None:
            return False
        state.retry = after
        return True

    def sent(
        self, candidate: Candidate, prompt_bytes: int, slo_ttft_s: float, monotonic_s: float, caller: str = ""
    ) -> TrackedCall | None:
        """Record a call that is about to be sent. Return None if the local backlog is full: send it elsewhere."""
        state = self._states.get(candidate.backend.name)
        ticket = self._next_ticket
        self._next_ticket += 1
        call = TrackedCall(
            ticket=ticket,
            backend=candidate.backend.name,
            sent_at=monotonic_s,
            predicted_ttft_s=candidate.ttft_s,
            prompt_bytes=prompt_bytes,
            slo_ttft_s=slo_ttft_s,
            caller=caller,
        )
        if state is None:
            return call
        if state.backlog is not None and not state.backlog.admit(
            ticket, candidate.prompt_tokens, candidate.output_tokens, monotonic_s
        ):
            return None
        state.in_flight += 1
        state.sent_since_retry += 1
        state.calls[ticket] = call
        if state.breaker is not CLOSED:
            if state.silent:
                state.trials += 1
                call.trial = state.trials
            state.breaker = breaker.on_send(state.breaker, monotonic_s)
        state.snapshot = None
        return call

    def first_event(self, call: TrackedCall, monotonic_s: float) -> None:
        """Record that the first content of a streamed answer arrived."""
        state = self._states.get(call.backend)
        if state is None or call.first_event_at is not None or not call.open:
            return
        call.first_event_at = state.heard_at = monotonic_s
        ttft = monotonic_s - call.sent_at
        if state.backlog is None:
            state.ttft_s += EWMA_WEIGHT * 4 * (ttft - state.ttft_s)
        else:
            state.backlog.first_token(call.ticket, monotonic_s)
            state.margin.observe(call.predicted_ttft_s, ttft, call.slo_ttft_s)
        state.snapshot = None

    def ended(self, call: TrackedCall, outcome: Outcome, monotonic_s: float, *, streamed: bool) -> None:
        """Record how the call ended. Harmless when repeated."""
        if not call.open:
            return
        if call.presumed_at <= monotonic_s:
            self._presume_first(call, call.presumed_at)
        call.open = False
        was_waiting, call.abandon = call.abandon is not None, None
        state = self._states.get(call.backend)
        if state is None:
            return
        state.in_flight -= 1
        state.calls.pop(call.ticket, None)
        state.snapshot = None
        usage = outcome.usage
        silent = was_waiting and self._was_silent(state, call, outcome, monotonic_s, streamed=streamed)
        held_up = call.held_up_s >= HELD_UP_S
        if outcome.status and not held_up:
            state.heard_at = monotonic_s
        if state.backlog is not None:
            self._finish_on_backlog(state, call, outcome, monotonic_s)
        elif outcome.kind == "ok" and not streamed and usage is not None and usage.completion_tokens <= 8:
            # A short answer without a stream takes about as long as a first token; a long one says nothing about it.
            state.ttft_s += EWMA_WEIGHT * 4 * (monotonic_s - call.sent_at - state.ttft_s)
        if usage is not None:
            state.tokens.observe(call.prompt_bytes, usage.prompt_tokens)
        if outcome.kind == "ok" and not held_up:
            state.last_ok_at = monotonic_s
            state.silent = False
            if not streamed:
                taken_s = monotonic_s - call.sent_at
                usual_s = state.whole_s
                state.whole_s = taken_s if usual_s is None else usual_s + EWMA_WEIGHT * 4 * (taken_s - usual_s)
        elif outcome.kind != "ok":
            _limit(state, outcome, monotonic_s)
        self._update_breaker(state, call, outcome, monotonic_s, silent=silent)

    def held_up(self, call: TrackedCall, monotonic_s: float) -> None:
        """Record that the client of a call has not read its answer on for a while: it does not occupy the engine for
        ever."""
        state = self._states.get(call.backend)
        if state is not None and state.backlog is not None and call.open:
            state.backlog.set_aside(call.ticket, monotonic_s)
            state.snapshot = None

    def _finish_on_backlog(self, state: _State, call: TrackedCall, outcome: Outcome, monotonic_s: float) -> None:
        if state.backlog is None:
            return
        if outcome.kind == "ok" and call.first_event_at is None:
            self._guess_first_token(state, call, outcome, monotonic_s)
        usage = outcome.usage
        output = usage.completion_tokens if usage is not None and outcome.kind == "ok" else None
        state.backlog.finish(call.ticket, monotonic_s, output, timed=not call.held_up_s, refused=outcome.status >= 400)

    def _update_breaker(
        self, state: _State, call: TrackedCall, outcome: Outcome, monotonic_s: float, *, silent: bool
    ) -> None:
        before = state.breaker
        kind = "timeout" if silent else outcome.kind
        contradicted = outcome.status == 500 and monotonic_s - state.last_ok_at < CONTRADICTED_S
        if kind == "unserved" and outcome.status == 404:
            # It may concern this endpoint or one stored answer. Where nothing else comes, it is the backend.
            kind, contradicted = "failed", True
        suspect = kind == "timeout" or (kind == "failed" and outcome.status != 0) or outcome.status == 403
        if suspect and kind in ("failed", "timeout"):
            if call.failed_before_at < state.last_ok_at:
                kind = "cancelled"  # the same body failed here before, and others did not: it says nothing more
            elif outcome.status >= 500 and state.backlog is not None:
                self._doubt(state, monotonic_s)
                if monotonic_s - state.proven_at < PROVEN_S:
                    kind = "cancelled"  # many callers may send such requests at once
                contradicted = contradicted or monotonic_s - state.proven_at < CONTRADICTED_S
        if call.held_up_s >= HELD_UP_S:
            kind = "cancelled"
        caller = call.caller if suspect else ""
        state.breaker = breaker.on_outcome(
            before,
            kind,
            monotonic_s,
            self._breaker_rule,
            contradicted=contradicted,
            caller=caller,
        )
        if state.breaker is not before and state.breaker.opened_for_s > 0:
            state.breaker_reason = SILENT_REASON if silent else _reason_to_leave(outcome)
            state.silent = silent
            if silent:
                _abandon(state, SILENT_REASON, replaceable_only=True)

    def _doubt(self, state: _State, monotonic_s: float) -> None:
        """Have the engine asked for a token, unless it was a moment ago."""
        if self.on_doubt is not None and monotonic_s - state.proof_at >= PROOF_PAUSE_S:
            state.proof_at = monotonic_s
            self.on_doubt(state.backend.name)

    def proven(self, name: str, sound: bool, monotonic_s: float) -> None:
        """Record whether a request of the router's own succeeded at a local backend."""
        state = self._states.get(name)
        if state is None:
            return
        state.snapshot = None
        if sound:
            state.proven_at = state.last_ok_at = monotonic_s
            state.breaker = CLOSED
        else:
            state.proven_at = state.last_ok_at = -math.inf
            state.breaker = breaker.condemned(state.breaker)

    def patience_s(self, call: TrackedCall, monotonic_s: float, *, streamed: bool) -> float:
        """Return how long a call may wait for its first byte before another backend is asked; no bound for most.

        The trial of a silent backend must not cost its client more than a moment.
        """
        state = self._states.get(call.backend)
        if state is None or not call.trial or not call.replaceable:
            return math.inf
        if not streamed and state.whole_s is None and call.trial % UNHURRIED_TRIAL == 0:
            return math.inf
        return max(0.0, call.sent_at + _silence_s(state, call, streamed=streamed) - monotonic_s)

    @staticmethod
    def _was_silent(state: _State, call: TrackedCall, outcome: Outcome, monotonic_s: float, *, streamed: bool) -> bool:
        """Return whether the call ended without a byte after a wait that says something of its backend.

        A client that leaves early says nothing, nor does one that waited while the backend answered others.
        """
        if outcome.kind not in ("cancelled", "timeout") or outcome.status or state.heard_at >= call.sent_at:
            return False
        if monotonic_s < state.gauges_until and monotonic_s - call.sent_at < GAUGES_BELIEVED_S:
            return False
        return monotonic_s - call.sent_at >= _silence_s(state, call, streamed=streamed)

    def presume_first(self, call: TrackedCall) -> None:
        """Count the prompt of a call without a stream as read once its predicted time to first token has passed.

        Nobody sees the first token of such an answer, and without this presumption its prompt would count as unread
        until the last token. If the engine is slower than predicted, the time of the whole answer still shows it, as
        time per token.
        """
        call.presumed_at = call.sent_at + call.predicted_ttft_s
        state = self._states.get(call.backend)
        if state is not None:
            state.unread.append(call)

    def _presume_first(self, call: TrackedCall, monotonic_s: float) -> None:
        state = self._states.get(call.backend)
        if state is not None and state.backlog is not None and call.open and call.first_event_at is None:
            call.first_event_at = monotonic_s
            state.backlog.first_token(call.ticket, monotonic_s)
            state.snapshot = None

    @staticmethod
    def _guess_first_token(state: _State, call: TrackedCall, outcome: Outcome, monotonic_s: float) -> None:
        """Date the first token of an answer that ended before its first token was presumed, by subtracting the decode
        steps."""
        backlog = state.backlog
        assert backlog is not None
        output = outcome.usage.completion_tokens if outcome.usage is not None else 0
        decode_s = max(0, output - 1) * backlog.step_time_s
        call.first_event_at = max(call.sent_at + 0.2 * (monotonic_s - call.sent_at), monotonic_s - decode_s)
        backlog.first_token(call.ticket, call.first_event_at)

    def limited(self, name: str, seconds: float, monotonic_s: float) -> None:
        """Record that a provider's x-ratelimit headers allow no request for `seconds`."""
        state = self._states.get(name)
        if state is not None and seconds > 0:
            state.limited_until = max(state.limited_until, monotonic_s + seconds)
            state.snapshot = None

    # the engine watch

    def health(self, name: str, health: Health, reason: str) -> None:
        """Record a prober's verdict."""
        state = self._states.get(name)
        if state is not None and (state.health, state.health_reason) != (health, reason):
            left = state.health == "up" and health != "up"
            state.health, state.health_reason = health, reason
            state.snapshot = None
            if health == "up":
                state.breaker = CLOSED
                state.silent = False
            elif left:
                _abandon(state, reason, replaceable_only=False)

    def engine_load(self, name: str, load: EngineLoad | None, monotonic_s: float) -> None:
        """Record a scrape of the engine's gauges; None if it failed or series are missing."""
        state = self._states.get(name)
        if state is not None and state.backlog is not None:
            state.backlog.observe_engine(load, monotonic_s)
            state.snapshot = None
            if load is not None:
                state.gauges_until = monotonic_s + GAUGES_FRESH_S

    def engine_capacity(self, name: str, kv_tokens: int) -> None:
        """Record the KV capacity that the engine reports, in tokens."""
        state = self._states.get(name)
        if state is not None and state.backlog is not None:
            rates = state.backlog.rates(-math.inf)
            if rates.kv_capacity_tokens != kv_tokens:
                state.backlog.observe_capacity(kv_tokens, state.backlog.configured_sequences)
                state.snapshot = None

    def engine_abilities(self, name: str, context_tokens: int | None, lacks: frozenset[Capability]) -> None:
        """Record the context length that the engine reports (None: it reports none), and what it can't do."""
        state = self._states.get(name)
        if state is not None:
            state.engine_context_tokens, state.engine_lacks = context_tokens, lacks
            state.snapshot = None

    def engine_sequences(self, name: str, sequences: int | None) -> None:
        """Record how many requests the engine says it runs at once (None: it does not say). A configured number counts
        only where it is lower."""
        state = self._states.get(name)
        if state is None or state.backlog is None:
            return
        configured, capacity = state.configured_sequences, state.backlog.rates(-math.inf).kv_capacity_tokens
        most = configured if sequences is None else min(configured, sequences)
        if most != state.backlog.configured_sequences:
            state.backlog.observe_capacity(capacity, most)
            state.snapshot = None

    def lacking(self, name: str) -> frozenset[Capability]:
        """Return the capabilities that a backend is known not to have, beyond its configuration."""
        state = self._states.get(name)
        return NOTHING_LACKING if state is None else state.engine_lacks

    def gpu(self, rate: float, reasons: tuple[str, ...], healthy: bool) -> None:
        """Record NVML's verdict, which applies to every local backend of this machine.

        `rate` is the factor on the prefill rate, `reasons` says why it is below 1 or the GPU is unhealthy.
        """
        for state in self._states.values():
            if state.backlog is None:
                continue
            was_usable = not state.gpu_reason
            state.gpu_rate = min(1.0, max(0.1, rate))
            state.gpu_reason = "" if healthy else "gpu: " + ", ".join(reasons)
            state.snapshot = None
            if was_usable and state.gpu_reason:
                _abandon(state, state.gpu_reason, replaceable_only=False)

    def gpu_utilisation(self, name: str, share: float | None, monotonic_s: float) -> None:
        """Record how busy the GPU of an engine was lately, 0 to 1; None if it is not known. It is believed for a few
        seconds."""
        state = self._states.get(name)
        if state is not None:
            state.gpu_utilisation, state.gpu_utilisation_until = share, monotonic_s + FRESH_S
            state.snapshot = None

    def in_flight(self) -> Mapping[str, int]:
        """Return the number of calls in progress per backend."""
        return {name: state.in_flight for name, state in self._states.items()}


def _silence_s(state: _State, call: TrackedCall, *, streamed: bool) -> float:
    """Return after how long the silence of a call says something of its backend."""
    usual_s = state.ttft_s if streamed else state.whole_s or 0.0
    return max(SILENT_S, SILENT_FACTOR * max(call.predicted_ttft_s, usual_s))


def _abandon(state: _State, reason: str, *, replaceable_only: bool) -> None:
    """Give up the calls of a backend that left the rotation of whose answers nothing was shown."""
    for call in tuple(state.calls.values()):
        if call.abandon is not None and (call.replaceable or not replaceable_only):
            if replaceable_only and not state.breaker.for_all and call.caller not in state.breaker.callers:
                continue
            call.abandon(reason)


SILENT_REASON = "it has not sent a byte for longer than usual"


def _limit(state: _State, outcome: Outcome, monotonic_s: float) -> None:
    """Leave the backend out for as long as the outcome asks for."""
    if outcome.kind == "overloaded" and state.backlog is not None:
        state.limited_until = monotonic_s + OVERLOADED_WAIT_S
        return
    wait_s = outcome.retry_after_s or retry_budget.LIMITED_WAIT_S
    if outcome.kind == "overloaded" or (outcome.kind == "failed" and outcome.status == 503 and outcome.retry_after_s):
        wait_s = min(60.0, wait_s)
    elif outcome.kind != "rate_limited":
        return
    state.limited_until = max(state.limited_until, monotonic_s + wait_s)


def _reason_to_leave(outcome: Outcome) -> str:
    """Say why a backend leaves the rotation, without the upstream's own text, which may repeat keys and prompts."""
    status = f" (HTTP {outcome.status})" if outcome.status else ""
    fault = f" ({outcome.fault})" if outcome.fault else ""
    if outcome.kind == "unauthorized":
        return f"it refuses our credentials or our credit{fault}{status}"
    if outcome.kind in ("withdrawn", "unserved"):
        return f"it does not have its model{fault}{status}"
    return f"its breaker is open after repeated failures{status}"
