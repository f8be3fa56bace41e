"""May another attempt be made? A retry budget so that a broken upstream is not hit harder than a healthy one.

Retries and failovers after the first attempt draw tokens from one bucket: 20% of requests plus 10 per second
(docs/routing.md), at most three attempts per request. A reducer: (state, now) -> state.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.routing.model import Outcome

MAX_ATTEMPTS = 3
RETRYABLE = frozenset({"overloaded", "rate_limited", "unauthorized", "unserved", "failed", "timeout"})


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """`tokens` attempts are left at `at` (monotonic seconds; None: nothing happened yet)."""

    tokens: float = 10.0
    at: float | None = None
    share: float = 0.2
    per_s: float = 10.0
    most: float = 100.0


def on_requests(state: RetryBudget, count: int, now: float) -> RetryBudget:
    """So many requests arrived since the last call: each earns its share of a retry, and time earns the rest."""
    waited_s = 0.0 if state.at is None else max(0.0, now - state.at)
    earned = state.share * count + state.per_s * waited_s
    return RetryBudget(min(state.most, state.tokens + earned), now, state.share, state.per_s, state.most)


def on_retry(state: RetryBudget) -> RetryBudget | None:
    """The state after one more attempt; None if the budget has none left."""
    if state.tokens < 1.0:
        return None
    return RetryBudget(state.tokens - 1.0, state.at, state.share, state.per_s, state.most)


def may_try_next(outcome: Outcome, attempts: int, left: int) -> bool:
    """True if the request may go to its next candidate after `attempts` calls, `left` candidates remaining.

    A queue cap that refuses cost the engine nothing, so overflow may walk the whole chain.
    """
    if left <= 0 or outcome.kind not in RETRYABLE:
        return False
    return attempts < MAX_ATTEMPTS or outcome.kind == "overloaded"
