"""Circuit breaker of one backend: a reducer (state, outcome, now) -> state.

Closed: counts consecutive failures. Open: no traffic until `open_until`. Then half-open: `allows` lets one trial
through; its success closes, its failure opens for twice as long, up to a bound. Only `failed` and `timeout` count:
an overloaded engine and a rate limit are load, not illness, and a rejected request is the client's.
"""

from __future__ import annotations

from dataclasses import replace

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import OutcomeKind


@fast_frozen(frozen=True, slots=True)
class BreakerRule:
    """Seconds and counts of one breaker."""

    failures: int = 3
    open_s: float = 1.0
    longest_open_s: float = 30.0


@fast_frozen(frozen=True, slots=True)
class Breaker:
    """State: consecutive failures, until when it is open (monotonic seconds), how long it opened last."""

    failures: int = 0
    open_until: float = 0.0
    opened_for_s: float = 0.0
    trial_until: float = 0.0
    """A half-open breaker's single trial is under way until then; a trial that never reports back expires."""


CLOSED = Breaker()
TRIAL_S = 30.0


def is_open(state: Breaker, now: float) -> bool:
    """True if no request may be sent: still open, or half-open with its trial under way."""
    return state.opened_for_s > 0 and (now < state.open_until or now < state.trial_until)


def on_send(state: Breaker, now: float) -> Breaker:
    """A request was sent: in half-open it is the trial."""
    if state.opened_for_s > 0:
        return replace(state, trial_until=now + TRIAL_S)
    return state


def on_outcome(state: Breaker, kind: OutcomeKind, now: float, rule: BreakerRule) -> Breaker:
    """The state after one call ended."""
    if kind in ("failed", "timeout"):
        if state.opened_for_s > 0 and now < state.open_until:
            return state  # sent before it opened: the same trouble, told again
        failures = state.failures + 1
        if failures < rule.failures and state.opened_for_s == 0:
            return Breaker(failures)
        length = min(rule.longest_open_s, max(rule.open_s, 2 * state.opened_for_s))
        return Breaker(failures, now + length, length)
    if kind == "cancelled":
        return replace(state, trial_until=0.0) if state.trial_until else state
    if state is CLOSED or state == CLOSED:
        return state
    return CLOSED
