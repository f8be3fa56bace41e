"""A caller's own provider and key ("bring your own key"): a route for one request, and the key removed from errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spillway_router.core.money.users import anonymous_id
from spillway_router.core.redaction import Redactor
from spillway_router.core.routing.model import Outcome, Refusal, RequestFacts
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.provider_keys import ProviderPlace
from spillway_router.ledger.vault import VaultError
from spillway_router.providers.interface import ProviderError
from spillway_router.proxy.client.replies import naming_headers
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute, Silence
from spillway_router.proxy.exchange.services import Services


def byok_route(
    services: Services, headers: Mapping[str, str], facts: RequestFacts, config: ActiveConfig
) -> BackendRoute | Refusal:
    """The route that `x-spillway-provider` asks for, with the key of `x-spillway-provider-key` or, without this header,
    with the one that is stored for the caller; a refusal says what to change."""
    if facts.model in config.policy.aliases:
        message = "With a key of your own, `model` must be the provider's name of a model, not an alias."
        return Refusal(400, "invalid_request", message, "model")
    name = headers["x-spillway-provider"].strip().lower()
    sent = headers.get("x-spillway-provider-key")
    key = _stored_key(services, facts, name) if sent is None else sent.strip()
    if isinstance(key, Refusal):
        return key
    try:
        reach = services.own_keys.reach(name, facts.model, key)
    except ProviderError as error:
        return Refusal(400, "invalid_request", f"x-spillway-provider: {error}.", "x-spillway-provider")
    return BackendRoute(
        backend=reach.backend,
        provider=reach.provider,
        pool=reach.pool,
        naming_headers=naming_headers(reach.backend),
        credentials=reach.credentials,
        redactor=config.redactor,
        silence=Silence() if config.limits.stall_is_set else reach.silence,
    )


def _stored_key(services: Services, facts: RequestFacts, provider: str) -> str | Refusal:
    """Return the provider key that is stored for the end user or for the caller's API key."""
    place = ProviderPlace(facts.caller.key_id, facts.user_id or anonymous_id(facts.caller.key_id), provider)
    try:
        key = services.provider_keys.secret(place, services.clock())
    except VaultError as sealed:
        message = f"Stored provider keys can't be opened: {sealed}."
        return Refusal(503, "no_backend", message, "x-spillway-provider")
    except LedgerError as away:
        return Refusal(503, "ledger_unavailable", f"Stored provider keys can't be read: {away}", retry_after_s=5)
    if key is None:
        message = (
            f"No key of {provider[:64]!r} is stored for this API key. Send x-spillway-provider-key, or have one stored "
            "with `spillway keys provider-key set`."
        )
        return Refusal(400, "invalid_request", message, "x-spillway-provider")
    return key


def redacted(outcome: Outcome, route: BackendRoute) -> Outcome:
    """The outcome without the keys of the configuration, and without the key that the call was made with: providers
    repeat keys in their errors, and outcomes reach clients."""
    if not outcome.said and outcome.error is None:
        return outcome
    redactor, error = redactor_of(route), outcome.error
    return replace(outcome, said=redactor.cut(outcome.said), error=None if error is None else redactor.cut_value(error))


def redactor_of(route: BackendRoute) -> Redactor:
    """Return what cuts out the keys of the configuration and the caller's own."""
    if not route.credentials:
        return route.redactor
    own = route.credentials.decode("latin-1").partition(": ")[2].strip().removeprefix("Bearer ")
    return route.redactor.with_secret(own)
