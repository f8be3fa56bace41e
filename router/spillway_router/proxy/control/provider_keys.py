"""`/admin/keys/{key_id}/provider-keys`: an administrator stores, lists and deletes the provider keys of callers.

A stored provider key is sealed (ledger/vault.py) and in no answer. Requests use it with `x-spillway-provider` alone.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from spillway_router.core.money.users import user_id
from spillway_router.core.routing.model import Refusal
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.provider_keys import MOST_SECRET, ProviderKeys
from spillway_router.ledger.tables.key_terms import time_text
from spillway_router.ledger.tables.provider_keys import ProviderPlace
from spillway_router.ledger.vault import NONCE_BYTES, VaultError
from spillway_router.proxy.control.requests import caller_of, form_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import ADMIN_ROLES
from spillway_router.proxy.request.errors import RefusedError

_USER = Query(description="the end user as requests name them; all users of the key by default")


class ProviderSecret(BaseModel):
    """The provider key to store, and the end user as requests name them; without one it is for all of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    secret: Annotated[str, Field(min_length=1, max_length=MOST_SECRET, repr=False)]
    user: Annotated[str, Field(max_length=1000)] = ""


def add_provider_key_routes(api: FastAPI, services: Services) -> None:
    """Add the routes of stored provider keys."""
    keys = services.provider_keys

    @api.get("/admin/keys/{key_id}/provider-keys")
    async def list_provider_keys(key_id: str, request: Request) -> dict[str, Any]:
        caller_of(services, request, ADMIN_ROLES)
        return {"provider_keys": await _shown(keys, key_id)}

    @api.put("/admin/keys/{key_id}/provider-keys/{provider}")
    async def put_provider_key(key_id: str, provider: str, request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        form = await form_of(ProviderSecret, services, request, caller)
        if provider not in services.own_keys.names:
            message = f"The provider is none of {', '.join(services.own_keys.names)}."
            raise RefusedError(Refusal(404, "not_found", message, "provider"))
        place, now_ms = _place(key_id, form.user, provider), int(services.wall() * 1000)
        nonce, by = secrets.token_bytes(NONCE_BYTES), f"key {caller.key_id}"
        try:
            stored = await LEDGER_CALLS.run(keys.put, place, form.secret, nonce, now_ms, by, limit_s=CLIENT_LIMIT_S)
        except VaultError as error:
            raise RefusedError(Refusal(409, "conflict", f"{error}.")) from None
        if not stored:
            raise _unknown(f"No valid key has the id {key_id[:80]}. GET /admin/keys lists the keys.")
        return {"provider_keys": await _shown(keys, key_id)}

    @api.delete("/admin/keys/{key_id}/provider-keys/{provider}")
    async def delete_provider_key(
        key_id: str, provider: str, request: Request, user: Annotated[str, _USER] = ""
    ) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        place, by = _place(key_id, user, provider), f"key {caller.key_id}"
        if not await LEDGER_CALLS.run(keys.remove, place, by, limit_s=CLIENT_LIMIT_S):
            raise _unknown(f"No key of {provider[:64]!r} is stored there.")
        return {"provider_keys": await _shown(keys, key_id)}


async def _shown(keys: ProviderKeys, key_id: str) -> list[dict[str, Any]]:
    records = await LEDGER_CALLS.run(keys.stored, key_id, limit_s=CLIENT_LIMIT_S)
    return [
        {"provider": each.place.provider, "user_id": each.place.user_id, "stored": time_text(each.stored_ms)}
        for each in records
    ]


def _place(key_id: str, user: str, provider: str) -> ProviderPlace:
    return ProviderPlace(key_id, user_id(key_id, user) if user else "", provider)


def _unknown(message: str) -> RefusedError:
    return RefusedError(Refusal(404, "key_not_found", message))
