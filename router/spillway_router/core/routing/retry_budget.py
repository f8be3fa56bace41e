"""The retry budget: whether another attempt may be made, so that retries don't pile onto a broken upstream.

Every attempt after a request's first one takes a token from one bucket. The bucket earns 0.2 tokens per request and 10
per second, and a request makes at most three attempts. A reducer: (state, event) -> state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spillway_router.core.routing.model import Outcome

MAX_ATTEMPTS = 3
RETRYABLE = frozenset({"overloaded", "rate_limited", "unauthorized", "unserved", "failed", "timeout"})
"""Outcomes after which another backend may succeed."""


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
    """Return the state after `count` requests arrived since the last call."""
    elapsed_s = 0.0 if state.updated_at is None else max(0.0, monotonic_s - state.updated_at)
    earned = state.share * count + state.per_s * elapsed_s
    return replace(state, tokens=min(state.most, state.tokens + earned), updated_at=monotonic_s)


def on_retry(state: RetryBudget) -> RetryBudget | None:
    """Return the state after one more attempt, None if the budget has no token left."""
    return None if state.tokens < 1.0 else replace(state, tokens=state.tokens - 1.0)


def may_try_next(outcome: Outcome, attempts: int, candidates_left: int) -> bool:
    """Return whether a request that made `attempts` calls may go to its next candidate.

    A full queue costs the engine nothing, so a request may walk its whole chain past overloaded engines.
    """
    if candidates_left <= 0 or outcome.kind not in RETRYABLE:
        return False
    return attempts < MAX_ATTEMPTS or outcome.kind == "overloaded"
