"""Until when a request may wait for a local engine, and what it costs to send it away instead, where what leaves is
chosen by price (core/routing/leaving.py).

A request that would overflow waits at the engine's gate first, until the last moment at which its cloud can keep the
promise. Whoever is dearest to send away per unit of GPU work goes to the engine first, so that those that leave are the
cheapest of all that wait.
"""

from __future__ import annotations

from spillway_router.core.money.tariff import Usage, price
from spillway_router.core.routing.fair_queue import TICK_S
from spillway_router.core.routing.leaving import MAY_NOT_LEAVE, GateTerms, density
from spillway_router.core.routing.model import Candidate
from spillway_router.proxy.exchange.state import ExchangeState

WORTH_WAITING = frozenset({"queue", "kv"})
"""Reasons of an overflow that may pass while a request waits."""


def waits_first(state: ExchangeState) -> Candidate | None:
    """Return the local candidate for which a request waits before it overflows; None if it should leave at once."""
    candidates = state.decision.candidates
    if state.config.leaves_by_price is None or state.decision.kind != "overflow" or candidates[0].backend.local:
        return None
    for candidate in candidates:
        if candidate.backend.local and candidate.reasons and WORTH_WAITING.issuperset(candidate.reasons):
            return candidate if leave_by_s(state) > state.services.clock() else None
    return None


def leave_by_s(state: ExchangeState) -> float:
    """Return the last moment (monotonic seconds) at which the first cloud can keep the promise, a look at the gate
    earlier; infinity without a cloud."""
    cloud = _first_cloud(state)
    if cloud is None:
        return MAY_NOT_LEAVE
    slo_ttft_s = state.facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
    return GateTerms(slo_ttft_s, cloud.ttft_s).leave_by_s(state.started_s) - TICK_S


def density_of(state: ExchangeState, candidate: Candidate) -> float:
    """Return the cloud's price of what the engine is expected to do for the request, per GPU-second; infinity for one
    that no cloud may have."""
    cloud, coefficients = _first_cloud(state), state.config.leaves_by_price
    if cloud is None or coefficients is None:
        return MAY_NOT_LEAVE
    tariff = cloud.backend.tariff
    nano = 0 if tariff is None else price(Usage(candidate.prompt_tokens, candidate.output_tokens), tariff)
    return density(float(nano), candidate.prompt_tokens, candidate.output_tokens, coefficients)


def _first_cloud(state: ExchangeState) -> Candidate | None:
    return next((one for one in state.decision.candidates if not one.backend.local), None)
