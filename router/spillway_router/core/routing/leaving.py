"""Which of the waiting requests leaves for a cloud, where something must: the one whose cloud price per unit of
relieved GPU work is lowest, among those that can wait no longer.

Requests wait at a gate before the engine. Whenever the engine has room, the waiting request with the highest density
goes to it:

    density = price at the cloud (nano-dollars) / GPU work (seconds)

so that the engine does the work that is dear elsewhere, as in a fractional knapsack. A request that still waits at the
last moment at which a cloud can keep the promise leaves. The ones that wait until then are those of the lowest density:
long prompts, whose tokens a cloud sells cheaply. Nobody leaves before its last moment, because until then the engine
may have room.

A request that may not leave (private, or without a cloud that could take it) has an infinite density and no last
moment: it goes before the others, in the order of arrival.

Nothing here is decided by the length of one arrival alone, as it is by `backlog.overflow_reasons`. Decision 0046
compares the two.

Pure: `now_s` and all moments are seconds of any one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spillway_router.core.money.attribution import MICRO, WorkCoefficients, work_share_us
from spillway_router.core.routing.backlog import BacklogView, EngineRates, predict

MAY_NOT_LEAVE = math.inf
"""The density, and the last moment, of a request that no cloud may have."""


@dataclass(frozen=True, slots=True)
class GateTerms:
    """When the engine has room, and until when a request may wait.

    `slo_ttft_s` is the promised time to first token in seconds. `engine_wait_share` is the share of it for which
    requests may wait inside the engine: several prompts, so that no step of the engine is without one. `kv_share_limit`
    is the share of the KV cache that may be promised to requests in flight; their whole expected answers count from the
    start, so that at 1.0 about 0.95 of the cache is in use. `cloud_ttft_s` is the cloud's time to first token.
    """

    slo_ttft_s: float
    cloud_ttft_s: float = 0.5
    engine_wait_share: float = 0.5
    kv_share_limit: float = 1.0

    def leave_by_s(self, arrived_s: float) -> float:
        """Return the last moment at which a cloud can keep the promise to a request, at the earliest its arrival."""
        return arrived_s + max(0.0, self.slo_ttft_s - self.cloud_ttft_s)


@dataclass(frozen=True, slots=True)
class GatedRequest:
    """One request at the gate: its tokens (the answer's as expected), its arrival, its last moment and its density."""

    number: int
    prompt_tokens: int
    output_tokens: int
    arrived_s: float
    leave_by_s: float = MAY_NOT_LEAVE
    density: float = MAY_NOT_LEAVE


def density(cloud_nano: float, prompt_tokens: int, output_tokens: int, coefficients: WorkCoefficients) -> float:
    """Return nano-dollars at the cloud per second of GPU work that the engine is spared."""
    work_us = work_share_us(prompt_tokens, prompt_tokens, output_tokens, coefficients)
    return cloud_nano * MICRO / work_us if work_us > 0 else MAY_NOT_LEAVE


def has_room(request: GatedRequest, view: BacklogView, rates: EngineRates, terms: GateTerms, now_s: float) -> bool:
    """Return whether the engine can take a request now: its queue is short, the KV cache has room, and the first token
    would come in time. One that may not leave is taken late as well."""
    prediction = predict(view, rates, request.prompt_tokens, request.output_tokens)
    waits_s = prediction.ttft_s - prediction.alone_ttft_s
    if waits_s > terms.engine_wait_share * terms.slo_ttft_s or prediction.kv_share > terms.kv_share_limit:
        return False
    in_time = now_s - request.arrived_s + prediction.ttft_s <= terms.slo_ttft_s
    return in_time or request.leave_by_s == MAY_NOT_LEAVE


def by_density(waiting: Iterable[GatedRequest]) -> list[GatedRequest]:
    """Return the waiting requests in the order in which the engine should have them."""
    return sorted(waiting, key=lambda request: (-request.density, request.arrived_s, request.number))


def next_to_enter(
    waiting: Iterable[GatedRequest], view: BacklogView, rates: EngineRates, terms: GateTerms, now_s: float
) -> GatedRequest | None:
    """Return the request that the engine should have next; None if there is room for none of them.

    Where the first one in order does not fit, a later one that does may pass it: it is smaller, and takes nothing that
    the first could use.
    """
    return next((one for one in by_density(waiting) if has_room(one, view, rates, terms, now_s)), None)


def that_leave(waiting: Sequence[GatedRequest], now_s: float, tick_s: float) -> list[GatedRequest]:
    """Return the requests that can wait no longer, the cheapest per GPU-second first. `tick_s`: when the gate is next
    looked at, in seconds from now."""
    late = [one for one in waiting if one.leave_by_s < now_s + tick_s]
    return sorted(late, key=lambda one: (one.density, one.number))
