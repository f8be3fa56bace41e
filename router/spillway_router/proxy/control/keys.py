"""`/admin/keys`: an administrator lists, makes, changes, rotates and revokes API keys over HTTP.

A key's secret is in one answer only, that of its creation or rotation. Every change is an act of the caller's key in
the ledger's second hash chain. This router obeys a change from its next request on, others that share the ledger within
a second (tables/keys.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LastAdminError
from spillway_router.ledger.records import KeyPrivacy, KeyRecord, Role
from spillway_router.ledger.tables.key_terms import duration_ms, shown, spec_fields
from spillway_router.ledger.tables.keys import (
    ID_BYTES,
    MOST_PER_LIMIT,
    SECRET_BYTES,
    KeySpec,
    KeySpecError,
    KeyStore,
    spec_of,
)
from spillway_router.proxy.control.requests import caller_of, form_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import ADMIN_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

_T = TypeVar("_T")
_NO_STORE = {"cache-control": "no-store"}
Name = Annotated[str, Field(min_length=1, max_length=256)]

Term = Annotated[str, Field(max_length=64)]


def _whole(value: object) -> object:
    """Return 5 for 5.0, which is a whole number in JSON, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Limit = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MOST_PER_LIMIT)]


class KeyTerms(BaseModel):
    """What a key may do, as `tables/key_terms.py` describes it; what is left out stays, or is the default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Role | None = None
    tier: Annotated[str, Field(max_length=100)] | None = None
    privacy: KeyPrivacy | None = None
    may_route: bool | None = None
    models: list[Name] | None = None
    backends: list[Name] | None = None
    expires: Term | None = None
    rpm: Limit | None = None
    tpm: Limit | None = None
    concurrent: Limit | None = None
    budget: Term | None = None
    user_budget: Term | None = None
    user_credits: Term | None = None
    user_better: Term | None = None


class NewKeyTerms(KeyTerms):
    """What a new key may do."""

    name: Annotated[str, Field(min_length=1, max_length=100)]


class Rotation(BaseModel):
    """How long the secret before is still accepted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace: str = "24h"


def add_key_routes(api: FastAPI, services: Services, store: KeyStore) -> None:
    """Add `/admin/keys`."""

    def changing(caller: Caller) -> dict[str, Any]:
        return {"now_ms": int(services.wall() * 1000), "by": f"key {caller.key_id}"}

    @api.get("/admin/keys")
    async def list_keys(request: Request) -> dict[str, Any]:
        caller_of(services, request, ADMIN_ROLES)
        records = await _stored(store.list)
        return {"keys": [shown(record) for record in records]}

    @api.get("/admin/keys/{key_id}")
    async def show_key(key_id: str, request: Request) -> dict[str, Any]:
        caller_of(services, request, ADMIN_ROLES)
        return shown(await _record(store, key_id))

    @api.post("/admin/keys", status_code=201)
    async def create_key(request: Request) -> Response:
        caller = caller_of(services, request, ADMIN_ROLES)
        form = await form_of(NewKeyTerms, services, request, caller)
        acting = changing(caller)
        spec = KeySpec(**_spec_fields(form, acting["now_ms"]))
        random = (secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
        new = await _stored(lambda: store.create(spec, *random, **acting))
        return JSONResponse({**shown(new.record), "key": new.token}, 201, _NO_STORE)

    @api.patch("/admin/keys/{key_id}")
    async def set_key(key_id: str, request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        form = await form_of(KeyTerms, services, request, caller)
        acting = changing(caller)
        before = await _record(store, key_id)
        spec = replace(spec_of(before), **_spec_fields(form, acting["now_ms"]))
        if not await _stored(lambda: store.set(key_id, spec, **acting)):
            raise _unknown(key_id)
        return shown(await _record(store, key_id))

    @api.post("/admin/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, request: Request) -> Response:
        caller = caller_of(services, request, ADMIN_ROLES)
        form = await form_of(Rotation, services, request, caller)
        acting, secret = changing(caller), secrets.token_bytes(SECRET_BYTES)
        until_ms = acting["now_ms"] + _grace_ms(form.grace)
        token = await _stored(lambda: store.rotate(key_id, secret, until_ms, acting["by"]))
        if token is None:
            raise _unknown(key_id)
        return JSONResponse({**shown(await _record(store, key_id)), "key": token}, 200, _NO_STORE)

    @api.delete("/admin/keys/{key_id}")
    async def revoke_key(key_id: str, request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        acting = changing(caller)
        if not await _stored(lambda: store.revoke(key_id, **acting)):
            raise _unknown(key_id)
        return shown(await _record(store, key_id))


async def _stored(work: Callable[[], _T]) -> _T:
    """Run a call of the keys' table. Raise RefusedError for what it refuses."""
    try:
        return await LEDGER_CALLS.run(work, limit_s=CLIENT_LIMIT_S)
    except KeySpecError as error:
        raise bad_request(f"{error}.") from None
    except LastAdminError as error:
        raise RefusedError(Refusal(409, "conflict", f"{error}.")) from None


async def _record(store: KeyStore, key_id: str) -> KeyRecord:
    record = await _stored(lambda: store.get(key_id))
    if record is None:
        raise _unknown(key_id)
    return record


def _unknown(key_id: str) -> RefusedError:
    message = f"No valid key has the id {key_id[:80]}. GET /admin/keys lists the keys."
    return RefusedError(Refusal(404, "key_not_found", message))


def _spec_fields(form: KeyTerms, now_ms: int) -> dict[str, Any]:
    try:
        return spec_fields(form.model_dump(exclude_none=True), now_ms)
    except KeySpecError as error:
        raise bad_request(f"{error}.") from None


def _grace_ms(text: str) -> int:
    try:
        return duration_ms(text, "grace")
    except KeySpecError as error:
        raise bad_request(f"{error}.", "grace") from None
