"""Which of many local engines are worth a closer look for one request.

A prediction with its reasons costs as much for each engine as the rest of a decision. Of dozens of engines only the few
with the least time to first token matter, as long as one of them can serve the request in time. So these are found by
one quick pass that computes nothing else, and `decide` looks closely at them alone. Where none of them keeps the
promise, it looks at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from spillway_router.core.routing import filters
from spillway_router.core.routing.backlog import MOST_PREFILL_SHARE
from spillway_router.core.routing.model import NO_PREFERENCES, Backend, BackendSignals, RequestFacts, Signals

LISTED: Final = 4
"""Local engines on the list: the one that answers, and those that are asked if it fails."""
MANY: Final = 8
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
    of_backends = signals.backends if isinstance(signals.backends, dict) else dict(signals.backends)
    listed: list[int] = []
    waits_s: list[float] = []
    for place, backend in enumerate(chain):
        wait_s = math.inf
        latest = of_backends.get(backend.name) if backend.local else None
        if latest is not None:
            wait_s = _wait_s(facts, backend, latest)
        elif not backend.local:
            listed.append(place)
        waits_s.append(wait_s)
    most = len(listed) + LISTED
    for place in _by_wait(waits_s):
        backend = chain[place]
        if _may_serve(facts, backend, of_backends[backend.name], signals.monotonic_s):
            listed.append(place)
            if len(listed) == most:
                break
    return tuple([chain[place] for place in sorted(listed)])


def _by_wait(waits_s: list[float]) -> Iterator[int]:
    """Yield the places of the finite waits, the shortest wait and of equal ones the first place first.

    The first few are nearly always enough, and looking for them is quicker than sorting all.
    """
    for _ in range(2 * LISTED):
        at = _place_of_least(waits_s)
        if at < 0:
            return
        waits_s[at] = math.inf
        yield at
    yield from [place for place in sorted(range(len(waits_s)), key=waits_s.__getitem__) if waits_s[place] < math.inf]


def _place_of_least(waits_s: list[float]) -> int:
    least_s, at = math.inf, -1
    for place in range(len(waits_s)):
        wait_s = waits_s[place]
        if wait_s < least_s:
            least_s, at = wait_s, place
    return at


def _may_serve(facts: RequestFacts, backend: Backend, latest: BackendSignals, monotonic_s: float) -> bool:
    return all(rule(facts, backend, latest, monotonic_s) is None for rule in filters.applicable_filters(facts))


def _wait_s(facts: RequestFacts, backend: Backend, latest: BackendSignals) -> float:
    """Return the predicted time to first token; infinity if nobody knows. It is that of backlog.predict, without the
    rest of a prediction and without making one."""
    backlog, rates = latest.backlog, latest.rates
    if backlog is None or rates is None:
        return math.inf
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
