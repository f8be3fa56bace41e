"""Opening sockets by name: dead addresses and dead names delay nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.proxy.entry.helpers import saying

from spillway_router.config.places import is_inside
from spillway_router.http_client import dial
from spillway_router.http_client.connection import ConnectError, PendingCall
from spillway_router.http_client.dial import Dialer
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Target
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import LIMIT_S, cloud, local, routing, settings

NAME = "cloud.test"


def naming(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Make NAME resolve to these addresses; returns the names that are looked up."""
    seen: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return real(host, port, *args, **kwargs)
        seen.append(host)
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(dial.socket, "getaddrinfo", lookup)
    return seen


@contextmanager
def listening(address: str, port: int = 0, backlog: int = 8) -> Iterator[socket.socket]:
    """Listen without accepting."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(backlog)
        yield listener


@contextmanager
def swallowing(address: str, port: int) -> Iterator[None]:
    """Make an address swallow the packets of new connections: its queue is full."""
    with listening(address, port, backlog=0) as listener:
        queued = [socket.socket() for _ in range(4)]
        for waiting in queued:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        try:
            yield
        finally:
            for waiting in queued:
                waiting.close()


async def test_an_address_that_swallows_packets_costs_a_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    naming(monkeypatch, "127.0.0.2", "127.0.0.1")
    loop = asyncio.get_running_loop()
    with listening("127.0.0.1") as good:
        port = good.getsockname()[1]
        with swallowing("127.0.0.2", port):
            started_s = time.monotonic()
            async with asyncio.timeout(LIMIT_S):
                opened = await Dialer(NAME, port).connect(loop)
            with opened:
                assert opened.getpeername() == ("127.0.0.1", port)
            assert dial.NEXT_ADDRESS_S * 0.9 <= time.monotonic() - started_s < 4 * dial.NEXT_ADDRESS_S


async def test_an_address_that_refuses_costs_nothing_and_all_of_them_fail_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naming(monkeypatch, "127.0.0.2", "127.0.0.1")
    monkeypatch.setattr(dial, "NEXT_ADDRESS_S", LIMIT_S)
    loop = asyncio.get_running_loop()
    with listening("127.0.0.1") as good:
        port = good.getsockname()[1]
        async with asyncio.timeout(LIMIT_S / 2):
            (await Dialer(NAME, port).connect(loop)).close()
    with pytest.raises(ConnectionRefusedError):
        await Dialer(NAME, port).connect(loop)


async def test_many_calls_share_one_lookup_and_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = naming(monkeypatch, "127.0.0.1")
    loop = asyncio.get_running_loop()
    with listening("127.0.0.1", backlog=64) as good:
        dialer = Dialer(NAME, good.getsockname()[1])
        for opened in await asyncio.gather(*(dialer.connect(loop) for _ in range(20))):
            opened.close()
        (await dialer.connect(loop)).close()
    assert len(seen) == 1


def test_the_families_take_turns() -> None:
    six = [dial.Address(socket.AF_INET6, (f"::{i}", 1, 0, 0)) for i in range(20)]
    four = [dial.Address(socket.AF_INET, (f"127.0.0.{i}", 1)) for i in range(2)]
    ordered = dial._by_turns([*six, *four])
    assert ordered[:5] == (six[0], four[0], six[1], four[1], six[2])
    assert len(ordered) == 8


async def test_a_name_that_does_not_resolve_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    naming(monkeypatch)
    pool = Pool(Target(scheme="http", host=NAME, port=80, prefix="/v1", headers=(), authority=b"a"), PoolLimits())
    with pytest.raises(ConnectError, match=r"cloud\.test does not resolve"):
        await pool.send(pool.head("/models", 0, private=False), b"", 1.0, PendingCall())


async def test_names_that_hang_delay_no_other_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".test"):
            released.wait(LIMIT_S)
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(dial.socket, "getaddrinfo", lookup)
    try:
        async with FaultUpstream(saying("hi")) as good:
            named = good.url.replace("127.0.0.1", "localhost")
            dead = [local(f"http://dead{i}.test/v1", f"dead{i}") for i in range(10)]
            async with routing(settings(*dead, local(named, "good"))) as router:
                calls = [asyncio.create_task(router.chat({"model": f"dead{i % 10}/m"})) for i in range(40)]
                async with asyncio.timeout(4):
                    assert (await router.chat({"model": "good/m"})).status_code == 200
                released.set()
                for call in calls:
                    assert (await call).status_code >= 500
    finally:
        released.set()


class Names:
    """A resolver whose answers change: each lookup takes the next ones."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)

    def __call__(self, _host: str, port: int, **_hints: Any) -> list[tuple[Any, ...]]:
        addresses = self.answers.pop(0)
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port))
            for family, address in zip(families, addresses, strict=True)
        ]


async def test_a_name_that_changes_to_a_public_address_is_not_dialled() -> None:
    loop = asyncio.get_running_loop()
    with listening("127.0.0.1") as good:
        port = good.getsockname()[1]
        dialer = Dialer(NAME, port, is_inside, Names(("127.0.0.1",), ("8.8.8.8", "2606:4700::1111"), ("127.0.0.1",)))
        (await dialer.connect(loop)).close()
        dialer._resolver.forget()  # as after KNOWN_S
        with pytest.raises(OSError, match=r"cloud\.test leads to 8\.8\.8\.8, 2606:4700::1111, which is a public"):
            await dialer.connect(loop)
        (await dialer.connect(loop)).close()  # the failure was not remembered


async def test_only_the_addresses_inside_are_dialled() -> None:
    with listening("127.0.0.1") as good:
        names = Names(("2606:4700::1111", "8.8.8.8", "::ffff:8.8.4.4", "127.0.0.1"))
        opened = await Dialer(NAME, good.getsockname()[1], is_inside, names).connect(asyncio.get_running_loop())
        with opened:
            assert opened.getpeername()[0] == "127.0.0.1"


async def test_the_pool_of_a_local_backend_dials_no_public_address() -> None:
    target = Target(scheme="http", host="8.8.8.8", port=80, prefix="/v1", headers=(), authority=b"a")
    pool = Pool(target, PoolLimits(), local=True, may_dial=is_inside)
    with pytest.raises(ConnectError, match=r"8\.8\.8\.8 is a public address.*own_host"):
        await pool.send(pool.head("/models", 0, private=True), b"", 1.0, PendingCall())


async def test_a_private_request_stays_when_the_name_of_its_engine_leads_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naming(monkeypatch, "8.8.8.8")
    async with FaultUpstream(saying("from the cloud")) as other:
        backends = settings(local(f"http://{NAME}/v1"), cloud(other))
        async with routing(backends) as router:
            private = await router.chat(**{"x-spillway-privacy": "local-only"})
            assert private.status_code >= 500
            assert other.seen == []
            assert (await router.chat()).status_code == 200
