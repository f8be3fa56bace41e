"""Names that httpx is asked for are looked up in threads of their own, and each of their addresses is tried."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest

from spillway_router.http_client import dial
from spillway_router.http_client.resolving import ResolvingTransport
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import LIMIT_S, local, routing, settings

NAME = "engine.test"


class Inner(httpx.AsyncBaseTransport):
    """Answers at some addresses; keeps what it was asked."""

    def __init__(self, *alive: str) -> None:
        self.alive = alive
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.host not in self.alive:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)


def naming(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str]) -> list[str]:
    """Make NAME resolve to these addresses; returns the names that are looked up."""
    seen: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> Any:
        seen.append(host)
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in addresses]

    monkeypatch.setattr(dial.socket, "getaddrinfo", lookup)
    return seen


async def test_the_address_is_asked_with_the_name_in_host_and_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = naming(monkeypatch, (socket.AF_INET, "127.0.0.9"))
    inner = Inner("127.0.0.9")
    async with httpx.AsyncClient(transport=ResolvingTransport(inner)) as client:
        for _ in range(3):
            assert (await client.get(f"https://{NAME}:8443/health?x=1")).status_code == 200
    request = inner.asked[0]
    assert str(request.url) == "https://127.0.0.9:8443/health?x=1"
    assert request.headers["host"] == f"{NAME}:8443"
    assert request.extensions["sni_hostname"] == NAME
    assert seen == [NAME]


async def test_an_address_that_fails_is_tried_last_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    naming(monkeypatch, (socket.AF_INET6, "::9"), (socket.AF_INET, "127.0.0.9"))
    inner = Inner("127.0.0.9")
    async with httpx.AsyncClient(transport=ResolvingTransport(inner)) as client:
        for _ in range(2):
            assert (await client.get(f"http://{NAME}/health")).status_code == 200
        assert [r.url.host for r in inner.asked] == ["::9", "127.0.0.9", "127.0.0.9"]
        inner.alive = ()
        with pytest.raises(httpx.ConnectError, match="refused"):
            await client.get(f"http://{NAME}/health")


async def test_a_name_that_does_not_resolve_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    naming(monkeypatch)
    async with httpx.AsyncClient(transport=ResolvingTransport(Inner())) as client:
        with pytest.raises(httpx.ConnectError, match=r"engine\.test does not resolve"):
            await client.get(f"http://{NAME}/health")


async def test_engines_whose_names_hang_do_not_keep_another_from_being_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".test"):
            released.wait(2 * LIMIT_S)
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(dial.socket, "getaddrinfo", lookup)
    try:
        async with FaultUpstream() as good:
            named = good.url.replace("127.0.0.1", "localhost")
            dead = [local(f"http://dead{i}.test/v1", f"dead{i}") for i in range(40)]
            async with routing(settings(*dead, local(named, "good"))) as router, asyncio.timeout(LIMIT_S):
                board, clock = router.runtime.board, router.runtime.services.clock
                await router.until(lambda: board.current(clock()).backends["good"].health == "up")
    finally:
        released.set()
