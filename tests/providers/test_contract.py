"""One contract for every provider of the catalogue, against its recorded shape over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from urllib.parse import urlsplit

import orjson
import pytest
from tests.providers.recorded import KEY, NAMES, STREAMED, Recorded, Shape, call, events, running, shape

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.rate_limits import exhausted_for_s
from spillway_router.http_client.types import Target
from spillway_router.providers.catalogue import load_catalogue, provider_for, target
from spillway_router.providers.interface import Provider, StreamMonitor

CATALOGUE = load_catalogue()
WALL = datetime.fromisoformat("2026-11-20T12:00:00Z").timestamp()
END = {"chat": b'"finish_reason":"stop"', "responses": b'"response.completed"', "messages": b'"message_stop"'}
Test = Callable[[Provider, Target, Recorded], Coroutine[object, object, None]]


@pytest.fixture(params=NAMES)
def served(request: pytest.FixtureRequest) -> Shape:
    """Each recorded shape in turn."""
    return shape(request.param)


@pytest.fixture(params=STREAMED)
def streamed(request: pytest.FixtureRequest) -> Shape:
    """Each recorded shape with a stream in turn."""
    return shape(request.param)


def against(served: Shape, test: Test) -> None:
    """Run `test` with the shape's provider, a target at its server, and the server."""

    async def run() -> None:
        entry = CATALOGUE[served.data["provider"]]
        async with running(served) as recorded:
            # The catalogue's own path must be kept, so that a wrong one in it is found.
            path = urlsplit(entry.base_url).path or "/v1"
            await test(provider_for(entry), target(entry, recorded.url + path, KEY), recorded)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_every_provider_has_a_shape() -> None:
    assert {shape(name).data["provider"] for name in NAMES} == set(CATALOGUE)


def test_path_and_credentials_arrive_and_stay_secret(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer(served.data["answer"])
        reply = await call(provider, to, served, {"model": served.data["model"]})
        assert reply.status == 200, reply.body
        path, headers, _ = recorded.seen[0]
        assert path == served.data["path"]
        assert headers["host"] == to.authority.decode()
        for text in (repr(to), str(to), f"{to}", repr(provider), repr(provider.entry)):
            assert KEY not in text

    against(served, test)


def test_a_wrong_key_is_our_fault_not_the_clients(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        other = target(provider.entry, recorded.url + to.prefix, "sk-wrong")
        reply = await call(provider, other, served, {})
        assert provider.outcome(reply, WALL).kind == "unauthorized"

    against(served, test)


def test_rejected_fields_are_dropped_and_no_others(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        full = dict.fromkeys([*served.data["rejects"], *served.data["keeps"], "model"], 1)
        recorded.answer(served.data["answer"])
        if served.data["rejects"]:
            refused = await call(provider, to, served, full)
            assert provider.outcome(refused, WALL).kind in ("rejected", "unserved")  # another may know the field
        recorded.answer(served.data["answer"])
        supported = {name: value for name, value in full.items() if name not in provider.entry.drops_fields}
        assert (await call(provider, to, served, supported)).status == 200
        assert recorded.seen[-1][2].keys() == {*served.data["keeps"], "model"}

    against(served, test)


def test_a_whole_answer_and_its_usage(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer(served.data["answer"])
        reply = await call(provider, to, served, {"model": served.data["model"]})
        outcome = provider.outcome(reply, WALL)
        assert (outcome.kind, outcome.status) == ("ok", 200)
        body = orjson.loads(reply.body)
        assert provider.flaw(served.data["endpoint"], body) is None
        assert provider.usage(served.data["endpoint"], body) == Usage(**served.data["usage"])

    against(served, test)


def test_an_error_inside_a_200_is_no_answer(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer({"error": {"code": 502, "message": "Provider returned error"}})
        reply = await call(provider, to, served, {})
        assert provider.flaw(served.data["endpoint"], orjson.loads(reply.body)) == "Provider returned error"

    against(served, test)


def test_errors_have_their_kind_wait_and_message(served: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        for error in served.data["errors"]:
            recorded.answer(error["body"], error["status"], error["headers"])
            reply = await call(provider, to, served, {})
            outcome = provider.outcome(reply, WALL)
            assert (outcome.kind, outcome.status) == (error["kind"], error["status"]), error
            assert outcome.retry_after_s == error["retry_after_s"], error
            assert error["detail"] in outcome.said
            assert KEY not in outcome.said
            assert exhausted_for_s(reply.headers, WALL) == error["stay_away_s"], error

    against(served, test)


def test_a_whole_stream_is_judged_whole_and_its_usage_read(streamed: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer_stream(streamed.stream)
        monitor = provider.stream_monitor(streamed.data["endpoint"], 1)
        assert watch(monitor, await events(provider, to, streamed)) is None
        assert monitor.started
        assert monitor.finished
        assert not monitor.overloaded
        assert monitor.missing() is None
        assert monitor.usage == Usage(**streamed.data["stream_usage"])

    against(streamed, test)


def test_a_broken_stream_is_never_judged_whole(streamed: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer_stream(streamed.broken)
        monitor = provider.stream_monitor(streamed.data["endpoint"], 1)
        flaw = watch(monitor, await events(provider, to, streamed))
        assert flaw is not None or monitor.missing() is not None
        assert not monitor.finished

    against(streamed, test)


def test_a_stream_cut_before_its_end_is_never_judged_whole(streamed: Shape) -> None:
    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer_stream(streamed.stream)
        seen = await events(provider, to, streamed)
        for count in range(len(seen)):
            monitor = provider.stream_monitor(streamed.data["endpoint"], 1)
            assert watch(monitor, seen[:count]) is None
            ended = any(END[streamed.data["endpoint"]] in data for _, data in seen[:count])
            assert (monitor.missing() is None, monitor.finished) == (ended, ended)

    against(streamed, test)


@pytest.mark.parametrize("name", ["vllm", "vllm-draining"])
def test_a_full_or_draining_engine_is_load_inside_a_200(name: str) -> None:
    served = shape(name)

    async def test(provider: Provider, to: Target, recorded: Recorded) -> None:
        recorded.answer_stream(served.broken)
        monitor = provider.stream_monitor("chat", 1)
        assert watch(monitor, await events(provider, to, served)) is not None
        assert monitor.overloaded

    against(served, test)


def watch(monitor: StreamMonitor, seen: list[tuple[bytes, bytes]]) -> str | None:
    """The first flaw the monitor sees, as the relay would."""
    for name, data in seen:
        flaw = monitor.check(name, data)
        if flaw is not None:
            return flaw
    return None
