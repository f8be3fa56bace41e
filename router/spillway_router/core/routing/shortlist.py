"""Which of many local engines are worth a closer look for one request.

A prediction with its reasons costs as much for each engine as the rest of a decision. Of dozens of engines only the few
with the least time to first token matter, as long as one of them can serve the request in time. So these are found by
one quick pass that computes nothing else, and `decide` looks closely at them alone. Where none of them keeps the
promise, it looks at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from spillway_router.core.routing import filters
from spillway_router.core.routing.backlog import MOST_PREFILL_SHARE
from spillway_router.core.routing.model import NO_PREFERENCES, Backend, BackendSignals, RequestFacts, Signals

LISTED = 4
"""Local engines on the list: the one that answers, and those that are asked if it fails."""
MANY = 8
"""The least number of backends for which the list is worth its while."""


def may_be_short(facts: RequestFacts, chain: Sequence[Backend]) -> bool:
    """Return whether the order of the local engines depends on their load alone: on no session, preference or
    embedding space."""
    return (
        len(chain) > MANY
        and facts.preferences is NO_PREFERENCES
        and not facts.hints.session_id
        and facts.endpoint != "embeddings"
    )


def shortlist(facts: RequestFacts, signals: Signals, chain: Sequence[Backend]) -> tuple[Backend, ...]:
    """Return the backends of a chain without the local engines that are not among the `LISTED` ones that may serve the
    request and would begin first; those stay where they stand in the chain."""
    rules, of_backends, monotonic_s = filters.applicable_filters(facts), signals.backends, signals.monotonic_s
    places: list[int] = []
    waits_s: list[float] = []
    for place, backend in enumerate(chain):
        if not backend.local:
            continue
        latest = of_backends.get(backend.name)
        wait_s = -1.0 if latest is None else _wait_s(facts, backend, latest)
        if wait_s < 0.0 or latest is None or (len(waits_s) == LISTED and wait_s >= waits_s[-1]):
            continue
        if not all(rule(facts, backend, latest, monotonic_s) is None for rule in rules):
            continue
        at = len(waits_s)
        while at > 0 and waits_s[at - 1] > wait_s:
            at -= 1
        waits_s.insert(at, wait_s)
        places.insert(at, place)
        del waits_s[LISTED:], places[LISTED:]
    return tuple([backend for place, backend in enumerate(chain) if not backend.local or place in places])


def _wait_s(facts: RequestFacts, backend: Backend, latest: BackendSignals) -> float:
    """Return the predicted time to first token; below 0 if nobody knows. It is that of backlog.predict, without the
    rest of a prediction and without making one."""
    backlog, rates = latest.backlog, latest.rates
    if backlog is None or rates is None:
        return -1.0
    prompt, others, most = filters.expected_prompt_tokens(facts, latest), backlog.in_flight, rates.max_sequences
    tokens_per_s = rates.prefill_tokens_per_s * latest.gpu_rate
    recent = backlog.recent_prefill_tokens + (prompt if others else 0)
    share = min(MOST_PREFILL_SHARE, recent / (backlog.window_s * tokens_per_s))
    step_s = (rates.step_time_s + rates.step_time_s_per_sequence * min(others + 1, most)) / (1.0 - share)
    wait_s = (backlog.prefill_tokens + prompt) / tokens_per_s + step_s
    excess = others + 1 - most
    if excess > 0:
        wait_s += excess * min(latest.expected_output_tokens, filters.output_bound(facts, backend)) * step_s / most
    return wait_s
