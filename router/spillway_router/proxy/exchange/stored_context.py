"""Requests of /v1/responses that follow an earlier response: they go to the account that stores it, for its own key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spillway_router.core.routing.model import Refusal, RequestFacts
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.memory.stored_responses import StoredResponse


def with_maker(services: Services, facts: RequestFacts, body: Mapping[str, Any]) -> RequestFacts | Refusal:
    """Return the facts with the backends that have the earlier response; a 404 if it is another key's.

    A response that the router doesn't know (any more) says nothing: the request goes its usual way.
    """
    previous = body.get("previous_response_id")
    if not isinstance(previous, str):
        return facts
    stored = services.memory.responses.get(previous, services.clock())
    if stored is None:
        return facts
    if stored.key_id != facts.caller.key_id:
        message = f"Unknown response {previous!r}. Send the whole input instead of previous_response_id."
        return Refusal(404, "response_not_found", message, "previous_response_id")
    routes = services.config().backend_routes
    maker = routes.get(stored.backend)
    if maker is None:
        return facts
    account = maker.pool.target
    return replace(facts, stored_at=frozenset(n for n, route in routes.items() if route.pool.target == account))


def remember_response(state: ExchangeState) -> None:
    """Remember which backend made a response that its provider stores."""
    if not state.response_id or state.byok_route is not None or state.body.get("store") is False:
        return
    services = state.services
    stored = StoredResponse(state.facts.caller.key_id, state.backend, services.clock())
    services.memory.responses.add(state.response_id, stored)
