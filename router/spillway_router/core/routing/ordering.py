"""The rules that order what the filters left: scores in [0, 1], higher first. One function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from spillway_router.core.routing.model import Candidate, Sort

Scorer = Callable[[Candidate], float]

_LATENCY_SCALE_S = 1.0
_COST_SCALE_NANO = 1_000_000  # 0.001 USD


def latency(candidate: Candidate) -> float:
    """1 at no wait, 0.5 at one second to the first token."""
    return _LATENCY_SCALE_S / (_LATENCY_SCALE_S + max(0.0, candidate.ttft_s))


def price(candidate: Candidate) -> float:
    """1 for free (local), 0.5 at a bound of 0.001 USD per request."""
    return _COST_SCALE_NANO / (_COST_SCALE_NANO + candidate.cost_bound_nano)


SCORERS: Mapping[Sort, Scorer] = MappingProxyType({"fastest": latency, "cheapest": price})
