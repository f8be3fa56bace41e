"""`/v1/rentals`, `/admin/rentals`, `/v1/prices`: rentals are kept over HTTP, each change is an act with who did it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.testing.harness import Router, error_of, pair

START = {"gpu": "L4", "count": 2, "price": "0.50", "machine": "pod-1", "source": "runpod", "at": "2026-01-01T00:00Z"}


async def patch(router: Router, rental_id: str, values: dict[str, Any], **headers: str) -> httpx.Response:
    return await router.client.patch(f"/admin/rentals/{rental_id}", json=values, headers=headers)


async def test_a_rentals_life_over_http(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, folder=tmp_path) as (_, _, router):
        viewer = bearer(router, "viewer")
        started = await router.post(START, "/admin/rentals", **router.admin)
        assert started.status_code == 201, started.text
        rental_id = started.json()["id"]
        again = await router.post(START, "/admin/rentals", **router.admin)
        assert (again.status_code, error_of(again)["param"]) == (400, "another")
        stopped = await router.post({"at": "2026-01-02T00:00Z"}, f"/admin/rentals/{rental_id}/stop", **router.admin)
        assert stopped.json()["stopped"] == [{"id": rental_id, "stopped": "2026-01-02 00:00:00 UTC"}]
        assert stopped.json()["cost_usd"] == "24.000000"
        right = {"from": "2026-01-01T12:00Z", "count": 1}
        planned = (await patch(router, rental_id, {**right, "dry_run": True}, **router.admin)).json()
        corrected = (await patch(router, rental_id, right, **router.admin)).json()
        assert planned["cost_usd"] == corrected["cost_usd"] == "6.000000"
        assert (planned["right_id"], corrected["id"]) == (rental_id, rental_id)
        rows = (await get(router, "/v1/rentals", viewer)).json()["rentals"]
        assert {row["id"]: (row["cost_usd"], row["count"]) for row in rows if row["machine"] == "pod-1"} == {
            rental_id: ("0.000000", 2),
            corrected["right_id"]: ("6.000000", 1),
        }
        ids = {rental_id, corrected["right_id"]}
        about = [each.act for each in router.ledger.acts.all() if each.act.subject in ids]
        admin_id = next(key.id for key in router.ledger.keys.all() if key.role == "admin")
        assert [act.kind for act in about] == ["rental.start", "rental.correct", "rental.start", "rental.correct"]
        assert {act.by for act in about} == {f"key {admin_id}"}


async def test_every_running_rental_stops_at_once() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        for name in ("pod-1", "pod-2"):
            await router.post({**START, "machine": name}, "/admin/rentals", **router.admin)
        stopped = await router.post({}, "/admin/rentals/all/stop", **router.admin)
        assert len(stopped.json()["stopped"]) == 2
        assert (await router.post({}, "/admin/rentals/all/stop", **router.admin)).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"price": "much"}, "price"),
        ({"price": "1_0"}, "price"),
        ({"price": "0"}, "price"),
        ({"price": "50000.01"}, "price"),
        ({"at": "2002-11-28T00:00Z"}, "at"),
        ({"price": "NaN"}, "price"),
        ({"price_per_month": "1e9"}, "price"),
        ({"price": "", "price_per_month": "1e9"}, "price_per_month"),
        ({"count": 0}, "count"),
        ({"count": "2"}, "count"),
        ({"kind": "free"}, "kind"),
        ({"source": "router"}, "source"),
        ({"at": "soon"}, "at"),
        ({"at": "2999-01-01T00:00Z"}, "at"),
        ({"at": "0001-01-01T00:00+23:59"}, "at"),
        ({"at": "1969-01-01T00:00Z"}, "at"),
        ({"name": "x"}, "name"),
    ],
    ids=str,
)
async def test_rentals_that_make_no_sense_are_refused(wrong: dict[str, Any], param: str) -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        reply = await router.post({**START, **wrong}, "/admin/rentals", **router.admin)
        assert (reply.status_code, error_of(reply)["code"], error_of(reply)["param"]) == (400, "invalid_request", param)
        assert [row for row in router.ledger.rentals.between(0, 10**15) if row.source != "router"] == []


async def test_corrections_that_make_no_sense_are_refused() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        rental_id = (await router.post(START, "/admin/rentals", **router.admin)).json()["id"]
        for wrong in ({}, {"dry_run": True}, {"until": "2025-01-01T00:00Z"}, {"until": "soon"}, {"price": "-1"}):
            reply = await patch(router, rental_id, wrong, **router.admin)
            assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_request"), wrong
        unknown = await patch(router, "rent_0", {"void": True}, **router.admin)
        assert (unknown.status_code, error_of(unknown)["code"]) == (404, "rental_not_found")


async def test_prices_are_those_of_a_day() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        viewer = bearer(router, "viewer")
        listing = (await get(router, "/v1/prices?provider=groq&on=2026-11-20", viewer)).json()
        assert listing["day"] == "2026-11-20"
        assert {row["provider"] for row in listing["models"]} == {"groq"}
        assert listing["models"][0]["unit"] == "USD per million tokens"
        for query, param in (("provider=nobody", "provider"), ("on=friday", "on"), ("day=2026-11-20", "day")):
            reply = await get(router, f"/v1/prices?{query}", viewer)
            assert (reply.status_code, error_of(reply)["param"]) == (400, param)
