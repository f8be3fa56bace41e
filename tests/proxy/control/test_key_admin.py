"""`/admin/keys`: an administrator manages keys over HTTP, each change binds at once and is an act with who did it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeyStore
from spillway_router.testing.harness import Router, error_of, pair

KEYED = "keys: {required: true}\n"
TERMS = {
    "role": "inference",
    "tier": "paid",
    "privacy": "local-only",
    "may_route": True,
    "models": ["auto"],
    "backends": ["local"],
    "expires": "2099-01-31T00:00:00Z",
    "rpm": 30,
    "tpm": 100_000,
    "concurrent": 4,
    "user_budget": "0.50/day",
    "user_credits": "1000/month",
    "user_better": "20/day",
    "budget": "0.500000/hour",
}


async def create(router: Router, **terms: Any) -> dict[str, Any]:
    reply = await router.post({"name": "ann", **terms}, "/admin/keys", **router.admin)
    assert reply.status_code == 201, reply.text
    created: dict[str, Any] = reply.json()
    return created


async def patch(router: Router, key_id: str, terms: dict[str, Any]) -> httpx.Response:
    return await router.client.patch(f"/admin/keys/{key_id}", json=terms, headers=router.admin)


async def delete(router: Router, key_id: str, headers: dict[str, str]) -> httpx.Response:
    return await router.client.delete(f"/admin/keys/{key_id}", headers=headers)


def headers_of(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_keys_life_over_http(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path, more=KEYED) as (_, _, router):
        created = await create(router, **TERMS)
        key_id, token = created["id"], created.pop("key")
        assert {term: created[term] for term in TERMS} == TERMS
        assert (await router.chat(**headers_of(token))).status_code == 200
        assert (await get(router, f"/admin/keys/{key_id}", router.admin)).json() == created
        # What is shown can be sent again, and changes nothing.
        assert (await patch(router, key_id, TERMS)).json() == created
        assert (await patch(router, key_id, {"role": "viewer"})).json() == {**created, "role": "viewer"}
        assert (await router.chat(**headers_of(token))).status_code == 403
        freed = {"role": "inference", "models": [], "expires": "never", "rpm": 0, "budget": "none"}
        assert (await patch(router, key_id, freed)).json()["budget"] is None
        rotated = (await router.post({"grace": "0m"}, f"/admin/keys/{key_id}/rotate", **router.admin)).json()
        assert (await router.chat(**headers_of(token))).status_code == 401
        assert (await router.chat(**headers_of(rotated["key"]))).status_code == 200
        assert (await delete(router, key_id, router.admin)).json()["revoked"]
        assert (await router.chat(**headers_of(rotated["key"]))).status_code == 401
        assert (await delete(router, key_id, router.admin)).status_code == 404
        listed = (await get(router, "/admin/keys", router.admin)).json()["keys"]
        assert [key["id"] for key in listed if key["name"] == "ann"] == [key_id]
        admin_id = next(key["id"] for key in listed if key["role"] == "admin")
        acts = [each.act for each in router.ledger.acts.all() if each.act.subject == key_id]
        assert [act.kind.partition(".")[2] for act in acts] == ["create", "set", "set", "rotate", "revoke"]
        assert {act.by for act in acts} == {f"key {admin_id}"}
        stored = str(listed) + str(acts) + "".join(str(path.read_bytes()) for path in tmp_path.glob("ledger.db*"))
        assert not any(secret.rpartition("-")[2] in stored for secret in (token, rotated["key"]))


async def test_a_secret_is_in_the_one_answer_that_no_cache_keeps() -> None:
    async with pair(WHOLE, WHOLE, more=KEYED) as (_, _, router):
        reply = await router.post({"name": "ann"}, "/admin/keys", **router.admin)
        assert reply.headers["cache-control"] == "no-store"
        rotated = await router.post({}, f"/admin/keys/{reply.json()['id']}/rotate", **router.admin)
        assert rotated.headers["cache-control"] == "no-store"
        assert (await router.chat(**headers_of(reply.json()["key"]))).status_code == 200  # the grace period
        assert rotated.json()["key"] not in (await get(router, "/admin/keys", router.admin)).text


@pytest.mark.parametrize("role", ["inference", "viewer"])
async def test_only_an_administrator_may_see_or_change_keys(role: Any) -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        key = bearer(router, role)
        own_id = next(each.id for each in router.ledger.keys.all())
        for reply in (
            await get(router, "/admin/keys", key),
            await get(router, f"/admin/keys/{own_id}", key),
            await router.post({"name": "eve", "role": "admin"}, "/admin/keys", **key),
            await router.client.patch(f"/admin/keys/{own_id}", json={"role": "admin"}, headers=key),
            await router.post({}, f"/admin/keys/{own_id}/rotate", **key),
            await delete(router, own_id, key),
        ):
            assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied")
        assert [each.role for each in router.ledger.keys.all()] == [role]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"role": "root"}, "role"),
        ({"rpm": -1}, "rpm"),
        ({"rpm": "30"}, "rpm"),
        ({"models": "auto"}, "models"),
        ({"models": ["a,b"]}, None),
        ({"budget": "5"}, None),
        ({"budget": "5/week"}, None),
        ({"user_budget": "1"}, None),
        ({"user_credits": "1.5/day"}, None),
        ({"user_better": "-1/day"}, None),
        ({"budget": "1e30/day"}, None),
        ({"expires": "soon"}, None),
        ({"expires": "2027-01-31T00:00:00"}, None),
        ({"expires": "999999w"}, None),
        ({"expires": "9999-12-31T23:59:59-23:59"}, None),
        ({"expires": "0001-01-01T00:00:00+23:59"}, None),
        ({"user_credits": "1" * 65 + "/day"}, "user_credits"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_terms_that_make_no_sense_are_refused(wrong: dict[str, Any], param: str | None) -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        created = await create(router)
        for reply in (
            await router.post({"name": "eve", **wrong}, "/admin/keys", **router.admin),
            await patch(router, created["id"], wrong),
        ):
            assert (reply.status_code, error_of(reply)["code"], error_of(reply)["param"]) == (
                400,
                "invalid_request",
                param,
            )
        assert {each.name for each in router.ledger.keys.all()} == {"ann", "admin"}


async def test_the_last_administrator_can_not_be_locked_out_over_http() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        await get(router, "/admin/keys", router.admin)
        (admin,) = router.ledger.keys.all()
        for reply in (
            await delete(router, admin.id, router.admin),
            await patch(router, admin.id, {"role": "viewer"}),
            await patch(router, admin.id, {"expires": "1h"}),
        ):
            assert (reply.status_code, error_of(reply)["code"]) == (409, "conflict")
        second = await create(router, role="admin")
        assert (await delete(router, admin.id, headers_of(second["key"]))).status_code == 200


async def test_another_router_of_the_ledger_follows_within_a_second(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path, more=KEYED) as (_, _, router):
        created = await create(router)
        other = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        try:
            keys = KeyStore(other.keys)
            assert keys.verify(created["key"], 100.0) is not None
            await patch(router, created["id"], {"models": ["auto"]})
            await delete(router, created["id"], router.admin)
            assert keys.verify(created["key"], 101.0) is None
        finally:
            other.close()
