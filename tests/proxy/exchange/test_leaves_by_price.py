"""What leaves by price: a request waits until a cloud's last moment, the dearest go to the engine first, private ones
never leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.proxy.answers import answer

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, routing, settings

WHOLE = answer("beta")
CALM = "slo: {ttft_ms: 20000, tpot_ms: 1000}\noverflow: {leaves: price}\n"
AT_ARRIVAL = "slo: {ttft_ms: 20000, tpot_ms: 1000}\n"


def engine_line(engine: FaultUpstream) -> str:
    return f"{{name: local, provider: vllm, local: true, model: m, base_url: '{engine.url}', max_sequences: 1}}"


def asking(name: str, words: int = 0) -> dict[str, Any]:
    """At the configured step time of 10 ms such a request keeps the only sequence of the engine for 3 s."""
    return {"max_tokens": 300, "messages": [{"role": "user", "content": name + " w" * words}]}


def names(engine: FaultUpstream) -> list[str]:
    return [arrived.json["messages"][0]["content"].split()[0] for arrived in engine.seen]


def held(router: Router) -> int:
    """How many requests wait in the router or at the engine."""
    return router.runtime.services.local_queues.count + router.runtime.board.in_flight()["local"]


async def filled(router: Router, count: int, first: int = 0) -> list[asyncio.Task[Any]]:
    """Send requests one after the other, each once the one before it waits."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(router.chat(asking(f"f{number}"))))
        await router.until(lambda number=number: held(router) == first + number + 1)
    return tasks


@pytest.mark.parametrize(("more", "where", "decision"), [(CALM, "local", "local"), (AT_ARRIVAL, "cloud", "overflow")])
async def test_a_request_that_would_overflow_waits_for_the_engine_instead(more: str, where: str, decision: str) -> None:
    async with FaultUpstream() as engine, FaultUpstream(WHOLE) as other:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        async with routing(settings(engine_line(engine), cloud(other), more=more)) as router:
            tasks = await filled(router, 6)
            last = asyncio.create_task(router.chat(asking("last")))
            await router.until(lambda: held(router) == 7 or last.done())
            gate.set()
            reply = await last
            assert (reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]) == (where, decision)
            assert {(await task).status_code for task in tasks} == {200}


@pytest.mark.parametrize(("more", "share", "count"), [(CALM, "half", 4), (AT_ARRIVAL, "a quarter", 2)])
async def test_the_engine_holds_more_where_what_leaves_is_chosen_by_price(more: str, share: str, count: int) -> None:
    async with FaultUpstream() as engine:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        async with routing(settings(engine_line(engine), more=more)) as router:
            tasks = await filled(router, 6)  # each one that waits takes 3 s, and the promise is 20 s
            assert router.runtime.board.in_flight()["local"] == count, f"work for {share} of the promise"
            gate.set()
            assert {(await task).status_code for task in tasks} == {200}


async def test_a_request_whose_first_token_would_come_late_leaves_though_the_engine_has_room() -> None:
    async with FaultUpstream() as engine, FaultUpstream(WHOLE) as other:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        async with routing(settings(engine_line(engine), cloud(other), more=CALM)) as router:
            tasks = await filled(router, 2)
            # Two answers are before it, 6 s, which is less than half of the promise of the others.
            reply = await router.chat(asking("hurried"), x_spillway_slo_ttft_ms="900")
            assert reply.headers["x-spillway-backend"] == "cloud"
            assert "hurried" not in names(engine)
            gate.set()
            assert {(await task).status_code for task in tasks} == {200}


async def test_a_request_that_still_waits_at_the_last_moment_leaves() -> None:
    async with FaultUpstream() as engine, FaultUpstream(WHOLE) as other:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        text = settings(engine_line(engine), cloud(other), more=CALM)
        async with routing(text) as router:
            tasks = await filled(router, 6)
            # The cloud takes half a second: with a promise of 0.9 s it must have the request within 0.4 s.
            reply = await router.chat(asking("hurried"), x_spillway_slo_ttft_ms="900")
            assert (reply.headers["x-spillway-backend"], reply.headers["x-spillway-decision"]) == ("cloud", "overflow")
            assert "hurried" not in names(engine)
            gate.set()
            assert {(await task).status_code for task in tasks} == {200}


async def test_a_request_whose_cloud_fails_at_the_last_moment_goes_on_waiting_for_the_engine() -> None:
    async with FaultUpstream() as engine, FaultUpstream(Answer.json({"error": {"message": "down"}}, 500)) as other:
        gate = asyncio.Event()
        engine.answer = WHOLE.after(gate)
        async with routing(settings(engine_line(engine), cloud(other), more=CALM)) as router:
            tasks = await filled(router, 4)
            # It leaves after 1.5 s; as it is long, it may wait for four times its own time, which is more than 4 s.
            last = asyncio.create_task(router.chat(asking("hurried", words=22_000), x_spillway_slo_ttft_ms="2000"))
            await other.arrival()
            gate.set()
            reply = await last
            assert (reply.status_code, reply.headers.get("x-spillway-backend")) == (200, "local")
            assert {(await task).status_code for task in tasks} == {200}


async def test_the_dearest_per_second_of_gpu_work_goes_first_and_a_private_one_before_it() -> None:
    async with FaultUpstream() as engine, FaultUpstream(WHOLE) as other:
        gates = [asyncio.Event() for _ in range(6)]
        engine.script.extend([WHOLE.after(gate) for gate in gates])
        text = settings(engine_line(engine), cloud(other), more=CALM.replace("20000", "17500"))
        async with routing(text) as router:
            tasks = await filled(router, 3)  # one is answered, and two wait in the engine
            for number, (body, headers) in enumerate(
                (
                    (asking("long", words=2_000), {}),
                    (asking("private", words=2_000), {"x_spillway_privacy": "local-only"}),
                    (asking("short"), {}),
                )
            ):
                tasks.append(asyncio.create_task(router.chat(body, **headers)))
                await router.until(lambda number=number: held(router) == 4 + number)
            for gate in gates:
                gate.set()
            assert [(await task).status_code for task in tasks] == [200] * 6
            assert names(engine)[3:] == ["private", "short", "long"]
