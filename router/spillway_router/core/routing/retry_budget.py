"""Failover and retries: which outcomes send a request on, and whether an upstream may be asked again.

Failover is no retry: a request may ask every candidate once, and no budget limits that. What keeps failover from piling
onto a broken upstream is its breaker, which is looked at again before every further candidate.

A retry asks the same upstream again. It takes a token from that upstream's budget, which earns 0.2 tokens per request
sent there and 10 per second. A reducer: (state, event) -> state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_router.core.routing.model import Outcome

RETRYABLE = frozenset({"overloaded", "rate_limited", "unauthorized", "withdrawn", "unserved", "failed", "timeout"})
"""Outcomes after which another backend may succeed."""
LIMITED_WAIT_S = 1.0
"""How long a cloud gets no requests after it refused one for its limit or its load and named no time."""
JITTER_S = (0.05, 0.15)
"""Shortest and longest pause before an upstream is asked again, so that requests that failed together do not come
back together."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """The bucket and its terms: it holds `tokens`, earns `share` per request and `per_s` per second, up to `most`."""

    tokens: float = 10.0
    updated_at: float | None = None
    """When `tokens` was last computed, in seconds of the monotonic clock; None before the first request."""
    share: float = 0.2
    per_s: float = 10.0
    most: float = 100.0


def on_requests(state: RetryBudget, count: int, monotonic_s: float) -> RetryBudget:
    """Return the state after `count` requests were sent since the last call."""
    elapsed_s = 0.0 if state.updated_at is None else max(0.0, monotonic_s - state.updated_at)
    earned = state.share * count + state.per_s * elapsed_s
    return replace(state, tokens=min(state.most, state.tokens + earned), updated_at=monotonic_s)


def on_retry(state: RetryBudget) -> RetryBudget | None:
    """Return the state after one retry, None if the budget has no token left."""
    return None if state.tokens < 1.0 else replace(state, tokens=state.tokens - 1.0)


def may_try_next(outcome: Outcome) -> bool:
    """Return whether another backend may answer a request that ended like this here."""
    return outcome.kind in RETRYABLE


MOST_LOST = 2
"""Calls for which a request may pay in vain after the promised time; the second one only at a healthy backend."""


def may_pay_again(lost: int, elapsed_s: float, promised_s: float, *, silent: bool) -> bool:
    """Return whether a request may ask a further paid backend, after `lost` calls that it paid for in vain.

    A call that hangs or breaks is charged at its bound, as its provider may have worked on it. Within the promised time
    to first token nothing limits such calls. After it a backend that is `silent` itself is not tried at this request's
    expense, and one that seems healthy only if no more than one call is lost already.
    """
    if not lost or elapsed_s <= promised_s:
        return True
    return lost < MOST_LOST and not silent


def pause_before_retry_s(outcome: Outcome, jitter: float, *, local: bool) -> float | None:
    """Return how long to wait before the same backend is asked again; None if that would not help.

    Only what may be over in a moment is worth it: a broken connection, an answer of 5xx, a limit or a short overload
    of a cloud. A full local queue refuses to be spared, a timeout has used up the time, and a flawed answer of 200 may
    have been billed. `jitter` in [0, 1) spreads the pause.
    """
    shortest, longest = JITTER_S
    pause_s = shortest + jitter * (longest - shortest)
    if outcome.kind == "failed":
        if 200 <= outcome.status < 300:
            return None
        return pause_s + (outcome.retry_after_s or 0.0)
    if outcome.kind == "rate_limited" or (outcome.kind == "overloaded" and not local):
        return pause_s + (outcome.retry_after_s or LIMITED_WAIT_S)
    return None
