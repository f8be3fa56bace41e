"""Clients that take more than their part. Each one runs until it is cancelled, from its own connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from loadtests.fake_engine.requests import RECURSIVE

from evidence.overload import load
from evidence.overload.site import Site

Attack = Callable[[Site, float], Awaitable[None]]
"""Attacks a site, whose capacity is given in requests per second."""

POISON: Mapping[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": json.loads(RECURSIVE)}}
}
ATTACKER_KEYS = ("a", "b")
POISON_PER_S = 5.0
SOCKETS = 200
READERS = 50
MANY_SEQUENCES = 64
"""More than the readers that do not read: a key that fills an engine with long answers is no fault of the router."""


async def flood(site: Site, capacity: float) -> None:
    """Ask four times as much as the engine can answer."""
    await load.offer(site.port, 4 * capacity, 3600.0, site.keys["a"])


async def poison(site: Site, _: float) -> None:
    """Send the same request, to which the engine answers 500, again and again."""
    await _every(1 / POISON_PER_S, lambda: load.ask(site.port, site.keys["a"], POISON))


async def new_poisons(site: Site, _: float) -> None:
    """Send such requests with two keys, each with a body of its own."""
    numbers = itertools.count()

    def ask() -> Awaitable[object]:
        number = next(numbers)
        return load.ask(site.port, site.keys[ATTACKER_KEYS[number % 2]], {**POISON, "user": f"u{number}"})

    await _every(0.5 / POISON_PER_S, ask)


async def header_bombs(site: Site, _: float) -> None:
    """Send heads without an end, ten at a time."""

    async def bomb() -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            with contextlib.closing(writer):
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
                for number in range(2000):
                    writer.write(b"h%d: %b\r\n" % (number, b"v" * 1000))
                    await writer.drain()
        await asyncio.sleep(0.1)

    await asyncio.gather(*[_every(0.0, bomb) for _ in range(10)])


async def dripping(site: Site, _: float) -> None:
    """Send heads and bodies byte by byte, on two hundred connections."""

    async def drip(start: bytes) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            with contextlib.closing(writer):
                writer.write(start)
                while True:
                    await asyncio.sleep(1.0)
                    writer.write(b" ")
                    await writer.drain()

    head = load.request(site.keys["a"], b" " * 1000)[:-1000]
    starts = [head if number % 2 else b"POST /v1/chat/completions HTTP/1.1\r\nx: " for number in range(SOCKETS)]
    await asyncio.gather(*[_every(0.1, partial(drip, start)) for start in starts])


async def not_reading(site: Site, _: float) -> None:
    """Ask for long answers on fifty connections and read none of them."""
    loop = asyncio.get_running_loop()
    body = json.dumps({**load.CHAT, "max_tokens": 4000, "stream": True}).encode()

    async def hold() -> None:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", site.port))
            await loop.sock_sendall(sock, load.request(site.keys["a"], body))
            await asyncio.sleep(3600.0)

    await asyncio.gather(*[hold() for _ in range(READERS)])


async def large_bodies(site: Site, _: float) -> None:
    """Upload bodies of 8 MB, four at a time."""
    body = json.dumps({**load.CHAT, "messages": [{"role": "user", "content": "word " * 1_600_000}]}).encode()

    async def upload() -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            with contextlib.closing(writer):
                writer.write(load.request(site.keys["a"], body))
                await writer.drain()
                await reader.read()

    await asyncio.gather(*[_every(0.2, upload) for _ in range(4)])


async def at_once(site: Site, capacity: float) -> None:
    """Let connections hang, read nothing and send what makes the engine fail, all at the same time."""
    await asyncio.gather(*[attack(site, capacity) for attack in (new_poisons, dripping, not_reading)])


ATTACKS: Mapping[str, Attack] = {
    "a flood": flood,
    "a body that fails": poison,
    "bodies that fail, of two keys": new_poisons,
    "header bombs": header_bombs,
    "dripping heads and bodies": dripping,
    "readers that do not read": not_reading,
    "large bodies": large_bodies,
    "failing bodies, slow connections and readers that do not read": at_once,
}


async def _every(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await act()
        await asyncio.sleep(seconds)
