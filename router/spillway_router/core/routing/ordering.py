"""Scorers: the functions that order the candidates where a request asks for the fastest or the cheapest one.

A scorer maps a candidate to a score in [0, 1]; the highest score comes first. To add one, write a function, name it in
`SCORERS` and `Sort`, and test it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from spillway_router.core.routing.model import Candidate, Sort

Scorer = Callable[[Candidate], float]

_LATENCY_SCALE_S = 1.0
_COST_SCALE_NANO = 1_000_000  # 0.001 USD


def latency_score(candidate: Candidate) -> float:
    """Return 1 for a first token without delay, 0.5 for one after a second."""
    return _LATENCY_SCALE_S / (_LATENCY_SCALE_S + max(0.0, candidate.ttft_s))


def price_score(candidate: Candidate) -> float:
    """Return 1 for a free (local) backend, 0.5 for a cost bound of 0.001 USD per request."""
    return _COST_SCALE_NANO / (_COST_SCALE_NANO + candidate.bound_nano)


SUFFIXES: Mapping[str, Sort] = MappingProxyType(
    {"fastest": "fastest", "cheapest": "cheapest", "nitro": "fastest", "floor": "cheapest"}
)
"""The suffixes of a model's name, ours and OpenRouter's (https://openrouter.ai/docs/features/model-routing)."""


def split_suffix(model: str) -> tuple[str, Sort]:
    """Return the name of a model without its suffix, and the order that the suffix asks for."""
    name, _, suffix = model.rpartition(":")
    sort = SUFFIXES.get(suffix) if name else None
    return (model, "") if sort is None else (name, sort)


SCORERS: Mapping[Sort, Scorer] = MappingProxyType({"fastest": latency_score, "cheapest": price_score})
