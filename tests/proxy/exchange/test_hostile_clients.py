"""Clients that read slowly, never finish a request or send what makes an engine fail, all at once: what the router
learns from them of the engine, and what they cost one that behaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.proxy.answers import answer
from tests.proxy.control.helpers import bearer

from spillway_router.core.routing.backlog import EngineRates
from spillway_router.testing import Answer, FakeEngine, FaultUpstream
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import (
    LIMIT_S,
    MESSAGES,
    Router,
    cloud,
    escalating,
    local,
    routing,
    settings,
)

KEYS = "keys: {required: true}\n"
FAILURE = Answer.json({"error": {"message": "internal", "code": 500}}, 500)
LONG_TOKENS = 8000
"""Events of an answer that fits into no socket's buffers."""


def stream(tokens: int, text: str) -> Answer:
    """Return a whole stream of an engine, with its usage."""
    completion = wire.Completion("chatcmpl-1", "m", 1_700_000_000)
    events = [
        completion.opening(),
        *[completion.said(text)] * tokens,
        completion.chunk([wire.delta_choice({}, "stop")]),
    ]
    events.append(completion.usage_chunk(wire.usage(7, tokens)))
    return Answer.stream(b"".join([*map(wire.event, events), wire.DONE]))


SHORT, LONG = stream(4, "word "), stream(LONG_TOKENS, "word " * 200)


def as_the_body_wants(arrived: Any) -> Answer:
    if b"POISON" in arrived.body:
        return FAILURE
    return LONG if b"LONG" in arrived.body else SHORT


@asynccontextmanager
async def reader(router: Router, **headers: str) -> AsyncIterator[socket.socket]:
    """Ask for a long stream from a socket with a small buffer, and leave the reading to the test."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    fields = {"model": "auto", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "LONG"}]}
    body = json.dumps(fields).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{lines}"
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, int(port)))
        await loop.sock_sendall(
            sock, f"{head}connection: close\r\ncontent-type: application/json\r\n\r\n".encode() + body
        )
        yield sock


async def read_on(sock: socket.socket) -> bytes:
    """Read until the connection ends, and return its last bytes."""
    loop, last = asyncio.get_running_loop(), b""
    while part := await loop.sock_recv(sock, 1 << 20):
        last = (last + part)[-100:]
    return last


def rates(router: Router) -> EngineRates:
    view = router.runtime.board.view("local", router.runtime.services.clock())
    assert view is not None
    assert view.rates is not None
    return view.rates


def in_backlog(router: Router) -> int:
    """Return how many requests count as work of the engine."""
    view = router.runtime.board.view("local", router.runtime.services.clock())
    assert view is not None
    assert view.backlog is not None
    return view.backlog.in_flight


async def test_a_victim_stays_local_beside_slow_readers_half_open_connections_and_poison(tmp_path: Path) -> None:
    async with (
        FaultUpstream() as engine,
        FaultUpstream() as other,
        routing(settings(local(engine), cloud(other), more=KEYS), tmp_path) as router,
        AsyncExitStack() as held,
    ):
        engine.choose = other.choose = as_the_body_wants
        attackers = [bearer(router, "inference", f"a{number}") for number in range(6)]
        victim, numbers = bearer(router, "inference", "v"), itertools.count()
        for number in range(20):
            await held.enter_async_context(reader(router, **attackers[number % 6]))
            host, _, port = router.url.removeprefix("http://").partition(":")
            _, half_open = await asyncio.open_connection(host, int(port))
            held.callback(half_open.close)
            half_open.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: ")

        async def poison(key: dict[str, str]) -> None:
            words = f"POISON {next(numbers)} " + "a word " * 2000
            assert (await router.chat({"messages": [{"role": "user", "content": words}]}, **key)).status_code >= 500

        where = []
        for _ in range(15):
            await asyncio.gather(*[poison(key) for key in attackers])
            reply = await router.chat({"stream": True, "max_tokens": 10}, **victim)
            where.append((reply.headers["x-spillway-backend"], reply.headers.get("x-spillway-reason")))
        assert where == [("local", None)] * 15


async def test_a_client_that_reads_slowly_does_not_make_the_engine_look_slow() -> None:
    async with FaultUpstream() as engine, routing(settings(local(engine))) as router, reader(router) as sock:
        engine.choose = as_the_body_wants
        await router.until(lambda: bool(engine.seen))
        usual_s = rates(router).step_time_s
        began_s = router.runtime.services.clock()
        await router.until(lambda: router.runtime.services.clock() > began_s + 0.3)
        assert b"[DONE]" in await asyncio.wait_for(read_on(sock), LIMIT_S)
        await router.until(lambda: not any(router.runtime.board.in_flight().values()))
        assert rates(router).step_time_s <= usual_s


async def test_answers_that_nobody_reads_do_not_count_as_work_for_ever() -> None:
    async with FaultUpstream() as engine, routing(settings(local(engine))) as router, reader(router):
        engine.choose = as_the_body_wants
        await router.until(lambda: in_backlog(router) == 1)
        await router.until(lambda: in_backlog(router) == 0)
        assert router.runtime.board.in_flight()["local"] == 1


async def test_the_search_for_a_better_answer_does_not_make_the_engine_look_slow() -> None:
    gate = asyncio.Event()
    rule = "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
    engine = FakeEngine(["we", "ak"], (-1.0, -2.0))
    async with escalating(engine, answer("strong").after(gate), rule=rule) as (_, strong, router):
        usual_s = rates(router).step_time_s
        asking = asyncio.create_task(router.chat({"messages": MESSAGES}))
        await strong.arrival()
        await router.until(lambda: in_backlog(router) == 0)
        gate.set()
        assert (await asking).headers["x-spillway-backend"] == "cloud"
        assert rates(router).step_time_s <= usual_s
