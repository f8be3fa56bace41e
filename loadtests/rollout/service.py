"""A stand-in for a load balancer, or a Service of Kubernetes: connections go to the routers that are ready.

As there, only new connections are placed: one that stands keeps its router, ready or not. A router is asked for /ready
every `EVERY_S`; one that does not answer 200 gets no new connection. A connection that a router refuses goes to the
next one, as kube-proxy's would be tried again by the client's kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Self

import httpx

from loadtests.rollout.waiting import until

EVERY_S = 0.2
ASK_S = 2.0
PIECE_BYTES = 65_536


class Service:
    """One address for several routers. `routers` are their root URLs, and may be changed at any time."""

    def __init__(self, routers: Iterable[str] = ()) -> None:
        self.routers = list(routers)
        self.ready: list[str] = []
        self.url = ""
        self._next = 0
        self._server: asyncio.Server | None = None
        self._asking: asyncio.Task[None] | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._asking is not None
        self._server.close()
        ending = [self._asking, *self._relays]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def until(self, *ready: str) -> None:
        """Return when exactly these routers are ready."""
        await until(lambda: sorted(self.ready) == sorted(ready))

    async def _ask(self) -> None:
        async with httpx.AsyncClient(timeout=ASK_S, trust_env=False) as client:
            while True:
                asked = list(self.routers)
                answers = await asyncio.gather(*(self._is_ready(client, url) for url in asked))
                self.ready = [url for url, good in zip(asked, answers, strict=True) if good and url in self.routers]
                await asyncio.sleep(EVERY_S)

    @staticmethod
    async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
        try:
            return (await client.get(f"{url}/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            self._relays.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self.ready) or 1):
            if not self.ready:
                return
            self._next += 1
            host, _, port = self.ready[self._next % len(self.ready)].removeprefix("http://").partition(":")
            try:
                upstream = await asyncio.open_connection(host, int(port))
            except OSError:
                continue
            try:
                await asyncio.gather(_copy(reader, upstream[1]), _copy(upstream[0], writer))
            finally:
                upstream[1].close()
            return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until the end, and then the end."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
