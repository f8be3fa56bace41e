"""Shadows over real sockets: asked after the client has its answer, paid from a budget of their own, never shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.answers import answer, said

from spillway_router.core.routing.experiments import title_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import Balance
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.proxy.control.request_list import line_of_entries
from spillway_router.proxy.shadows.shadows import WORKERS
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings

ALIAS = "aliases: {auto: {chain: [local]}}\n"
ASKED = (
    "experiments: [{name: e, by: request, arms: [{name: s, share: 1, shadow: asked, budget_usd_per_day: '1',"
    " chain: [cloud]}]}]\n"
)
DRY = ASKED.replace("shadow: asked, budget_usd_per_day: '1'", "shadow: dry")
SCOPE = "user:shadow:e/s"
GREEN, SAME, OTHER = answer("The bus is green."), answer("The bus is green"), answer("No idea at all")


def stream(text: str) -> Answer:
    """A streamed chat completion in two pieces."""
    half = len(text) // 2
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]}
        for part in (text[:half], text[half:])
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    events = [*[json.dumps(chunk).encode() for chunk in chunks], b"[DONE]"]
    return Answer.stream(b"".join(b"data: %b\n\n" % event for event in events))


async def shadow_row(router: Router, reply: httpx.Response) -> Entry:
    """The row of the request's shadow, once it is written."""

    def rows() -> list[Entry]:
        return [row for row in router.rows(reply) if row.decision == "shadow"]

    await router.until(lambda: bool(rows()))
    (row,) = rows()
    return row


def day_of_shadow(router: Router) -> Balance:
    """What the shadow has spent and holds today."""
    (balance,) = [balance for key, balance in router.ledger.balances().items() if key[:2] == (SCOPE, "day")]
    return balance


def results(metrics: str) -> dict[str, float]:
    """The shadows counted by Prometheus, by arm and result."""
    lines = [line for line in metrics.splitlines() if line.startswith("spillway_shadows_total{")]
    return {line.split("}")[0].removeprefix("spillway_shadows_total{"): float(line.split()[-1]) for line in lines}


@pytest.mark.parametrize(("second", "finding"), [(SAME, "agrees"), (OTHER, "differs")])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_shadow_is_asked_and_compared_and_the_client_never_sees_it(
    second: Answer, finding: str, *, streamed: bool, tmp_path: Path
) -> None:
    first = stream("The bus is green.") if streamed else GREEN
    async with (
        FaultUpstream(first) as engine,
        FaultUpstream(second) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED), tmp_path) as router,
    ):
        reply = await router.chat({"stream": streamed})
        assert (reply.headers["x-spillway-backend"], reply.headers.get("x-spillway-reason", "")) == ("local", "")
        assert "No idea" not in reply.text
        row = await shadow_row(router, reply)
        assert (row.backend, row.status, row.reasons) == ("cloud", "discarded", f"shadow,{finding}")
        assert (row.attempt_no, row.amount_nano > 0) == (2, True)
        served = next(row for row in router.rows(reply) if row.decision == "local")
        assert (title_of(served.experiment), title_of(row.experiment)) == ("e/control", "e/s")
        assert other.seen[0].json.get("stream", False) is False
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert [attempt["backend"] for attempt in record["attempts"]] == ["local"]
        await router.runtime.shadows.settled()
        metrics = (await router.client.get("/metrics")).text
        assert results(metrics) == {f'arm="e/s",result="{finding}"': 1}
        assert 'spillway_shadow_choices_total{answered="local",arm="e/s",chosen="cloud"} 1.0' in metrics
        assert 'spillway_arm_requests_total{arm="e/control",decision="local",status="200"} 1.0' in metrics


async def test_a_shadow_that_is_interrupted_is_charged_and_no_answer() -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME.after(asyncio.Event())) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        reply = await router.chat()
        await other.arrival()
        await router.runtime.shadows.stop()
        row = await shadow_row(router, reply)
        assert (row.kind, row.status, row.amount_nano > 0) == ("charged", "error", True)
        line = line_of_entries(router.ledger.entries_of(reply.headers["x-request-id"]))
        assert (line.backend, line.decision, line.ended) == ("local", "local", "ok")


async def test_the_client_does_not_wait_for_a_shadow() -> None:
    gate = asyncio.Event()
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME.after(gate)) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        reply = await router.chat()
        assert said(reply) == "The bus is green."
        await other.arrival()
        assert [row.decision for row in router.rows(reply)] == ["local"]
        gate.set()
        assert (await shadow_row(router, reply)).reasons == "shadow,agrees"


@pytest.mark.parametrize(
    "more",
    [
        "policy: {rules: [{name: none, forbid: cloud}]}\n",
        "budgets: [{scope: 'backend:cloud', period: day, limit_usd: '0.0000001'}]\n",
    ],
)
async def test_rules_and_budgets_bind_a_shadow(more: str) -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED + more)) as router,
    ):
        reply = await router.chat()
        assert reply.headers["x-spillway-backend"] == "local"
        await router.runtime.shadows.settled()
        assert not other.seen
        assert [row.decision for row in router.rows(reply)] == ["local"]
        assert sum(router.runtime.shadows.counts.results.values()) == 1


async def test_a_shadow_of_a_private_request_stays_at_the_engine() -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        reply = await router.chat(x_spillway_privacy="local-only")
        row = await shadow_row(router, reply)
        assert (row.backend, row.amount_nano, len(engine.seen)) == ("local", 0, 2)
        assert not other.seen


async def test_a_key_that_may_not_use_a_backend_has_no_shadow_there() -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        keys = KeyStore(router.ledger.keys)
        barred = keys.create(KeySpec("a", backends=("local",)), b"a" * 6, b"b" * 32, 0)
        free = keys.create(KeySpec("b"), b"c" * 6, b"d" * 32, 0)
        assert (await router.chat(authorization=f"Bearer {barred.token}")).status_code == 200
        await router.runtime.shadows.settled()
        assert not other.seen
        assert (await router.chat(authorization=f"Bearer {free.token}")).status_code == 200
        await router.runtime.shadows.settled()
        assert len(other.seen) == 1


@pytest.mark.parametrize("change", ["revoked", "barred from the cloud"])
async def test_a_shadow_that_waits_obeys_what_becomes_of_its_key(change: str) -> None:
    """Four shadows are under way, so that the fifth waits."""
    gate = asyncio.Event()
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME.after(gate)) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        store, keys = KeyStore(router.ledger.keys), router.runtime._keys
        key = store.create(KeySpec("b"), b"c" * 6, b"d" * 32, 0)
        for _ in range(WORKERS):
            assert (await router.chat()).status_code == 200
        await router.until(lambda: len(other.seen) == WORKERS)
        assert (await router.chat(authorization=f"Bearer {key.token}")).status_code == 200
        before = keys.valid(key.record.id, router.runtime.services.clock())
        assert before is not None
        if change == "revoked":
            assert store.revoke(key.record.id, 1)
        else:
            assert store.set(key.record.id, KeySpec("b", backends=("local",)), 1)
        await router.until(lambda: keys.valid(key.record.id, router.runtime.services.clock()) != before)
        gate.set()
        await router.runtime.shadows.settled()
        assert len(other.seen) == WORKERS
        counts = router.runtime.shadows.counts.results
        assert sum(count for (_, result), count in counts.items() if result == "barred") == 1


async def test_a_shadow_spends_no_more_than_its_own_budget(tmp_path: Path) -> None:
    """The bound of one call fits into it, that of two does not."""
    small, gate = ASKED.replace("'1'", "'0.02'"), asyncio.Event()
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME.after(gate)) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + small), tmp_path) as router,
    ):
        assert said(await router.chat({"max_tokens": 6000})) == "The bus is green."
        await other.arrival()
        assert said(await router.chat({"max_tokens": 6000})) == "The bus is green."
        await router.until(lambda: router.runtime.shadows.counts.results.get(("e/s", "budget")) == 1)
        assert 0 < day_of_shadow(router).reserved_nano <= 20_000_000
        gate.set()
        await router.until(lambda: day_of_shadow(router).reserved_nano == 0)
        assert 0 < day_of_shadow(router).spent_nano <= 20_000_000
        assert len(other.seen) == 1


async def test_a_dry_shadow_asks_nobody_and_says_what_it_would_have_done() -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + DRY)) as router,
    ):
        reply = await router.chat()
        row = await shadow_row(router, reply)
        assert (row.kind, row.backend, row.reasons, row.amount_nano) == ("released", "cloud", "shadow,dry,routed", 0)
        assert not other.seen
        (choice,) = router.ledger.experiments.dry_choices(0, row.ts + 1)
        assert (choice.arm, choice.backend, choice.prompt_tokens, choice.completion_tokens) == ("e/s", "cloud", 3, 2)


@pytest.mark.parametrize("fields", [{"store": True}, {"web_search_options": {"search_context_size": "low"}}])
async def test_what_a_provider_does_or_keeps_is_asked_for_once(fields: dict[str, object]) -> None:
    async with (
        FaultUpstream(GREEN) as engine,
        FaultUpstream(SAME) as other,
        routing(settings(local(engine), cloud(other), more=ALIAS + ASKED)) as router,
    ):
        assert (await router.chat(fields)).status_code == 200
        await router.runtime.shadows.settled()
        assert not other.seen
        assert not router.runtime.shadows.counts.results
