"""Few descriptors: requests that don't fit are refused before a call, and no backend is blamed for it."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest

from spillway_router.core.routing.breaker import CLOSED, BreakerRule, on_outcome
from spillway_router.core.routing.retry_budget import may_try_next
from spillway_router.http_client.connection import ConnectError, OwnLimitError
from spillway_router.http_client.own_limits import is_own
from spillway_router.proxy.exchange.outcomes import transport_outcome
from spillway_router.runtime.descriptors import AMPLE, KEPT_BACK, Descriptors, of_process, raised
from spillway_router.runtime.listener import ClientPlaces, ScarceListener
from spillway_router.testing.harness import MESSAGES
from spillway_router.testing.processes import await_ready, running, write
from spillway_router.testing.upstream import Answer, FaultUpstream

WAIT_S = 20


def test_clients_upstreams_and_what_is_kept_back_fit_into_the_limit() -> None:
    for limit in (128, 256, 1024, 4096, 1 << 20):
        places = Descriptors(limit)
        assert places.clients + places.requests + KEPT_BACK <= limit
        assert places.requests < places.clients
    assert Descriptors(1 << 20).clients > AMPLE


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = soft - 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
        assert of_process().limit == min(lower, 1 << 20)
        assert raised().limit >= of_process().limit >= min(soft, hard, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_an_error_of_this_machine_is_known_through_what_wraps_it(number: int) -> None:
    wrapping = httpx.ConnectError("wrapped")
    wrapping.__cause__ = OSError(number, "none left")
    assert is_own(wrapping)
    assert not is_own(OSError(errno.ECONNREFUSED, "refused"))
    assert not is_own(None)


def test_a_call_that_was_not_sent_moves_no_breaker_and_no_request() -> None:
    outcome = transport_outcome(OwnLimitError("can't connect: Too many open files"))
    assert (outcome.kind, outcome.billed) == ("unsent", False)
    assert not may_try_next(outcome)
    assert on_outcome(CLOSED, outcome.kind, 1.0, BreakerRule()) is CLOSED
    failing = on_outcome(CLOSED, "failed", 1.0, BreakerRule())
    assert on_outcome(failing, outcome.kind, 1.0, BreakerRule()) is failing
    assert transport_outcome(ConnectError("refused")).kind == "failed"


class _Greeter(asyncio.Protocol):
    """Answers the first bytes and closes."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d" % len(self._connections))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)


async def test_more_clients_than_places_are_all_served_in_turn() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    address, connections = listening.getsockname(), set[Any]()
    listener = ScarceListener(listening, lambda: _Greeter(connections), ClientPlaces(connections, 3))

    async def ask() -> int:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        answer = await reader.read()
        writer.close()
        return int(answer)

    answers = await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(40))), WAIT_S)
    assert len(answers) == 40
    assert max(answers) <= 3
    listener.close()
    await listener.wait_closed()


async def test_a_router_without_descriptors_says_so_and_blames_nobody(tmp_path: Path) -> None:
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    async with FaultUpstream(Answer.json(answer)) as engine, FaultUpstream(Answer.json(answer)) as cloud:
        price = {"input_per_million": "1", "output_per_million": "2"}
        backends = [
            {"name": "local", "provider": "ollama", "local": True, "model": "m", "base_url": engine.url},
            {
                "name": "cloud",
                "provider": "generic",
                "model": "m",
                "base_url": cloud.url,
                "api_key": "k",
                "price": price,
            },
        ]
        config = write(tmp_path, {"backends": backends, "aliases": {"auto": {"chain": ["local", "cloud"]}}})
        with running("route", config) as process:
            await asyncio.to_thread(await_ready, process.url)
            async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as client:
                await client.get("/health")  # the client has its connection
                pid, limit = process.process.pid, resource.RLIMIT_NOFILE
                soft, hard = resource.prlimit(pid, limit)
                resource.prlimit(pid, limit, (max(_open(pid)) + 1, hard))
                body = {"model": "auto", "messages": MESSAGES}
                replies = [await client.post("/v1/chat/completions", json=body) for _ in range(20)]
                asked = cloud.arrivals.qsize()
                resource.prlimit(pid, limit, (soft, hard))
                after = await client.post("/v1/chat/completions", json=body)
                ready = (await client.get("/ready")).json()
    codes = {(reply.status_code, reply.json().get("error", {}).get("code")) for reply in replies}
    assert codes == {(503, "overloaded")}
    assert asked == 0
    assert (after.status_code, after.headers["x-spillway-backend"]) == (200, "local")
    assert not ready["backends"]["local"]["breaker_open"]


def _open(pid: int) -> list[int]:
    """Return the numbers of a process's descriptors; `limit` bounds the next free number."""
    return [int(path.name) for path in Path(f"/proc/{psutil.Process(pid).pid}/fd").iterdir()]
