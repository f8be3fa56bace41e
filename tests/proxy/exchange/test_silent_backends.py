"""Backends that take requests and send nothing: what the router learns, and where the waiting requests go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.proxy.helpers import asking, streamed, whole

from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import LIMIT_S, Router, cloud, error_of, events, local, pair, routing, settings
from spillway_router.testing.streams import DONE, delta

SILENT = Answer(silent=True, end="hang")
WHOLE = whole("beta", -0.1)
STREAM = Answer.stream(delta({"content": "beta"}) + delta({}, "stop") + DONE)
BEGUN = Answer.stream(delta({"content": "alpha"}), end="hang")
HEAD_ONLY = Answer.stream(b": ping\n\n", end="hang")


def answering(stream: bool) -> Answer:
    return STREAM if stream else WHOLE


@asynccontextmanager
async def silent_first(clock: ManualClock, stream: bool, first: Answer = SILENT) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Run a cloud that sends nothing before a healthy one."""
    async with (
        FaultUpstream(first) as hung,
        FaultUpstream(answering(stream)) as healthy,
        routing(settings(cloud(hung, "hung"), cloud(healthy, "healthy")), clock=clock) as router,
    ):
        yield hung, healthy, router


async def left_after(router: Router, hung: FaultUpstream, clock: ManualClock, stream: bool, seconds: float) -> None:
    """Ask as a client that leaves after so many seconds without an answer."""
    async with asking(router, {"stream": stream}):
        await hung.arrival()
        clock.advance(seconds)
    await router.until(lambda: not router.runtime.board.in_flight()["hung"])


def breaker_open(router: Router, name: str) -> bool:
    return router.runtime.board.current(router.runtime.services.clock()).backends[name].breaker_open


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [SILENT, HEAD_ONLY], ids=["no head", "no content"])
async def test_clients_that_leave_without_a_byte_take_the_backend_out(first: Answer, stream: bool) -> None:
    clock = ManualClock()
    async with silent_first(clock, stream, first) as (hung, _, router):
        for _ in range(3):
            await left_after(router, hung, clock, stream, 10.0)
        reply = await router.chat({"stream": stream})
        assert reply.status_code == 200
        assert reply.headers["x-spillway-backend"] == "healthy"
        assert len(hung.seen) == 3
        view = router.runtime.board.current(clock()).backends["hung"]
        assert view.breaker_reason == "it has not sent a byte for longer than usual"


@pytest.mark.parametrize("stream", [False, True])
async def test_clients_that_leave_early_teach_nothing(stream: bool) -> None:
    clock = ManualClock()
    async with silent_first(clock, stream) as (hung, _, router):
        for _ in range(6):
            await left_after(router, hung, clock, stream, 0.05)
        assert not breaker_open(router, "hung")


async def test_a_usually_slow_backend_is_given_its_usual_time() -> None:
    clock, gate = ManualClock(), asyncio.Event()
    async with silent_first(clock, False) as (hung, _, router):
        hung.script.append(WHOLE.after(gate))
        slow = asyncio.create_task(router.chat())
        await hung.arrival()
        clock.advance(20.0)
        gate.set()
        assert (await slow).headers["x-spillway-backend"] == "hung"
        for _ in range(3):
            await left_after(router, hung, clock, False, 30.0)
        assert not breaker_open(router, "hung")
        for _ in range(3):
            await left_after(router, hung, clock, False, 70.0)
        assert breaker_open(router, "hung")


async def test_a_backend_that_answers_others_is_not_silent() -> None:
    clock = ManualClock()
    async with silent_first(clock, False) as (hung, _, router):
        for _ in range(4):
            async with asking(router, {}):
                await hung.arrival()
                clock.advance(10.0)
                hung.script.append(WHOLE)
                assert (await router.chat()).headers["x-spillway-backend"] == "hung"
                await hung.arrival()
            await router.until(lambda: not router.runtime.board.in_flight()["hung"])
        assert not breaker_open(router, "hung")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_waits_at_a_silent_backend_goes_elsewhere(stream: bool) -> None:
    clock = ManualClock()
    async with silent_first(clock, stream) as (hung, _, router), AsyncExitStack() as leaving:
        waiting = [asyncio.create_task(router.chat({"stream": stream})) for _ in range(5)]
        for _ in waiting:
            await hung.arrival()
        for _ in range(3):
            await leaving.enter_async_context(asking(router, {"stream": stream}))
            await hung.arrival()
        clock.advance(10.0)
        await leaving.aclose()
        async with asyncio.timeout(LIMIT_S):
            replies = await asyncio.gather(*waiting)
        assert {(r.status_code, r.headers["x-spillway-backend"]) for r in replies} == {(200, "healthy")}
        assert {r.headers["x-spillway-decision"] for r in replies} == {"fallback"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_trial_of_a_silent_backend_costs_its_client_a_moment(stream: bool) -> None:
    clock = ManualClock()
    async with silent_first(clock, stream) as (hung, _, router):
        for _ in range(3):
            await left_after(router, hung, clock, stream, 10.0)
        clock.advance(5.0)
        assert not breaker_open(router, "hung")
        async with asyncio.timeout(LIMIT_S):
            reply = await router.chat({"stream": stream})
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "healthy")
        assert len(hung.seen) == 4
        assert breaker_open(router, "hung")
        hung.answer = answering(stream)
        clock.advance(5.0)
        assert (await router.chat({"stream": stream})).headers["x-spillway-backend"] == "hung"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_waits_at_an_engine_that_leaves_the_rotation_goes_elsewhere(stream: bool) -> None:
    async with pair(SILENT, answering(stream)) as (engine, _, router):
        waiting = asyncio.create_task(router.chat({"stream": stream}))
        await engine.arrival()
        router.runtime.board.health("local", "down", "hung, stalled: 1 unfinished")
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "cloud")
        assert (reply.headers["x-spillway-decision"], reply.headers["x-spillway-reason"]) == ("fallback", "health")
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert record["attempts"][0]["detail"] == "it left the rotation: hung, stalled: 1 unfinished"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_private_request_at_an_engine_that_leaves_goes_to_the_other_engine(stream: bool) -> None:
    async with (
        FaultUpstream(SILENT) as one,
        FaultUpstream(SILENT) as two,
        routing(settings(local(one, "one"), local(two, "two"))) as router,
    ):
        waiting = asyncio.create_task(router.chat({"stream": stream}, x_spillway_privacy="local-only"))
        first = await _first_arrival(one, two)
        left, other, name = ("one", two, "two") if first is one else ("two", one, "one")
        other.answer = answering(stream)
        router.runtime.board.health(left, "down", "hung")
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, name)


async def test_a_pinned_request_at_an_engine_that_leaves_is_refused_at_once() -> None:
    async with pair(SILENT, WHOLE) as (engine, other, router):
        waiting = asyncio.create_task(router.chat({"model": "local/m"}))
        await engine.arrival()
        router.runtime.board.health("local", "down", "hung")
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, error_of(reply)["code"]) == (503, "no_backend")
        assert not other.seen


async def _first_arrival(*upstreams: FaultUpstream) -> FaultUpstream:
    tasks = {asyncio.create_task(u.arrival()): u for u in upstreams}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return tasks[done.pop()]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_private_request_without_another_engine_is_refused_at_once(stream: bool) -> None:
    async with pair(SILENT, answering(stream)) as (engine, other, router):
        waiting = asyncio.create_task(router.chat({"stream": stream}, x_spillway_privacy="local-only"))
        await engine.arrival()
        router.runtime.board.health("local", "down", "hung")
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert int(reply.headers["retry-after"]) == 5
        assert "left the rotation" in error_of(reply)["message"]
        assert not other.seen


@asynccontextmanager
async def two_engines(stream: bool) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, FaultUpstream, Router]]:
    """Run an engine that is away, one that is silent, a cloud, and a router before them."""
    async with (
        FaultUpstream(answering(stream)) as away,
        FaultUpstream(SILENT) as silent,
        FaultUpstream(answering(stream)) as other,
        routing(
            settings(local(away, "away"), local(silent, "silent"), cloud(other), more="slo: {ttft_ms: 20000}\n")
        ) as router,
    ):
        away.health = 503  # a probe finds it so, too
        router.runtime.board.health("away", "down", "it restarts")
        yield away, silent, other, router


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("back_first", [True, False], ids=["back already", "back a moment later"])
async def test_a_private_request_goes_to_the_engine_that_is_back_when_its_own_leaves(
    stream: bool, back_first: bool
) -> None:
    async with two_engines(stream) as (away, silent, other, router):
        waiting = asyncio.create_task(router.chat({"stream": stream}, x_spillway_privacy="local-only"))
        await silent.arrival()
        board = router.runtime.board
        away.health, silent.health = 200, 503
        states = [("away", "up", ""), ("silent", "down", "it restarts, too")]
        for name, health, reason in states if back_first else reversed(states):
            board.health(name, health, reason)
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "away"), reply.text
        assert len(away.seen) == 1
        assert not other.seen


async def test_a_private_request_does_not_wait_for_ever_for_another_engine() -> None:
    async with two_engines(False) as (away, silent, other, router):
        waiting = asyncio.create_task(router.chat({}, x_spillway_privacy="local-only"))
        await silent.arrival()
        router.runtime.board.health("silent", "down", "it restarts, too")
        async with asyncio.timeout(LIMIT_S):
            reply = await waiting
        assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
        assert not away.seen
        assert not other.seen


async def test_a_stream_that_the_client_sees_stays_where_it_is() -> None:
    gate = asyncio.Event()
    words = delta({"content": "alpha"}) + delta({"content": " beta"}) + delta({}, "stop") + DONE
    paused = Answer.stream(words).pausing(len(delta({"content": "alpha"})), gate)
    async with pair(paused, STREAM) as (_, other, router), asking(router, {"stream": True}) as reader:
        await asyncio.wait_for(reader.readuntil(b"alpha"), LIMIT_S)
        router.runtime.board.health("local", "down", "hung")
        gate.set()
        rest = await asyncio.wait_for(reader.readuntil(b"[DONE]"), LIMIT_S)
        assert b" beta" in rest
        assert not other.seen


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hung_escalation_gives_way_to_the_local_answer(stream: bool, tmp_path: Path) -> None:
    draft = streamed("alpha", -3.0) if stream else whole("alpha", -3.0)
    more = "confidence: {threshold: 0.8, escalate_to: [cloud]}\nslo: {ttft_ms: 200, tpot_ms: 50}\n"
    async with pair(draft, SILENT, more=more, folder=tmp_path) as (_, other, router):
        async with asyncio.timeout(LIMIT_S):
            reply = await router.chat({"stream": stream})
        assert "alpha" in text_of(reply, stream)
        assert other.seen
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert (record["backend"], record["decision"]) == ("local", "local")
        assert record["reasons"] == ["confidence", "late"]
        late = record["attempts"][1]
        assert (late["outcome"], late["detail"]) == ("cancelled", "no better answer within the promised time")
        assert record["total_ms"] < 5000


def text_of(reply: httpx.Response, stream: bool) -> str:
    assert reply.status_code == 200, reply.text
    if stream:
        assert b"[DONE]" in events(reply)
        return reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


async def test_a_whole_answer_of_few_tokens_has_the_time_of_a_first_event(tmp_path: Path) -> None:
    more = "limits: {first_event_s: 0.2}\nslo: {ttft_ms: 100, tpot_ms: 10}\n"
    async with pair(SILENT, WHOLE, more=more, folder=tmp_path) as (_, _, router):
        async with asyncio.timeout(LIMIT_S):
            reply = await router.chat({"max_tokens": 16})
        assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "cloud")
