"""Requests of /v1/responses that follow an earlier response: they go to the account that stores it, for its own key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spillway_router.core.routing.model import PrivacyVerdict, Refusal, RequestFacts
from spillway_router.ledger.errors import LedgerError
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import ExchangeState


async def with_maker(services: Services, facts: RequestFacts, body: Mapping[str, Any]) -> RequestFacts | Refusal:
    """Return the facts with the backends that have the earlier response; a 404 if it is another key's.

    What follows a private response is private. A response that no router knows (any more) says nothing: the request
    goes its usual way.
    """
    previous = body.get("previous_response_id")
    if not isinstance(previous, str):
        return facts
    try:
        stored = await services.responses.get(previous)
    except LedgerError as error:
        message = f"The ledger can't say now who made {previous!r}: {error}"
        return Refusal(503, "ledger_unavailable", message, "previous_response_id", retry_after_s=5.0)
    if stored is None:
        return facts
    if stored.key_id != facts.caller.key_id:
        message = f"Unknown response {previous!r}. Send the whole input instead of previous_response_id."
        return Refusal(404, "response_not_found", message, "previous_response_id")
    if stored.private and facts.privacy.may_leave:
        facts = replace(facts, privacy=PrivacyVerdict(False, ("response",)))
    routes = services.config().backend_routes
    maker = routes.get(stored.backend)
    if maker is None:
        return facts
    account = maker.pool.target
    return replace(facts, stored_at=frozenset(n for n, route in routes.items() if route.pool.target == account))


async def remember_response(state: ExchangeState) -> None:
    """Remember which backend made the response of this request, if its provider stores it."""
    response_id, state.response_id = state.response_id, ""
    if not response_id or state.byok_route is not None or state.body.get("store") is False:
        return
    facts = state.facts
    private = not facts.privacy.may_leave or facts.caller.local_only
    await state.services.responses.add(response_id, facts.caller.key_id, state.backend, private=private)
