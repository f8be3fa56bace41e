"""A caller's own provider and key ("bring your own key"): a route for one request, and the key removed from errors."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from spillway_router.core.routing.model import Outcome, Refusal, RequestFacts
from spillway_router.providers.interface import ProviderError
from spillway_router.proxy.client.replies import naming_headers
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.exchange.byok_pools import OwnKeys


def byok_route(
    keys: OwnKeys, headers: Mapping[str, str], facts: RequestFacts, aliases: Container[str]
) -> BackendRoute | Refusal:
    """The route that `x-spillway-provider` and `x-spillway-provider-key` ask for; a refusal says what to change."""
    if facts.model in aliases:
        message = "With a key of your own, `model` must be the provider's name of a model, not an alias."
        return Refusal(400, "invalid_request", message, "model")
    name = headers["x-spillway-provider"].strip().lower()
    try:
        reach = keys.reach(name, facts.model, headers["x-spillway-provider-key"].strip())
    except ProviderError as error:
        return Refusal(400, "invalid_request", f"x-spillway-provider: {error}.", "x-spillway-provider")
    return BackendRoute(reach.backend, reach.provider, reach.pool, naming_headers(reach.backend), reach.credentials)


def redacted(outcome: Outcome, route: BackendRoute) -> Outcome:
    """The outcome without the caller's key: providers repeat keys in their errors, and outcomes reach logs."""
    if not route.credentials:
        return outcome
    key = route.credentials.decode("latin-1").partition(": ")[2].strip().removeprefix("Bearer ")
    return replace(outcome, detail=outcome.detail.replace(key, "***"))
