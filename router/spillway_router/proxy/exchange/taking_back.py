"""Whether an addition that a backend refused may be taken back, when the holds of the request depend on it."""

from __future__ import annotations

from dataclasses import replace

from spillway_router.core.money.tariff import STANDARD
from spillway_router.core.routing.model import Backend, Outcome, RequestFacts
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.refused_additions import ADDED_WORDS, BOUNDING, NOTHING, Addition, RequestShape

NOT_HERE = "the router can't bound the cost of this request here, as a budget needs it"


def shape_of(facts: RequestFacts, backend: str) -> RequestShape:
    """Return what a refusal of an addition to this request may depend on."""
    return RequestShape(backend, facts.endpoint, facts.stream, "tools" in facts.needs)


def known_refusals(services: Services, facts: RequestFacts, backend: Backend) -> frozenset[Addition]:
    """Return what the router must not add for this backend: nearly always nothing.

    Under a cap what bounds the cost is sent all the same, because without it the backend may not be asked.
    """
    refused = services.memory.refused_additions
    if refused.is_empty:
        return NOTHING
    left_out = refused.of(shape_of(facts, backend.name), services.clock())
    return left_out - BOUNDING if left_out & BOUNDING and needs_bound(services, facts, backend) else left_out


def refused_bounds(services: Services, facts: RequestFacts, backend: str) -> frozenset[Addition]:
    """Return what bounds the cost of such a request and what this backend is known to refuse."""
    return services.memory.refused_additions.of(shape_of(facts, backend), services.clock()) & BOUNDING


def is_added(addition: Addition, facts: RequestFacts) -> bool:
    """Return whether the router would add this to the request. A client's own bound is its own matter."""
    if addition == "bound":
        return facts.max_tokens is None
    if addition == "service":
        return facts.service == STANDARD
    return addition != "tool_limits" or bool(facts.items)


def needs_bound(services: Services, facts: RequestFacts, backend: Backend) -> bool:
    """Return whether a cap covers the request, and nothing permits the backend to exceed its hold."""
    if backend.holds_unbounded:
        return False
    return facts.hints.max_cost_nano is not None or services.accounts.headroom(facts, backend) is not None


def may_take_back(services: Services, facts: RequestFacts, backend: Backend, addition: Addition, fault: str) -> bool:
    """Return whether the call may be sent again without the addition that the backend refused.

    A bound that is refused because it is longer than the context leaves room for is larger than what the model can
    give, so that the hold covers the answer without it.
    """
    return addition not in BOUNDING or fault == "context" or not needs_bound(services, facts, backend)


def unbounded_outcome(refused: Outcome, addition: Addition, backend: Backend) -> Outcome:
    """Return the outcome at a backend that refuses what bounds the cost under a cap: another one may be asked."""
    detail = (
        f"it refuses the {ADDED_WORDS[addition]} that the router adds, and {NOT_HERE}; set backends[{backend.name}]"
        ".output_bound_field or .unbounded: hold"
    )
    said = f"{detail}. It answered: {refused.said or refused.detail}"
    return replace(refused, kind="unserved", fault="parameter", detail=detail, said=said, error=None)
