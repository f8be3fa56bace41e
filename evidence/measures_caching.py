"""Stored answers that reach another request than the one they were made for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from evidence.caching.crossings import changes, try_requests
from evidence.results import Measurement, not_measured

CROSSINGS = "policy.cache_crossings"
ASKED = 120_000
LEAST_HITS = 0.1


def crossings(say: Callable[[str], None], requests: int = ASKED) -> dict[str, Measurement]:
    """Send requests that differ from earlier ones in one thing. It is void if anything was never changed, or if too few
    of them got a stored answer for that to say anything."""
    seen = asyncio.run(try_requests(requests))
    untried = sorted(changes() - seen.tried.keys())
    if untried:
        return {CROSSINGS: not_measured(f"nothing was changed in: {', '.join(untried)}")}
    if seen.hits < LEAST_HITS * requests:
        return {CROSSINGS: not_measured(f"only {seen.hits} of {requests} requests got a stored answer")}
    for crossed in seen.crossed[:20]:
        say(f"  {crossed}")
    details = {
        "crossed": seen.crossed[:20],
        "hits": seen.hits,
        "asked_before": seen.repeated,
        "asked_before_and_missed": seen.missed,
        "changed": dict(sorted(seen.tried.items())),
    }
    return {CROSSINGS: Measurement(len(seen.crossed), seen.requests, details)}
