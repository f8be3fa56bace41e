"""What a key may use binds on every way to a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.testing import FaultUpstream, ManualClock
from spillway_router.testing.harness import MESSAGES, Router, cloud, error_of, local, routing, settings

MORE = """
aliases: {auto: {chain: [local, cloud]}, out: {chain: [cloud, local]}, other: {chain: [second]}}
confidence: {escalate_to: [second]}
retention: {minutes: 5}
"""
WAYS_TO_CHOOSE: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"model": "cloud/cloud-m"}, {}),
    ({"model": "cloud"}, {}),
    ({"model": "cloud/"}, {}),
    ({"model": "cloud-m"}, {}),
    ({"model": "cloud-m:fastest"}, {}),
    ({"model": "cloud/cloud-m:cheapest"}, {}),
    ({"models": ["cloud/cloud-m"]}, {}),
    ({"model": "none", "models": ["cloud-m"]}, {}),
    ({"provider": {"only": ["cloud"]}}, {}),
    ({"provider": {"only": ["GENERIC"]}}, {}),
    ({"provider": {"ignore": ["local"]}}, {}),
    ({"provider": {"ignore": ["vllm"]}}, {}),
    ({"provider": {"order": ["cloud"]}}, {}),
    ({"provider": {"sort": "latency"}}, {}),
    ({"provider": {"sort": "price"}}, {}),
    ({"model": "auto:fastest"}, {}),
    ({}, {"x_spillway_slo_ttft_ms": "1"}),
    ({}, {"x_spillway_min_confidence": "1"}),
    ({}, {"x_spillway_route": "cloud"}),
]


@asynccontextmanager
async def running(
    more: str = "", clock: ManualClock | None = None
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, FaultUpstream, Router]]:
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as one,
        FaultUpstream(WHOLE) as two,
        routing(settings(local(engine), cloud(one), cloud(two, "second"), more=MORE + more), clock=clock) as router,
    ):
        yield engine, one, two, router


@pytest.mark.parametrize("way", WAYS_TO_CHOOSE, ids=str)
async def test_a_key_without_the_permit_can_not_choose_a_cloud(way: tuple[dict[str, Any], dict[str, str]]) -> None:
    fields, hints = way
    async with running() as (engine, one, two, router):
        key = bearer(router, "inference")
        permitted = bearer(router, "inference", may_route=True)
        reply = await router.chat(fields, **hints, **key)
        assert reply.status_code in (200, 400, 403), reply.text
        assert not one.seen
        assert not two.seen
        assert (reply.status_code == 200) == bool(engine.seen)
        assert (await router.chat(fields, **hints, **permitted)).status_code == 200


async def test_a_key_without_the_permit_asks_for_aliases_and_local_models() -> None:
    async with running() as (_engine, _one, _two, router):
        key = bearer(router, "inference")
        for model, backend in (("auto", "local"), ("local/m", "local"), ("m", "local"), ("out", "cloud")):
            reply = await router.chat({"model": model}, **key)
            assert (reply.status_code, reply.headers.get("x-spillway-backend")) == (200, backend), model
        listed = (await get(router, "/v1/models", key)).json()["data"]
        assert [model["id"] for model in listed] == ["auto", "out", "other", "local/m"]
        refused = await router.chat({"model": "cloud-m"}, **key)
        assert (refused.status_code, error_of(refused)["code"]) == (403, "permission_denied")
        assert "--may-route" in error_of(refused)["message"]
        looser = await router.chat({}, x_spillway_slo_ttft_ms="60000", **key)
        assert looser.headers["x-spillway-backend"] == "local"


async def test_a_document_is_read_by_what_the_key_may_use() -> None:
    async with running() as (engine, one, two, router):
        key = bearer(router, "inference")
        alone = bearer(router, "inference", backends=("local",))
        for fields in ({"model": "cloud/cloud-m"}, {"min_confidence": 1.0, "model": "cloud-m"}):
            await router.post({"text": "AL 23.4", **fields}, "/v1/documents/extract", **key)
        assert not one.seen
        two.seen.clear()  # an unsure document goes where the policy sends it
        await router.post({"text": "AL 23.4", "min_confidence": 1.0}, "/v1/documents/extract", **alone)
        assert engine.seen
        assert not one.seen
        assert not two.seen


async def test_a_list_of_backends_binds_on_every_way() -> None:
    async with running() as (engine, one, two, router):
        key = bearer(router, "inference", may_route=True, backends=("local",))
        for fields, hints in [*WAYS_TO_CHOOSE, ({"model": "out"}, {}), ({"model": "other"}, {})]:
            await router.chat(fields, **hints, **key)
        first = await router.chat({}, **key)
        assert first.headers["x-spillway-backend"] == "local"
        better = await router.chat({}, x_spillway_better_than=first.headers["x-request-id"], **key)
        assert better.status_code != 200
        retried = await router.post(
            {"request_id": first.headers["x-request-id"], "rating": 1, "retry": True}, "/v1/feedback", **key
        )
        assert retried.status_code != 200
        engine.answer = engine.answer and type(engine.answer).json({"error": "no"}, 500)
        assert (await router.chat({}, **key)).status_code != 200  # no fallback to a cloud
        own = {"x_spillway_provider": "groq", "x_spillway_provider_key": "k"}
        assert (await router.chat({"model": "x"}, **own, **key)).status_code == 403
        assert not one.seen
        assert not two.seen
        listed = (await get(router, "/v1/models", key)).json()["data"]
        assert [model["id"] for model in listed] == ["auto", "out", "local/m"]


async def test_a_list_of_models_binds_on_every_way() -> None:
    async with running() as (_engine, one, _two, router):
        key = bearer(router, "inference", may_route=True, models=("auto", "second-m"))
        allowed: list[dict[str, Any]] = [
            {},
            {"model": "auto:fastest"},
            {"model": "second-m"},
            {"model": "second"},
            {"model": "second/second-m"},
            {"model": "auto", "models": ["second-m"]},
            {"model": "other"},  # an alias of nothing but a listed model
        ]
        for fields in allowed:
            assert (await router.chat(fields, **key)).status_code == 200, fields
        one.seen.clear()
        refused: list[dict[str, Any]] = [
            {"model": "cloud-m"},
            {"model": "cloud/cloud-m"},
            {"model": "cloud"},
            {"model": "m"},
            {"model": "local/m"},
            {"model": "out"},
            {"model": "auto", "models": ["cloud-m"]},
            {"model": "cloud-m:cheapest"},
        ]
        for fields in refused:
            reply = await router.chat(fields, **key)
            assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied"), fields
        assert not one.seen
        listed = (await get(router, "/v1/models", key)).json()["data"]
        assert [model["id"] for model in listed] == ["auto", "other", "second/second-m"]
        counted = await router.post({"model": "cloud-m", "messages": MESSAGES}, "/v1/messages/count_tokens", **key)
        assert counted.status_code == 403


async def test_a_model_that_is_listed_needs_no_other_permit() -> None:
    async with running() as (_, one, _, router):
        key = bearer(router, "inference", models=("cloud-m",))
        assert (await router.chat({"model": "cloud-m"}, **key)).status_code == 200
        assert (await router.chat({"model": "auto"}, **key)).headers["x-spillway-backend"] == "cloud"
        assert len(one.seen) == 2


async def test_where_every_backend_is_a_cloud_models_are_asked_for_by_name() -> None:
    async with FaultUpstream(WHOLE) as one, routing(settings(cloud(one))) as router:
        key = bearer(router, "inference")
        assert (await router.chat({"model": "cloud-m"}, **key)).status_code == 200
        assert (await router.chat({"provider": {"only": ["cloud"]}}, **key)).status_code == 200


async def test_a_key_has_a_rate_of_its_own() -> None:
    clock = ManualClock()
    async with running(clock=clock) as (engine, _, _, router):
        key = bearer(router, "inference", per_minute=2)
        other = bearer(router, "inference")
        assert [(await router.chat({}, **key)).status_code for _ in range(2)] == [200, 200]
        refused = await router.chat({}, **key)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) in range(1, 61)
        assert (await get(router, "/v1/models", key)).status_code == 429
        assert (await router.chat({}, **other)).status_code == 200
        clock.advance(30.0)
        assert [(await router.chat({}, **key)).status_code for _ in range(2)] == [200, 429]
        assert len(engine.seen) == 4


async def test_a_key_has_a_budget_of_its_own() -> None:
    async with running() as (_, _one, _, router):
        key = bearer(router, "inference", budget_nano=1_000_000, budget_period="day")  # 0.001 USD
        other = bearer(router, "inference")
        replies = [await router.chat({"model": "out", "max_tokens": 200}, **key) for _ in range(400)]
        paid = [reply for reply in replies if reply.headers["x-spillway-backend"] == "cloud"]
        assert 0 < len(paid) < 400  # then its requests stay local
        spent = sum(float(reply.headers["x-spillway-cost-usd"]) for reply in paid)
        assert spent <= 0.001
        assert (await router.chat({"model": "out"}, **other)).headers["x-spillway-backend"] == "cloud"
        only = await router.chat({"model": "other", "max_tokens": 500}, **key)
        assert (only.status_code, error_of(only)["code"]) == (402, "budget_exceeded")
