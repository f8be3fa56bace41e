"""Stored provider keys: sealed in the ledger, used by `x-spillway-provider` alone, and shown to nobody."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, error_of, local, routing, settings

SECRET_KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(32)).decode()
GROQ = {"x_spillway_provider": "groq"}
FIELDS = {"model": "openai/gpt-oss-20b"}


@asynccontextmanager
async def running(
    folder: Path | None = None, secret_key: str = SECRET_KEY, more: str = ""
) -> AsyncIterator[tuple[FaultUpstream, Router]]:
    catalogue = load_catalogue()
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(WHOLE) as groq:
        providers = {**catalogue, "groq": replace(catalogue["groq"], base_url=groq.url)}
        environment = {"SPILLWAY_SECRET_KEY": secret_key}
        text = settings(local(engine), more=more)
        async with routing(text, folder, environment=environment, catalogue=providers) as router:
            yield groq, router


async def store(router: Router, name: str, body: dict[str, Any], provider: str = "groq") -> httpx.Response:
    key_id = next(key.id for key in router.ledger.keys.all() if key.name == name)
    path = f"/admin/keys/{key_id}/provider-keys/{provider}"
    return await router.client.put(path, json=body, headers=router.admin)


async def test_a_stored_key_calls_its_provider_and_its_owner_only(tmp_path: Path) -> None:
    async with running(tmp_path) as (groq, router):
        ann, bob, admin = bearer(router, "inference", "ann"), bearer(router, "inference", "bob"), router.admin
        assert (await store(router, "ann", {"secret": "gsk-all-0123456789"})).status_code == 200
        shown = await store(router, "ann", {"secret": "gsk-eve-0123456789", "user": "eve"})
        assert "0123456789" not in shown.text
        assert [row["provider"] for row in shown.json()["provider_keys"]] == ["groq", "groq"]
        for user, sent in (("dan", "gsk-all-0123456789"), ("eve", "gsk-eve-0123456789")):
            reply = await router.chat({**FIELDS, "user": user}, **GROQ, **ann)
            assert (reply.status_code, reply.headers["x-spillway-decision"]) == (200, "byok"), reply.text
            assert groq.seen.pop().headers["authorization"] == f"Bearer {sent}"
        own = await router.chat(FIELDS, **GROQ, x_spillway_provider_key="gsk-own", **ann)
        assert (own.status_code, groq.seen.pop().headers["authorization"]) == (200, "Bearer gsk-own")
        for other in (bob, admin):
            refused = await router.chat(FIELDS, **GROQ, **other)
            assert (refused.status_code, error_of(refused)["param"]) == (400, "x-spillway-provider")
        private = await router.chat(FIELDS, x_spillway_privacy="local-only", **GROQ, **ann)
        assert private.status_code != 200
        assert not groq.seen
        stored = "".join(str(path.read_bytes()) for path in tmp_path.glob("ledger.db*"))
        acts = [each.act for each in router.ledger.acts.all() if each.act.kind == "provider_key.set"]
        assert [act.by.startswith("key ") for act in acts] == [True, True]
        assert not any("0123456789" in text for text in (stored, str(acts)))


async def test_a_deleted_key_is_used_no_more_and_nobody_but_an_administrator_deletes_it() -> None:
    async with running() as (groq, router):
        ann = bearer(router, "inference", "ann")
        await store(router, "ann", {"secret": "gsk-1"})
        key_id = next(key.id for key in router.ledger.keys.all() if key.name == "ann")
        path = f"/admin/keys/{key_id}/provider-keys/groq"
        assert (await router.client.delete(path, headers=ann)).status_code == 403
        assert (await router.chat(FIELDS, **GROQ, **ann)).status_code == 200
        assert (await router.client.delete(path, headers=router.admin)).json() == {"provider_keys": []}
        assert (await router.client.delete(path, headers=router.admin)).status_code == 404
        assert (await router.chat(FIELDS, **GROQ, **ann)).status_code == 400
        assert len(groq.seen) == 1


@pytest.mark.parametrize(
    ("body", "provider", "status"),
    [
        ({"secret": "two\nlines"}, "groq", 409),
        ({"secret": ""}, "groq", 400),
        ({}, "groq", 400),
        ({"secret": "x", "key": "y"}, "groq", 400),
        ({"secret": "x"}, "nobody", 404),
        ({"secret": "x"}, "vllm", 404),
    ],
)
async def test_what_is_no_provider_key_is_refused_without_its_text(
    body: dict[str, str], provider: str, status: int
) -> None:
    async with running() as (_, router):
        bearer(router, "inference", "ann")
        refused = await store(router, "ann", body, provider)
        assert refused.status_code == status, refused.text
        assert "lines" not in refused.text


async def test_without_the_secret_key_that_sealed_it_nothing_is_sent(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, router):
        ann = bearer(router, "inference", "ann")
        await store(router, "ann", {"secret": "gsk-1"})
    async with running(tmp_path, OTHER_KEY) as (groq, router):
        refused = await router.chat(FIELDS, **GROQ, **ann)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "no_backend")
        assert "secret key" in error_of(refused)["message"]
        assert not groq.seen
    async with running(tmp_path, f"{OTHER_KEY},{SECRET_KEY}") as (groq, router):
        assert (await router.chat(FIELDS, **GROQ, **ann)).status_code == 200
        assert router.runtime.provider_keys.seal_again(bytes) == 1
    async with running(tmp_path, OTHER_KEY) as (groq, router):
        assert (await router.chat(FIELDS, **GROQ, **ann)).status_code == 200
        assert groq.seen[0].headers["authorization"] == "Bearer gsk-1"
    async with running(tmp_path, "") as (_, router):
        assert (await store(router, "ann", {"secret": "gsk-2"})).status_code == 409
