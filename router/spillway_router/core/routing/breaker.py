"""The circuit breaker of one backend: a reducer (state, event, time) -> state. Times are monotonic seconds.

While closed it counts consecutive failures. When it opens, the backend gets no traffic until `open_until`. Then it is
half-open and lets one trial through: success closes it, failure opens it for twice as long, up to a bound.

`failed` and `timeout` count as failures: an overloaded engine and a rate limit mean load, and a rejected request is the
client's fault. `unauthorized` and `withdrawn` open it at once, because the next request would fare the same.

A caller whose requests always fail must not take the backend from everybody. A failure that may be the fault of its
request names its caller, and a breaker that such failures opened is open for those callers alone, until as many
distinct ones have failed as prove that it is the backend. While other requests succeed there, many more such failures
are needed.
"""

from __future__ import annotations

from dataclasses import replace

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import OutcomeKind


@fast_frozen(frozen=True, slots=True)
class BreakerRule:
    """Bounds of a breaker: consecutive failures that open it, and seconds that it stays open."""

    failures: int = 3
    open_s: float = 1.0
    longest_open_s: float = 3.0
    """Bounds the time from a repair to the first request that finds out."""
    contradicted_failures: int = 20
    """Consecutive failures that open it while each of them may be the fault of its request: a 500 where another request
    succeeded just before, or a 404 of unknown cause."""
    callers: int = 3
    """Distinct callers whose failures, without a success in between, open it for everybody."""


@fast_frozen(frozen=True, slots=True)
class Breaker:
    """The state: consecutive failures, until when the breaker is open, and for how long it opened last (0: closed)."""

    failures: int = 0
    open_until: float = 0.0
    opened_for_s: float = 0.0
    trial_until: float = 0.0
    """Until when a half-open breaker waits for its single trial; a trial that never reports back expires then."""
    callers: tuple[str, ...] = ()
    """The distinct callers of the failures, as far as they matter."""
    for_all: bool = False
    """Whether the failures speak for everybody."""


CLOSED = Breaker()
TRIAL_S = 2.0
"""Longest time a half-open breaker waits for its trial before it lets another through: one that hangs says nothing of
a repair since."""
AT_ONCE = frozenset({"unauthorized", "withdrawn"})
"""Outcomes that take the backend out of the rotation at once."""


def is_open(state: Breaker, monotonic_s: float) -> bool:
    """Return whether some callers' requests are kept away: it is still open, or half-open with its trial under way."""
    return state.opened_for_s > 0 and (monotonic_s < state.open_until or monotonic_s < state.trial_until)


def on_send(state: Breaker, monotonic_s: float) -> Breaker:
    """Return the state after a request was sent, which is the trial of a half-open breaker."""
    if state.opened_for_s > 0 and monotonic_s >= state.open_until:
        return replace(state, trial_until=monotonic_s + TRIAL_S)
    return state


def on_outcome(
    state: Breaker,
    kind: OutcomeKind,
    monotonic_s: float,
    rule: BreakerRule,
    *,
    contradicted: bool = False,
    caller: str = "",
) -> Breaker:
    """Return the state after one call ended.

    `contradicted`: the failure may be the fault of its request, and others succeed. `caller`: whose request it may be
    the fault of; empty if the failure speaks for everybody.
    """
    at_once = kind in AT_ONCE
    if at_once or kind in ("failed", "timeout"):
        state = _with_caller(state, caller, rule)
        if state.opened_for_s > 0 and monotonic_s < state.open_until:
            return state  # the call was sent before the breaker opened and reports the same trouble
        failures = state.failures + 1
        allowed = rule.contradicted_failures if contradicted else rule.failures
        if failures < allowed and state.opened_for_s == 0 and not at_once:
            return replace(state, failures=failures)
        return _opened(state, failures, monotonic_s, rule)
    if kind in ("cancelled", "unsent"):
        return replace(state, trial_until=0.0) if state.trial_until else state
    if state is CLOSED or state == CLOSED:
        return state
    return CLOSED


def condemned(state: Breaker) -> Breaker:
    """Return the state after a request of the router's own failed: the other failures then speak for everybody, too."""
    return replace(state, for_all=True) if state.failures else state


def _opened(state: Breaker, failures: int, monotonic_s: float, rule: BreakerRule) -> Breaker:
    open_for_s = min(rule.longest_open_s, max(rule.open_s, 2 * state.opened_for_s))
    return Breaker(failures, monotonic_s + open_for_s, open_for_s, callers=state.callers, for_all=state.for_all)


def _with_caller(state: Breaker, caller: str, rule: BreakerRule) -> Breaker:
    """Return the state with one more caller who failed."""
    if state.for_all or caller in state.callers:
        return state
    if not caller or len(state.callers) + 1 >= rule.callers:
        return replace(state, for_all=True)
    return replace(state, callers=(*state.callers, caller))
