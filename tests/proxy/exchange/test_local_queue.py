"""Requests that wait for a local engine: in turns between keys, no longer than promised, and never for an engine that
is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.proxy.answers import answer
from tests.proxy.control.helpers import bearer

from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, cloud, error_of, routing, settings

WHOLE = answer("beta")
LONG: dict[str, Any] = {"max_tokens": 300}
"""At the configured step time of 10 ms such a request keeps the only sequence of the engine for 3 s."""
PROMISE = "slo: {ttft_ms: 20000, tpot_ms: 1000}\n"
KEYS = "keys: {required: true}\n"


def one_sequence(engine: FaultUpstream) -> str:
    return f"{{name: local, provider: vllm, local: true, model: m, base_url: '{engine.url}', max_sequences: 1}}"


@asynccontextmanager
async def keyed(folder: Path) -> AsyncIterator[tuple[FaultUpstream, Router]]:
    """Run an engine of one sequence, and a router that asks for keys."""
    engine = FaultUpstream()
    async with engine, routing(settings(one_sequence(engine), more=PROMISE + KEYS), folder) as router:
        yield engine, router


def said_by(name: str) -> dict[str, Any]:
    return {**LONG, "messages": [{"role": "user", "content": name}]}


def names(engine: FaultUpstream) -> list[str]:
    return [arrived.json["messages"][0]["content"] for arrived in engine.seen]


def waiting(router: Router) -> int:
    return router.runtime.services.local_queues.count


async def asked(router: Router, name: str, caller: dict[str, str], count: int) -> asyncio.Task[httpx.Response]:
    """Send a request, and wait until so many requests wait in the router or at the engine."""
    task = asyncio.create_task(router.chat(said_by(name), **caller))
    board = router.runtime.board
    await router.until(lambda: waiting(router) + board.in_flight()["local"] == count)
    return task


async def test_keys_take_turns_at_a_busy_engine(tmp_path: Path) -> None:
    async with (
        FaultUpstream() as engine,
        routing(settings(one_sequence(engine), more=PROMISE + KEYS), tmp_path) as router,
    ):
        flood, calm = bearer(router, "inference", "flood"), bearer(router, "inference", "calm")
        gates = [asyncio.Event() for _ in range(5)]
        engine.script.extend([WHOLE.after(gate) for gate in gates])
        tasks = [await asked(router, f"flood {i}", flood, i + 1) for i in range(4)]
        assert waiting(router) == 2  # one is answered, and one waits in the engine
        tasks.append(await asked(router, "calm", calm, 5))
        for gate in gates:
            gate.set()
        assert [(await task).status_code for task in tasks] == [200] * 5
        assert names(engine) == ["flood 0", "flood 1", "flood 2", "calm", "flood 3"]
        assert waiting(router) == 0


async def test_the_free_tier_goes_after_the_others(tmp_path: Path) -> None:
    async with (
        FaultUpstream() as engine,
        routing(settings(one_sequence(engine), more=PROMISE + KEYS), tmp_path) as router,
    ):
        free, paid = bearer(router, "inference", "f", tier="free"), bearer(router, "inference", "p", tier="paid")
        gates = [asyncio.Event() for _ in range(4)]
        engine.script.extend([WHOLE.after(gate) for gate in gates])
        tasks = [await asked(router, f"free {i}", free, i + 1) for i in range(3)]
        tasks.append(await asked(router, "paid", paid, 4))
        for gate in gates:
            gate.set()
        assert [(await task).status_code for task in tasks] == [200] * 4
        assert names(engine) == ["free 0", "free 1", "paid", "free 2"]


async def test_a_request_that_would_wait_too_long_is_refused_at_once_without_a_cloud() -> None:
    async with FaultUpstream() as engine, routing(settings(one_sequence(engine), more=PROMISE)) as router:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        tasks = [await asked(router, str(i), {}, i + 1) for i in range(6)]
        reply = await router.chat(LONG)
        assert (reply.status_code, error_of(reply)["code"]) == (503, "overloaded")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert reply.headers["x-should-retry"] == "false"
        private = await router.chat(LONG, x_spillway_privacy="local-only")
        assert error_of(private)["code"] == "overloaded"  # no cloud was kept from it
        gate.set()
        assert {(await task).status_code for task in tasks} == {200}
        assert (await router.chat(LONG)).status_code == 200


async def test_a_key_that_floods_overflows_and_the_calm_one_stays_local(tmp_path: Path) -> None:
    async with FaultUpstream() as engine, FaultUpstream(WHOLE) as other:
        text = settings(one_sequence(engine), cloud(other), more=PROMISE + KEYS)
        async with routing(text, tmp_path) as router:
            flood, calm = bearer(router, "inference", "flood"), bearer(router, "inference", "calm")
            gate = asyncio.Event()
            engine.answer = WHOLE.after(gate)
            tasks = [await asked(router, f"flood {i}", flood, i + 1) for i in range(6)]
            assert (await router.chat(said_by("flood"), **flood)).headers["x-spillway-decision"] == "overflow"
            tasks.append(await asked(router, "calm", calm, 7))
            gate.set()
            assert {(await task).headers["x-spillway-backend"] for task in tasks} == {"local"}


async def test_what_waits_goes_elsewhere_when_the_engine_leaves_the_rotation() -> None:
    async with (
        FaultUpstream() as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(one_sequence(engine), cloud(other), more=PROMISE)) as router,
    ):
        engine.answer = WHOLE.after(asyncio.Event())
        tasks = [await asked(router, str(i), {}, i + 1) for i in range(4)]
        assert waiting(router) == 2
        router.runtime.board.health("local", "down", "taken out by the test")
        for task in tasks:
            assert (await task).headers["x-spillway-backend"] == "cloud"
        assert waiting(router) == 0


async def test_a_client_that_leaves_while_it_waits_is_never_sent() -> None:
    async with FaultUpstream() as engine, routing(settings(one_sequence(engine), more=PROMISE)) as router:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        tasks = [await asked(router, str(i), {}, i + 1) for i in range(4)]
        tasks[2].cancel()
        await router.until(lambda: waiting(router) == 1)
        gate.set()
        for task in (tasks[0], tasks[1], tasks[3]):
            assert (await task).status_code == 200
        assert names(engine) == ["0", "1", "3"]


async def test_an_idle_engine_is_asked_without_waiting_however_long_the_prompt() -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(one_sequence(engine))) as router:
        reply = await router.chat({"messages": [{"role": "user", "content": "word " * 100_000}]})
        assert reply.status_code == 200
